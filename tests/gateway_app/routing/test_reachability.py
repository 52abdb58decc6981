"""Routes that nothing can reach."""

from __future__ import annotations

import pytest

from gateway_app.routing.match import Entry, Match
from gateway_app.routing.table import RouteTable


def unreachable(*matches: Match) -> dict[int, list[int]]:
    table = RouteTable([Entry(str(at), match, at) for at, match in enumerate(matches)])
    return {found.entry.value: [entry.value for entry in found.taken_by] for found in table.unreachable()}


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        (Match(), Match()),
        (Match(path="/*"), Match()),
        (Match(path="/a"), Match(path="/%61")),
        (Match(host="A.example"), Match(host="a.example.")),
        (Match(path="/a/{x}"), Match(path="/a/{y}")),
        (Match(path="~^/a"), Match(path="~^/a")),
        (Match(path="/users/*"), Match(path="/users/{id}")),
        (Match(path="/users/*"), Match(path="/users/{id}/x/*", methods=("GET",), headers={"h": "1"})),
        (Match(path="/api/*"), Match(path="~^/api/v[12]/")),
        (Match(path="/a", methods=("GET", "PUT")), Match(path="/a", methods=("PUT",))),
        (Match(path="/a", headers={"h": "1"}), Match(path="/a", headers={"H": "1"}, query={})),
        (Match(path="/a", headers={"h": "*"}), Match(path="/a", headers={"h": "1"})),
        (Match(path="/a", headers={"h": "~^1"}), Match(path="/a", headers={"h": "12"})),
        (Match(path="/a", json={"/k": 1}), Match(path="/a", json={"/k": 1.0})),
    ],
)
def test_what_an_earlier_route_takes_is_reported(nearer: Match, farther: Match) -> None:
    assert unreachable(nearer, farther) == {1: [0]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Match(path="/a"), Match(path="/a/")),
        (Match(path="/a"), Match(path="/a/*")),
        (Match(path="/users/*"), Match(path="/{x}/7")),
        (Match(path="/users/*"), Match(path="~^/users")),
        (Match(path="/api/*"), Match(path="~^/api/|^/b")),
        (Match(path="/a/{x}"), Match(path="/a/{x}/*")),
        (Match(host="*.a.example"), Match(host="*.example")),
        (Match(host="a.example"), Match()),
        (Match(path="/a", methods=("GET",)), Match(path="/a")),
        (Match(path="/a", methods=("GET",)), Match(path="/a", methods=("GET", "PUT"))),
        (Match(path="/a", headers={"h": "1"}), Match(path="/a", headers={"h": "2"})),
        (Match(path="/a", headers={"h": "1"}), Match(path="/a", cookies={"h": "1"})),
        (Match(path="/a", headers={"h": "1"}), Match(path="/a", headers={"h": "*"})),
        (Match(path="/a", json={"/k": 1}), Match(path="/a", json={"/k": True})),
        (Match(path="/a", headers={"h": "1", "i": "1"}), Match(path="/a", headers={"h": "1"})),
    ],
)
def test_what_some_request_reaches_is_not(one: Match, other: Match) -> None:
    assert unreachable(one, other) == {}


def test_routes_that_share_the_methods_out_take_everything_together() -> None:
    get, put = Match(path="/a", methods=("GET",)), Match(path="/a", methods=("PUT",))
    assert unreachable(get, put, Match(path="/a", methods=("GET", "PUT"))) == {2: [0, 1]}
    assert unreachable(get, put, Match(path="/a", methods=("GET", "HEAD"))) == {}
    assert unreachable(get, put, Match(path="/a")) == {}


def test_many_routes_of_one_path_are_compared_quickly() -> None:
    tenants = [Match(path="/a", headers={"tenant": str(number)}) for number in range(5000)]
    assert unreachable(*tenants, tenants[7]) == {5000: [7]}
