"""What a match costs with 10 to 10,000 routes; `python -m bench.routing` prints the table.

Requests are spread over the whole table in a shuffled order, so that no route stays in the CPU's
caches because it is asked for again and again: that is the table's bad case.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from gateway_app.routing.match import Entry, Match
from gateway_app.routing.table import RouteTable

SIZES: Final = (10, 100, 1_000, 10_000)
GOAL: Final = 2.0
"""How much dearer a match may be with the most routes than with the fewest."""

_MATCHES: Final = 10_000
_REPEATS: Final = 7
_ANY_HOST: Final = "api.example.com"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to write routes: the n-th one's match, and a host and path that it alone takes."""

    title: str
    match: Callable[[int], Match]
    request: Callable[[int], tuple[str, str]]


KINDS: Final = (
    Kind(
        "exact paths, /service7/status",
        lambda n: Match(path=f"/service{n}/status"),
        lambda n: (_ANY_HOST, f"/service{n}/status"),
    ),
    Kind(
        "prefixes, /api/service7/*",
        lambda n: Match(path=f"/api/service{n}/*"),
        lambda n: (_ANY_HOST, f"/api/service{n}/users/1"),
    ),
    Kind(
        "templates, /service7/users/{id}",
        lambda n: Match(path=f"/service{n}/users/{{id}}"),
        lambda n: (_ANY_HOST, f"/service{n}/users/1"),
    ),
    Kind(
        "regular expressions, ~^/service7/v[12]/",
        lambda n: Match(path=f"~^/service{n}/v[12]/"),
        lambda n: (_ANY_HOST, f"/service{n}/v2/users"),
    ),
    Kind(
        "hosts, service7.example.com",
        lambda n: Match(host=f"service{n}.example.com", path="/*"),
        lambda n: (f"service{n}.example.com", "/users/1"),
    ),
    Kind(
        "wildcards, *.tenant7.example.com",
        lambda n: Match(host=f"*.tenant{n}.example.com", path="/*"),
        lambda n: (f"www.tenant{n}.example.com", "/users/1"),
    ),
    Kind(
        "prefix, method and header field",
        lambda n: Match(path=f"/api/service{n}/*", methods=("GET",), headers={"x-beta": "1"}),
        lambda n: (_ANY_HOST, f"/api/service{n}/users/1"),
    ),
    Kind(
        "no route holds",
        lambda n: Match(path=f"/api/service{n}/*"),
        lambda n: (_ANY_HOST, f"/web/service{n}/users/1"),
    ),
)


def cost_ns(kind: Kind, routes: int) -> float:
    """Return the CPU nanoseconds of one match in a table of `routes` routes: the best of several runs."""
    table = RouteTable([Entry(f"route-{n}", kind.match(n), n) for n in range(routes)])
    wanted = [n % routes for n in range(_MATCHES)]
    random.Random(1).shuffle(wanted)  # the same order in every run
    requests = [kind.request(n) for n in wanted]
    scope: Scope = {"type": "http", "headers": [(b"accept", b"*/*"), (b"x-beta", b"1")], "query_string": b""}
    _check(kind, table, scope)
    return min(_run(table, requests, scope) for _ in range(_REPEATS)) / _MATCHES


def _check(kind: Kind, table: RouteTable[int], scope: Scope) -> None:
    """Raise unless the fourth route is found, so that nothing is measured that does not route."""
    host, path = kind.request(3)
    found = table.match("GET", host, path, scope)
    expected = None if kind.title == "no route holds" else 3
    if getattr(found, "value", None) != expected:
        raise RuntimeError(f"{kind.title}: {host}{path} led to {found}")


def _run(table: RouteTable[int], requests: list[tuple[str, str]], scope: Scope) -> int:
    match = table.match
    started = time.process_time_ns()
    for host, path in requests:
        match("GET", host, path, scope)
    return time.process_time_ns() - started


def measure() -> str:
    """Return the table of all kinds and sizes, in Markdown."""
    sizes = " | ".join(f"{size:,}" for size in SIZES)
    lines = [
        "CPU ns for a match, by the number of routes; requests spread over all of them.",
        "",
        f"| routes | {sizes} | {SIZES[-1]:,} against {SIZES[0]} | goal ≤ {GOAL:g} |",
        f"| --- |{' ---: |' * (len(SIZES) + 1)} --- |",
    ]
    for kind in KINDS:
        costs = [cost_ns(kind, size) for size in SIZES]
        ratio = costs[-1] / costs[0]
        cells = " | ".join(f"{cost:,.0f}" for cost in costs)
        verdict = "reached" if ratio <= GOAL else "**missed**"
        lines.append(f"| {kind.title} | {cells} | {ratio:.2f} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(measure())
