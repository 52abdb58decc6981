"""The tables of the L4 comparison."""

import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.l4.subjects import RELAY, SUBJECTS, Subject, version_of
from bench.machine import python_build
from bench.processes import LOAD_CORE, SUBJECT_CORE


@dataclass(frozen=True, slots=True)
class Cost:
    """One window: CPU seconds a unit, units a second, CPU seconds in all."""

    cpu_s: float
    rate: float
    used_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of the process tree before and while `count` are held."""

    before_bytes: int
    during_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class _Unit:
    title: str
    scale: float
    cpu: str
    rate: str


_UNITS: Mapping[str, _Unit] = {
    "exchanges": _Unit(
        "Small exchanges: 100 bytes each way over 32 kept-open connections",
        1e6,
        "CPU µs/exchange",
        "exchanges/s",
    ),
    "bulk": _Unit("Bulk: one download", 1.0, "CPU s/GB", "GB/s"),
    "connections": _Unit(
        "New connections: open, one exchange, close, 16 at a time", 1e6, "CPU µs/connection", "connections/s"
    ),
    "datagrams": _Unit(
        "UDP: request and reply over 1,000 client ports", 1e6, "CPU µs/round trip", "round trips/s"
    ),
}

# (part, peer, highest ratio): what the relay is to reach.
_GOALS = (
    ("exchanges", "haproxy", 1.0),
    ("bulk", "haproxy", 0.5),
    ("bulk", "haproxy-splice", 0.5),
    ("connections", "haproxy", 1.6),
    ("datagrams", "nginx", 1.1),
)
_TITLES = {subject.name: subject.title for subject in SUBJECTS}

Rounds = Mapping[str, Sequence[Cost]]


def describe(command: str, subjects: Sequence[Subject]) -> list[str]:
    """Markdown lines: date, command, machine and versions."""
    peers = {subject.program for subject in subjects} - {sys.executable}
    try:
        loop = f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        loop = "asyncio's own loop"
    return [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, command: `{command}`",
        f"- machine: {_cpu_model()}, Linux {platform.release()}; relay on core {SUBJECT_CORE}, "
        f"client and server on core {LOAD_CORE}",
        f"- {python_build()}, {loop}; "
        + ", ".join(f"{program} {version_of(program)}" for program in sorted(peers)),
    ]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def cost_table(part: str, rounds: Rounds, count: int, window_s: float) -> str:
    """Return a part's table, l4relay first."""
    unit = _UNITS[part]
    lines = [
        f"### {unit.title}",
        "",
        f"{count} interleaved windows of {window_s:g} s; medians. A ratio is l4relay's CPU to the peer's.",
        "",
        f"| relay | {unit.cpu} | min-max | l4relay's ratio | {unit.rate} | core busy |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, costs in rounds.items():
        cpu = sorted(cost.cpu_s * unit.scale for cost in costs)
        digits = 1 if unit.scale > 1 else 3
        rate = statistics.median(cost.rate for cost in costs)
        cells = (
            _TITLES[name],
            f"{statistics.median(cpu):,.{digits}f}",
            f"{cpu[0]:,.{digits}f}-{cpu[-1]:,.{digits}f}",
            "" if name == RELAY.name else f"{ratio(rounds, name):.2f}",
            f"{rate:,.0f}" if unit.scale > 1 else f"{rate:.2f}",
            f"{statistics.median(cost.cpu_s * cost.rate for cost in costs):.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(rounds: Rounds, peer: str) -> float:
    """Return the median over the rounds of the relay's CPU a unit to the peer's."""
    pairs = zip(rounds[RELAY.name], rounds[peer], strict=True)
    return statistics.median(mine.cpu_s / theirs.cpu_s for mine, theirs in pairs)


def goals(parts: Mapping[str, Rounds]) -> str:
    """Return what was to be reached against what was measured; empty where a run holds none of it."""
    lines = []
    for part, peer, highest in _GOALS:
        if peer in parts.get(part, {}):
            measured = ratio(parts[part], peer)
            verdict = "reached" if measured <= highest else "**missed**"
            lines.append(f"| {part} | {_TITLES[peer]} | ≤ {highest:.2f} | {measured:.2f} | {verdict} |")
    if not lines:
        return ""
    header = [
        "### Goals",
        "",
        "| l4relay | against the CPU of | goal | measured | |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    return "\n".join(header + lines)


def memory_table(title: str, figures: Mapping[Subject, Memory | str]) -> str:
    """Return one scenario's table; a figure that could not be had is its reason."""
    lines = [
        f"### Memory: {title}",
        "",
        "| relay | before, MiB | during, MiB | KiB each |",
        "| --- | ---: | ---: | ---: |",
    ]
    for subject, figure in figures.items():
        if isinstance(figure, str):
            lines.append(f"| {subject.title} | - | - | {figure} |")
            continue
        each = (figure.during_bytes - figure.before_bytes) / figure.count / 2**10
        before, during = figure.before_bytes / 2**20, figure.during_bytes / 2**20
        lines.append(f"| {subject.title} | {before:.1f} | {during:.1f} | {each:.1f} |")
    return "\n".join(lines)
