"""CPU per request of every subject: all are started, then measured in turns (A B C, A B C).

In turns, because a machine's speed drifts over minutes: the medians of interleaved windows compare,
those of one long run each do not.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Sample, measure
from bench.processes import DoesNotStartError
from bench.subjects import RunningSubject, Subject


@dataclass(slots=True)
class Row:
    """One subject's results under one workload, or why there are none."""

    subject: Subject
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def cpu_us(self) -> float:
        """Median CPU µs per request."""
        return statistics.median(sample.cpu_us_per_request for sample in self.samples)

    def ratio_to(self, peer: "Row") -> float:
        """Median of the rounds' own ratios of CPU: those of one round were measured in the same minute."""
        pairs = zip(self.samples, peer.samples, strict=True)
        return statistics.median(own.cpu_us_per_request / its.cpu_us_per_request for own, its in pairs)

    @property
    def requests_per_s(self) -> float:
        """Median requests per second."""
        return statistics.median(sample.requests_per_s for sample in self.samples)

    @property
    def errors(self) -> str:
        """What went wrong in the windows, if anything."""
        return "; ".join(sorted({sample.errors for sample in self.samples if sample.errors}))


@contextmanager
def running(
    subjects: Iterable[Subject], backend_port: int, directory: Path
) -> Iterator[tuple[list[RunningSubject], dict[str, str]]]:
    """Start every subject that can be had; yields those that run, and the others' names with the reason."""
    started: list[RunningSubject] = []
    failures: dict[str, str] = {}
    try:
        for subject in subjects:
            if subject.path() is None:
                failures[subject.name] = "not installed"
                continue
            try:
                started.append(RunningSubject(subject, backend_port, directory))
            except DoesNotStartError as error:
                failures[subject.name] = f"does not start: {error}"
        yield started, failures
    finally:
        for server in started:
            server.stop()


def compare(
    servers: Sequence[RunningSubject], workloads: Sequence[str], rounds: int, window_s: float
) -> dict[str, dict[str, Row]]:
    """Measure all `servers` under all `workloads` in turns; rows by workload and subject name.

    All but the one in turn stand still: their timers share its core and caches.
    """
    table = {
        workload: {server.subject.name: Row(server.subject) for server in servers} for workload in workloads
    }
    for server in servers:
        server.process.pause()
    for number in range(rounds):
        for workload in workloads:
            print(f"  round {number + 1} of {rounds}: {workload}", flush=True)
            for server in servers:
                server.process.resume()
                sample = measure(server.process, f"{server.url}/{workload}", window_s)
                server.process.pause()
                table[workload][server.subject.name].samples.append(sample)
    return table
