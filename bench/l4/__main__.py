"""`python -m bench.l4`: measure the relay beside its peers, print the tables, write results/l4.md.

Rounds are interleaved (A B C, C B A, …), who is not in turn stands still, and a ratio is the median of the
rounds' own ratios, so that a machine that slows down for a while does not favour anybody. Many short rounds
say more than a few long ones: what disturbs them lasts for seconds.
"""

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.l4.load import (
    Bulk,
    Connections,
    Datagrams,
    Exchanges,
    Server,
    Workload,
    idle_connections,
    idle_sessions,
)
from bench.l4.report import Cost, Memory, cost_table, describe, goals, memory_table
from bench.l4.subjects import SUBJECTS, RunningSubject, Subject, install_missing
from bench.processes import LOAD_CORE, DoesNotStartError
from bench.report import compose, write_part

_WARM_UP_S = 0.2
_IDLE_CONNECTIONS = 8_000
_IDLE_SESSIONS = 15_000


@dataclass(frozen=True, slots=True)
class _Part:
    """A workload by the name that relays take part in it by."""

    name: str
    make: Callable[[Server, int], Workload]


_PARTS = (
    _Part("exchanges", Exchanges),
    _Part("bulk", Bulk),
    _Part("connections", Connections),
    _Part("datagrams", Datagrams),
)


def _arguments() -> argparse.Namespace:
    names = [part.name for part in _PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench.l4", description=__doc__)
    parser.add_argument(
        "--part", choices=[*names, "memory"], action="append", help="this part only; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="windows for each relay and workload (21, with --quick 2)")
    parser.add_argument("--window", type=float, help="seconds for each window (0.4)")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a first look, not a result")
    parser.add_argument(
        "--write", action="store_true", help="write the results of a partial or quick run, too"
    )
    arguments = parser.parse_args()
    arguments.writes = arguments.write or not (arguments.part or arguments.quick)
    arguments.part = arguments.part or [*names, "memory"]
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 21)
    arguments.window = arguments.window or 0.4
    return arguments


def main() -> None:
    """Run the parts that were asked for."""
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missing = install_missing()
    subjects = [subject for subject in SUBJECTS if subject.program not in missing]
    server = Server()
    sections: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-l4-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker is another user when the master is root
        costs = _measure_costs(arguments, subjects, server, directory)
        sections += [
            cost_table(part, rows, arguments.rounds, arguments.window) for part, rows in costs.items()
        ]
        sections += [goals(costs)]
        if "memory" in arguments.part:
            sections += _measure_memory(subjects, server, directory)
    server.close()
    sections += [f"{program}: {why}" for program, why in missing.items()]
    body = "\n\n".join(section for section in sections if section)
    provenance = describe(" ".join(["python -m bench.l4", *sys.argv[1:]]), subjects)
    print("\n".join([*provenance, "", body]), flush=True)
    if arguments.writes:
        write_part("l4", "Layer 4: the relay beside HAProxy and nginx stream", provenance, body)
        compose()


def _measure_costs(
    arguments: argparse.Namespace, subjects: Sequence[Subject], server: Server, directory: Path
) -> dict[str, dict[str, list[Cost]]]:
    """Return each part's costs by relay, in rounds."""
    with ExitStack() as stack:
        relays = []
        for subject in subjects:
            relays.append(RunningSubject(subject, server.port, directory))
            stack.callback(relays[-1].stop)
        costs = {}
        for part in _PARTS:
            if part.name in arguments.part:
                taking_part = [relay for relay in relays if part.name in relay.subject.parts]
                print(f"  {part.name}", flush=True)
                costs[part.name] = _rounds(part, taking_part, server, arguments.rounds, arguments.window)
        return costs


def _rounds(
    part: _Part, relays: Sequence[RunningSubject], server: Server, rounds: int, window_s: float
) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {relay.subject.name: [] for relay in relays}
    for relay in relays:
        relay.process.pause()
    for number in range(rounds):
        for relay in relays if number % 2 == 0 else reversed(relays):
            relay.process.resume()
            with part.make(server, relay.port).prepared() as load:
                load.run(_WARM_UP_S)
                before_s = relay.process.cpu_s()
                counted = load.run(window_s)
                used_s = relay.process.cpu_s() - before_s
            relay.process.pause()
            if not counted.units:
                raise SystemExit(f"{relay.subject.title}: nothing came through: {relay.process.last_line()}")
            costs[relay.subject.name].append(
                Cost(used_s / counted.units, counted.units / counted.seconds, used_s)
            )
    return costs


def _measure_memory(subjects: Sequence[Subject], server: Server, directory: Path) -> list[str]:
    connections = {
        subject: _memory_of(subject, server, directory, idle_connections, _IDLE_CONNECTIONS)
        for subject in subjects
        if "connections" in subject.parts
    }
    sessions = {
        subject: _memory_of(subject, server, directory, idle_sessions, _IDLE_SESSIONS)
        for subject in subjects
        if "datagrams" in subject.parts
    }
    return [
        memory_table(f"{_IDLE_CONNECTIONS:,} idle connections, each after one exchange", connections),
        memory_table(f"{_IDLE_SESSIONS:,} idle UDP sessions, each after one round trip", sessions),
    ]


def _memory_of(
    subject: Subject,
    server: Server,
    directory: Path,
    hold: Callable[[Server, int, int], AbstractContextManager[int]],
    count: int,
) -> Memory | str:
    """Return the growth of a fresh relay, or why there is no figure."""
    print(f"  memory: {count:,}, {subject.title}", flush=True)
    try:
        relay = RunningSubject(subject, server.port, directory)
    except DoesNotStartError as error:
        return f"does not start: {error}"
    try:
        before = relay.process.rss_bytes()
        with hold(server, relay.port, count) as held:
            if not held:
                return "nothing came through"
            return Memory(before, relay.process.rss_bytes(), held)
    except OSError as error:
        return f"failed: {error}"
    finally:
        relay.stop()


if __name__ == "__main__":
    main()
