"""`python -m bench`: measure every subject, print the tables, write them to RESULTS.md."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import machine, memory, report, routing
from bench.backend import Backend
from bench.memory import IDLE_CLIENTS, SLOW_DOWNLOADS, Figure
from bench.processes import DoesNotStartError
from bench.subjects import SUBJECTS, RunningSubject, Subject
from bench.throughput import compare, running

_WORKLOADS = ("small", "large")
_PARTS = ("http", "memory", "routing")


def _arguments() -> argparse.Namespace:
    names = ",".join(subject.name for subject in SUBJECTS)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_subjects, default=SUBJECTS, metavar="NAME,…", help=f"of {names}")
    parser.add_argument("--workload", choices=_WORKLOADS, help="one workload only")
    parser.add_argument(
        "--rounds", type=int, help="windows for each subject and workload (6, with --quick 2)"
    )
    parser.add_argument("--window", type=float, help="seconds for each window (1.5, with --quick 1)")
    parser.add_argument("--part", choices=_PARTS, action="append", help="run this part only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a first look, not a result")
    parser.add_argument(
        "--write", action="store_true", help="write RESULTS.md even for a partial or quick run"
    )
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 6)
    arguments.window = arguments.window or (1.0 if arguments.quick else 1.5)
    return arguments


def _subjects(text: str) -> Sequence[Subject]:
    known = {subject.name: subject for subject in SUBJECTS}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such subject: {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in text.split(",")]


def main() -> None:
    """Run the parts that were asked for."""
    arguments = _arguments()
    memory.raise_file_limit()
    is_whole = arguments.only is SUBJECTS and not (arguments.workload or arguments.quick)
    writes = arguments.write or is_whole
    parts = arguments.part or _PARTS
    command = " ".join(["bench/run", *sys.argv[1:]]) if len(sys.argv) > 1 else "make bench"
    provenance = machine.describe(command)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker is another user when the master is root
        backend = Backend(directory)
        try:
            if "http" in parts:
                _publish(
                    "http", "HTTP: CPU per request", provenance, _http(arguments, backend, directory), writes
                )
            if "memory" in parts:
                _publish("memory", "Memory", provenance, _memory(arguments, backend, directory), writes)
        finally:
            backend.stop()
    if "routing" in parts and arguments.only is SUBJECTS and not arguments.workload:
        _publish("routing", "Routing: cost of a match", provenance, routing.measure(), writes)


def _publish(name: str, title: str, provenance: list[str], body: str, writes: bool) -> None:
    print("\n".join(["", f"## {title}", "", *provenance, "", body]), flush=True)
    if writes:
        report.write_part(name, title, provenance, body)
        report.compose()


def _http(arguments: argparse.Namespace, backend: Backend, directory: Path) -> str:
    workloads = [arguments.workload] if arguments.workload else _WORKLOADS
    with running(arguments.only, backend.port, directory) as (servers, failures):
        table = compare(servers, workloads, arguments.rounds, arguments.window)
    setting = (
        f"32 connections, {arguments.rounds} interleaved windows of {arguments.window:g} s each; medians."
    )
    return "\n\n".join(
        text for text in (setting, report.throughput(table, failures), report.goals(table)) if text
    )


def _memory(arguments: argparse.Namespace, backend: Backend, directory: Path) -> str:
    subjects = [subject for subject in arguments.only if subject.name in memory.SUBJECT_NAMES]
    slow_s = 3.0 if arguments.quick else 6.0
    scenarios: dict[str, Callable[[RunningSubject], Figure]] = {
        f"{IDLE_CLIENTS:,} idle keep-alive clients": lambda server: memory.idle_clients(server, IDLE_CLIENTS),
        f"{SLOW_DOWNLOADS:,} concurrent slow downloads of 4 MiB": lambda server: memory.slow_downloads(
            server, SLOW_DOWNLOADS, slow_s
        ),
    }
    figures: dict[str, dict[str, Figure | str]] = {}
    for title, scenario in scenarios.items():
        print(f"  memory: {title}", flush=True)
        figures[title] = {
            subject.name: _memory_of(subject, scenario, backend, directory) for subject in subjects
        }
    return report.memory(figures)


def _memory_of(
    subject: Subject, scenario: Callable[[RunningSubject], Figure], backend: Backend, directory: Path
) -> Figure | str:
    """Return the scenario's figure on a fresh server, or why there is none."""
    if subject.path() is None:
        return "not installed"
    try:
        server = RunningSubject(subject, backend.port, directory)
    except DoesNotStartError as error:
        return f"does not start: {error}"
    try:
        return scenario(server)
    except OSError as error:
        return f"failed: {error}"
    finally:
        server.stop()


main()
