"""Tables of the results, and RESULTS.md, which is put together from the parts in results/."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.memory import Figure
from bench.subjects import BENCH, SUBJECTS
from bench.throughput import Row

PARTS = BENCH / "results"
RESULTS = BENCH / "RESULTS.md"
_ORDER = ("http", "memory", "routing", "l4")
_WORKLOADS = {"small": "A 100-byte JSON answer", "large": "A 1 MiB answer"}
_REFERENCE = "envoy"

# (what, workload, subject, peer, highest ratio): what the gateway is to reach.
_GOALS = (
    ("on granian", "small", "gateway-granian", "envoy", 1.0),
    ("on granian, both middlewares", "small", "gateway-granian-filtered", "envoy", 1.25),
    ("on granian, both middlewares", "small", "gateway-granian-filtered", "caddy", 1.0),
    ("on hypercorn", "small", "gateway-hypercorn", "hypercorn", 1.25),
    ("on granian, 1 MiB answer", "large", "gateway-granian", "envoy", 1.5),
)

Table = Mapping[str, Mapping[str, Row]]


def throughput(table: Table, failures: Mapping[str, str]) -> str:
    """Return the CPU and rate tables, cheapest first, then who has no row and why."""
    parts = []
    for workload, rows in table.items():
        lines = [
            f"### {_WORKLOADS[workload]}",
            "",
            "| server | CPU µs/request | min-max | vs Envoy | requests/s | core busy | others | remarks |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        reference = rows.get(_REFERENCE)
        lines += [_row(row, reference) for row in sorted(rows.values(), key=lambda row: row.cpu_us)]
        titles = {subject.name: subject.title for subject in SUBJECTS}
        lines += [f"| {titles[name]} | - | - | - | - | - | - | {why} |" for name, why in failures.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(row: Row, reference: Row | None) -> str:
    costs = [sample.cpu_us_per_request for sample in row.samples]
    busy = min(sample.core_busy for sample in row.samples)
    cells = (
        row.subject.title,
        f"{row.cpu_us:,.1f}",
        f"{min(costs):,.1f}-{max(costs):,.1f}",
        f"{row.ratio_to(reference):.2f}" if reference else "-",
        f"{row.requests_per_s:,.0f}",
        f"{busy:.0%}",
        f"{max(sample.core_taken for sample in row.samples):.0%}",
        "; ".join(remark for remark in (row.subject.remarks, row.errors) if remark),
    )
    return f"| {' | '.join(cells)} |"


def goals(table: Table) -> str:
    """Return what was to be reached against what was measured; empty where a run holds none of it."""
    lines = []
    for what, workload, name, peer, highest in _GOALS:
        rows = table.get(workload, {})
        if name not in rows or peer not in rows:
            continue
        ratio = rows[name].ratio_to(rows[peer])
        verdict = "reached" if ratio <= highest else "**missed**"
        lines.append(f"| {what} | {rows[peer].subject.title} | ≤ {highest:.2f} | {ratio:.2f} | {verdict} |")
    if not lines:
        return ""
    header = [
        "### Goals",
        "",
        "| gateway | against the CPU of | goal | measured | |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    return "\n".join(header + lines)


def memory(scenarios: Mapping[str, Mapping[str, Figure | str]]) -> str:
    """Return one table a scenario; a figure that could not be had is its reason."""
    titles = {subject.name: subject.title for subject in SUBJECTS}
    parts = []
    for title, figures in scenarios.items():
        lines = [
            f"### {title}",
            "",
            "| server | before, MiB | during, MiB | KiB per connection |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name, figure in figures.items():
            if isinstance(figure, str):
                lines.append(f"| {titles[name]} | - | - | {figure} |")
                continue
            before, during = figure.before_bytes / 2**20, figure.during_bytes / 2**20
            each = figure.per_connection_bytes / 2**10
            lines.append(f"| {titles[name]} | {before:.1f} | {during:.1f} | {each:.1f} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_part(name: str, title: str, provenance: Sequence[str], body: str) -> Path:
    """Write one part of the results; `provenance` says when, where and how they were measured."""
    PARTS.mkdir(exist_ok=True)
    path = PARTS / f"{name}.md"
    path.write_text("\n".join([f"## {title}", "", *provenance, "", body.strip(), ""]))
    return path


def compose() -> None:
    """Put RESULTS.md together from the parts that are there."""
    known = [PARTS / f"{name}.md" for name in _ORDER]
    others = sorted(set(PARTS.glob("*.md")) - set(known))
    texts = [path.read_text().strip() for path in [*known, *others] if path.exists()]
    RESULTS.write_text("\n\n".join(["# Benchmark results", _INTRODUCTION, *texts]) + "\n")


_INTRODUCTION = """\
Written by `make bench` (bench/README.md says how it measures). CPU is what the server's whole process
tree used, divided by the requests it answered. Ratios are medians of the rounds' own ratios. "core busy" is
the share of its core that the server used in its least busy window, "others" what other processes took of
that core at most. Low with "others" near 0, the load generator was the limit and requests/s are a lower
bound; with "others" high, the machine was not quiet and the row is not to be trusted, CPU included."""


if __name__ == "__main__":
    compose()
