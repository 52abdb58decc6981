"""Why a route lost, in words."""

from __future__ import annotations

from typing import Any

from gateway_app.routing.explain import MAX_OTHERS
from gateway_app.routing.json_body import UNPARSABLE, UNREAD
from gateway_app.routing.match import Entry, Match
from gateway_app.routing.table import RouteTable

SCOPE: dict[str, Any] = {"headers": [(b"x-beta", b"2"), (b"cookie", b"plan=free")], "query_string": b"v=1"}


def explain(body: object, path: str = "/api/users", **matches: Match) -> dict[str, list[str]]:
    entries = [Entry(name, match, None) for name, match in matches.items()]
    explanation = RouteTable(entries).explain("GET", "a.example", path, SCOPE, body)
    return {lost.entry.name: [reason.text for reason in lost.reasons] for lost in explanation.lost}


def test_every_condition_that_failed_is_told() -> None:
    beta = Match(
        path="/api/*",
        methods=("POST", "PUT"),
        headers={"x-beta": "1", "x-none": "~^a"},
        cookies={"plan": "pro"},
        query={"v": "2", "w": "*"},
        json={"/tier": "gold"},
    )
    assert explain({"tier": "tin"}, beta=beta, rest=Match()) == {
        "beta": [
            "the method is GET, the route is for POST, PUT",
            "header x-beta must be '1', and the request has '2'",
            "header x-none must be a match of '^a', and the request has none",
            "cookie plan must be 'pro', and the request has 'free'",
            "query v must be '2', and the request has '1'",
            "query w must be any value, and the request has none",
            "json '/tier' must be \"gold\", and the body has another value or none there",
        ]
    }


def test_a_body_that_was_not_there_is_told() -> None:
    route = Match(path="/api/*", json={"/a": True})
    assert explain(UNREAD, r=route) == {"r": ["json '/a' must be true, and no body was looked at"]}
    assert explain(UNPARSABLE, r=route) == {
        "r": ["json '/a' must be true, and the body is no JSON of at most 64 KiB"]
    }


def test_only_nearer_routes_are_told() -> None:
    lost = explain(
        UNREAD,
        other_host=Match(host="b.example", path="/api/*"),
        other_host_and_method=Match(host="b.example", path="/api/*", methods=("PUT",)),
        slash=Match(path="/api/users/"),
        case=Match(path="/Api/Users"),
        unrelated=Match(path="/shop"),
        winner=Match(path="/api/users"),
        farther=Match(path="/api/*", methods=("PUT",)),
    )
    assert lost == {
        "other_host": ["the host is 'a.example', the route is for 'b.example'"],
        "slash": ["the path is '/api/users', the route is for '/api/users/' (the closing slash counts)"],
        "case": ["the path is '/api/users', the route is for '/Api/Users' (upper and lower case differ)"],
    }


def test_a_flood_of_similar_routes_is_cut_but_counted() -> None:
    entries = [Entry(f"r{n}", Match(path=f"/api/{n}"), None) for n in range(40)]
    entries.append(Entry("put", Match(path="/api/*", methods=("PUT",)), None))
    explanation = RouteTable(entries).explain("GET", "", "/api/none", SCOPE)
    assert explanation.matched is None
    assert len(explanation.lost) == MAX_OTHERS + 1
    assert explanation.lost[-1].entry.name == "put"
    assert explanation.omitted == 40 - MAX_OTHERS
