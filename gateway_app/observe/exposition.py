"""The metrics of all workers, as Prometheus and OpenMetrics read them."""

from __future__ import annotations

import math
import os
import platform
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from gateway_app.observe.families import DURATION_BOUNDS_S, FAMILIES, PREFIX, SUMMED, Family
from gateway_app.observe.run_directory import stat_fields
from gateway_app.observe.shared_values import read_workers, sum_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from gateway_app.observe.shared_values import Key, WorkerValues

_BUCKETS: Final = (*(str(bound) for bound in DURATION_BOUNDS_S), "+Inf")
_MERGE: Final[dict[str, Callable[[list[float]], float]]] = {"sum": sum, "min": min, "max": max}
_USER_TIME, _SYSTEM_TIME, _RESIDENT_PAGES = 11, 12, 21  # proc_pid_stat(5), counted from the state


class WorkersCollector(Collector):
    """Collects what the workers of the gateway that shares `directory` have written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Return every family that has a value, and what the system says about the workers' processes."""
        workers = read_workers(self._directory)
        series = merged(workers)
        by_family: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, labels), numbers in sorted(series.items()):
            by_family.setdefault(name, []).append((labels, numbers))
        for name, samples in by_family.items():
            yield _metric(FAMILIES[name], samples)
        yield InfoMetricFamily(
            f"{PREFIX}build",
            "The version that runs.",
            {"version": version("l47-gateway"), "python": platform.python_version()},
        )
        yield from _processes(workers)


def render(directory: Path, accept: str) -> tuple[bytes, str]:
    """Return the metrics of all workers and their media type, as the Accept field asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkersCollector(directory))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def merged(workers: list[WorkerValues]) -> dict[Key, list[float]]:
    """Return one value for each series: sums over all workers; of gauges, what those that live agree on.

    A gauge that is not a number stands for something that is gone, such as an endpoint after a reload.
    """
    series = sum_series(workers, SUMMED)
    gauges: dict[Key, list[float]] = {}
    for worker in workers:
        if worker.is_running:
            for key, numbers in worker.series.items():
                if key[0] in FAMILIES and key[0] not in SUMMED and not math.isnan(numbers[0]):
                    gauges.setdefault(key, []).append(numbers[0])
    for key, values in gauges.items():
        series[key] = [_MERGE[FAMILIES[key[0]].merge](values)]
    return series


def _metric(family: Family, samples: Iterable[tuple[tuple[str, ...], list[float]]]) -> Metric:
    metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | SummaryMetricFamily
    match family.kind:
        case "histogram":
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, numbers in samples:
                buckets = list(zip(_BUCKETS, accumulate(numbers[:-1]), strict=True))
                metric.add_metric(labels, buckets, numbers[-1])
        case "summary":
            metric = SummaryMetricFamily(family.name, family.help, labels=family.labels)
            for labels, (count, total) in samples:
                metric.add_metric(labels, int(count), total)
        case "counter" | "gauge":
            one = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = one(family.name, family.help, labels=family.labels)
            for labels, (number,) in samples:
                metric.add_metric(labels, number)
    return metric


def _processes(workers: list[WorkerValues]) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        f"{PREFIX}worker_cpu_seconds", "Processor time that a worker has used.", labels=["worker"]
    )
    memory = GaugeMetricFamily(
        f"{PREFIX}worker_resident_memory_bytes", "Memory that a worker has resident.", labels=["worker"]
    )
    for pid in running_pids(workers):
        if usage := process_usage(pid):
            cpu.add_metric([str(pid)], usage[0])
            memory.add_metric([str(pid)], usage[1])
    yield cpu
    yield memory


def running_pids(workers: list[WorkerValues]) -> list[int]:
    """Return the process ids of the workers that live."""
    return sorted({worker.process.pid for worker in workers if worker.process and worker.is_running})


def process_usage(pid: int) -> tuple[float, int] | None:
    """Return the processor seconds a process has used and its resident bytes; None if that is not known."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    ticks = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[_RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE")
