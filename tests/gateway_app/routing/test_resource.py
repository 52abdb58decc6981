"""Hosts and targets read once: what is remembered changes no answer, and does not grow."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from gateway_app.problem import Cause, GatewayError
from gateway_app.routing.host import HostReader
from gateway_app.routing.match import Entry, Match
from gateway_app.routing.resource import ResourceReader
from gateway_app.routing.table import RouteTable
from gateway_app.routing.target import TargetReader

SCOPE: Scope = {"type": "http", "headers": [(b"x-beta", b"1")], "query_string": b""}


def reader_of(*matches: Match) -> tuple[ResourceReader[int], RouteTable[int]]:
    table = RouteTable([Entry(f"route-{n}", match, n) for n, match in enumerate(matches)])
    return ResourceReader(TargetReader(), HostReader(), table), table


def test_what_is_remembered_leads_to_the_same_rule_as_the_table() -> None:
    reader, table = reader_of(
        Match(host="a.example", path="/users/{id}", methods=("GET",)),
        Match(host="a.example", path="/users/*", headers={"x-beta": "1"}, methods=("POST",)),
        Match(path="/users/*"),
        Match(path="/*"),
    )
    for _ in range(2):  # the second time out of the memory
        for host in (b"a.example", b"b.example:80"):
            for path in (b"/users/7", b"/users/7/orders", b"/other"):
                for method in ("GET", "POST"):
                    name, target, rules, certain = reader.read(method, host, path, b"")
                    assert rules is not None
                    matched = table.match(method, name, target.path, SCOPE)
                    assert table.first(rules, method, target.path, SCOPE) == matched
                    assert certain in (None, matched)


def test_a_rule_that_asks_for_nothing_else_is_certain() -> None:
    reader, table = reader_of(Match(path="/users/*", methods=("POST",)), Match(path="/*"))
    assert reader.read("GET", b"a.example", b"/other", b"").certain == table.match(
        "GET", "a.example", "/other", SCOPE
    )
    assert reader.read("GET", b"a.example", b"/users/7", b"").certain is None


def test_many_rules_for_one_path_are_not_remembered() -> None:
    many = [Match(path="/a", headers={"x-tenant": str(n)}) for n in range(ResourceReader.MAX_RULES + 1)]
    reader, _ = reader_of(*many)
    assert reader.read("GET", b"a.example", b"/a", b"").rules is None
    assert reader.read("GET", b"a.example", b"/b", b"").rules == ()


def test_the_query_is_checked_each_time() -> None:
    reader, _ = reader_of(Match(path="/*"))
    reader.read("GET", b"a.example", b"/a", b"x=1")
    for method, query in (("GET", b"a\nb"), ("CONNECT", b""), ("get", b""), ("Post", b"x=1")):
        with pytest.raises(GatewayError) as error:
            reader.read(method, b"a.example", b"/a", query)
        assert error.value.cause is Cause.MALFORMED


def test_the_memory_is_bounded() -> None:
    reader, _ = reader_of(Match(path="/*"))
    for number in range(3 * ResourceReader.MAX_REMEMBERED):
        assert reader.read("GET", b"a.example", b"/%d" % number, b"").target.path == f"/{number}"
    reader.read("GET", b"a.example", b"/" + b"a" * 300, b"")
    assert len(reader._seen) <= ResourceReader.MAX_REMEMBERED
    assert max(len(path) for _, path in reader._seen) <= ResourceReader.MAX_REMEMBERED_BYTES
