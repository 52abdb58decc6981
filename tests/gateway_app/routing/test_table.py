"""The compiled table against the precedence written down once more, literally, as a scan over all routes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_app.routing.json_body import UNPARSABLE, UNREAD
from gateway_app.routing.match import NEEDS_BODY, Entry, Match, Matched, MatchError, Pending, problems_of
from gateway_app.routing.table import RouteTable


def table(**matches: Match) -> RouteTable[str]:
    return RouteTable([Entry(name, match, f"value of {name}") for name, match in matches.items()])


def scope(headers: Mapping[str, str] | None = None, query: str = "") -> dict[str, Any]:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"headers": fields, "query_string": query.encode()}


def name_of(answer: Matched[str] | Pending | None) -> str | None:
    assert not isinstance(answer, Pending)
    return answer.name if answer else None


def winner(
    routes: RouteTable[str], path: str, host: str = "", method: str = "GET", **request: Any
) -> str | None:
    return name_of(routes.match(method, host, path, scope(**request)))


def test_exact_path_then_longest_prefix_then_template_then_regex_then_any() -> None:
    routes = table(
        anything=Match(),
        regex=Match(path="~^/v1/x"),
        template=Match(path="/v1/{id}/z"),
        prefix=Match(path="/v1/x/*"),
        longer=Match(path="/v1/x/y/*"),
        exact=Match(path="/v1/x/y"),
    )
    assert winner(routes, "/v1/x/y") == "exact"
    assert winner(routes, "/v1/x/y/") == "longer"
    assert winner(routes, "/v1/x/z") == "prefix"
    assert winner(routes, "/v1/7/z") == "template"
    assert winner(routes, "/v1/xx") == "regex"
    assert winner(routes, "/v2") == "anything"
    assert winner(routes, "*", method="OPTIONS") == "anything"


def test_templates_are_compared_segment_by_segment_from_the_left() -> None:
    routes = table(
        tail=Match(path="/{a}/*"),
        right=Match(path="/{a}/b"),
        left=Match(path="/a/{b}"),
        left_tail=Match(path="/a/{b}/*"),
        both=Match(path="/{a}/{b}"),
    )
    assert winner(routes, "/a/b") == "left"
    assert winner(routes, "/a/b/c") == "left_tail"
    assert winner(routes, "/x/b") == "right"
    assert winner(routes, "/x/c") == "both"
    assert winner(routes, "/x") == "tail"
    answer = routes.match("GET", "", "/x/b%2Fc", scope())
    assert answer == Matched("both", "value of both", {"a": "x", "b": "b/c"})


def test_expressions_are_equals_whatever_they_begin_with() -> None:
    routes = table(
        short=Match(path="~^/a/"),
        long=Match(path="~^/a/b/[cd]"),
        loose=Match(path="~c$", headers={"h": "1"}),
        rest=Match(),
    )
    assert winner(routes, "/a/b/c") == "short"
    assert winner(routes, "/a/b/c", headers={"h": "1"}) == "loose"
    assert winner(routes, "/b/c") == "rest"


def test_an_empty_segment_is_never_captured() -> None:
    routes = table(template=Match(path="/a/{x}"), tail=Match(path="/b/{x}/*"), rest=Match())
    assert winner(routes, "/a/") == winner(routes, "/b/") == winner(routes, "/a") == "rest"
    assert winner(routes, "/b/1/") == "tail"


def test_exact_host_then_longest_wildcard_then_any_host() -> None:
    routes = table(
        anything=Match(),
        wild=Match(host="*.example.com"),
        wilder=Match(host="*.a.example.com"),
        exact=Match(host="x.a.example.com"),
    )
    assert winner(routes, "/", "x.a.example.com") == "exact"
    assert winner(routes, "/", "y.a.example.com") == "wilder"
    assert winner(routes, "/", "a.example.com") == "wild"
    assert winner(routes, "/", "b.c.example.com") == "wild"
    assert winner(routes, "/", "example.com") == "anything"
    assert winner(routes, "/", "") == "anything"
    assert winner(routes, "/", "[::1]") == "anything"


def test_then_method_then_headers_then_query_then_json_then_the_files_order() -> None:
    routes = table(
        first=Match(path="/a"),
        second=Match(path="/a"),
        json=Match(path="/a", json={"/k": 1}),
        query=Match(path="/a", query={"q": "1"}),
        header=Match(path="/a", headers={"h": "1"}),
        cookie=Match(path="/a", cookies={"c": "1"}),
        two=Match(path="/a", headers={"h": "1"}, cookies={"c": "1"}),
        method=Match(path="/a", methods=("POST",)),
    )
    order = [entry.name for entry in routes.in_precedence_order()]
    assert order == ["method", "two", "header", "cookie", "query", "json", "first", "second"]
    assert winner(routes, "/a", headers={"h": "1", "cookie": "c=1"}) == "two"
    assert winner(routes, "/a", headers={"h": "1"}, query="q=1") == "header"
    assert winner(routes, "/a", query="q=1") == "query"
    assert winner(routes, "/a", method="POST", headers={"h": "1", "cookie": "c=1"}) == "method"
    assert routes.match("GET", "", "/a", scope()) is NEEDS_BODY
    assert name_of(routes.match("GET", "", "/a", scope(), {"k": 1})) == "json"
    assert name_of(routes.match("GET", "", "/a", scope(), UNPARSABLE)) == "first"


def test_a_rule_that_fails_hands_on_to_less_specific_paths_and_hosts() -> None:
    routes = table(
        deep=Match(host="a.example", path="/x/y", methods=("GET",)),
        prefix=Match(host="a.example", path="/x/*", methods=("PUT",)),
        wild=Match(host="*.example", path="/x/*", methods=("POST",)),
        any_host=Match(path="/x/*", methods=("DELETE",)),
    )
    for method, name in {
        "GET": "deep",
        "PUT": "prefix",
        "POST": "wild",
        "DELETE": "any_host",
        "HEAD": None,
    }.items():
        assert winner(routes, "/x/y", "a.example", method) == name


def test_the_body_is_asked_for_only_where_it_decides() -> None:
    routes = table(
        gold=Match(path="/orders", methods=("POST",), json={"/tier": "gold"}),
        beta=Match(path="/orders", methods=("POST",), headers={"x-beta": "1"}),
        rest=Match(path="/orders"),
    )
    assert winner(routes, "/orders") == "rest"
    assert winner(routes, "/orders", method="POST", headers={"x-beta": "1"}) == "beta"
    assert routes.match("POST", "", "/orders", scope()) is NEEDS_BODY
    assert name_of(routes.match("POST", "", "/orders", scope(), {"tier": "gold"})) == "gold"
    assert name_of(routes.match("POST", "", "/orders", scope(), {"tier": True})) == "rest"


def test_everything_wrong_with_a_match_is_told_with_its_key() -> None:
    wrong = Match(
        host="a:1",
        path="x",
        methods=("get",),
        headers={"a b": "1", "c": "~("},
        query={"q": "~["},
        json={"x": 1},
    )
    keys = [problem.key for problem in problems_of(wrong)]
    assert keys == [
        ("host",),
        ("path",),
        ("methods",),
        ("headers", "a b"),
        ("headers", "c"),
        ("query", "q"),
        ("json", "x"),
    ]
    assert problems_of(Match()) == ()
    with pytest.raises(MatchError) as error:
        table(broken=wrong)
    assert error.value.__notes__ == ["in the match of route 'broken'"]


# ---------------------------------------------------------------- against a scan over all routes


def scan(
    entries: list[Entry[str]], method: str, host: str, path: str, request: dict[str, Any], body: object
) -> object:
    """What DESIGN.md says, word for word: the routes in order of precedence, the first that holds."""
    for _, entry in sorted(enumerate(entries), key=lambda item: precedence(item[1].match, item[0])):
        match = entry.match
        if not (host_holds(match.host, host) and path_holds(match.path, path)):
            continue
        if match.methods and method not in match.methods:
            continue
        if not pairs_hold(match, request):
            continue
        if match.json and body is UNREAD:
            return NEEDS_BODY
        if all(isinstance(body, dict) and body.get(key[1:]) == value for key, value in match.json.items()):
            return entry.name
    return None


def precedence(match: Match, position: int) -> tuple[object, ...]:
    host, path = match.host or "*", match.path or "/*"
    host_rank = (2, 0) if host == "*" else (1, -len(host)) if host.startswith("*.") else (0, 0)
    if path == "/*":
        path_rank: tuple[int, int | str] = (4, 0)
    elif path.startswith("~"):
        path_rank = (3, 0)
    elif "{" in path:
        segments = path.split("/")[1:]
        path_rank = (2, "".join("2" if s == "*" else "1" if s.startswith("{") else "0" for s in segments))
    else:
        path_rank = (1, -path.count("/")) if path.endswith("/*") else (0, 0)
    headers = len(match.headers) + len(match.cookies)
    return (host_rank, path_rank, not match.methods, -headers, -len(match.query), -len(match.json), position)


def host_holds(pattern: str | None, host: str) -> bool:
    if pattern is None:
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def path_holds(pattern: str | None, path: str) -> bool:
    if pattern is None or pattern == "/*":
        return True
    if pattern.startswith("~"):
        return path != "*" and re.search(pattern[1:], path) is not None
    expression = re.sub(r"\{\w+\}", "[^/]+", pattern)
    if expression.endswith("/*"):
        expression = expression[:-2] + "(/.*)?"
    return re.fullmatch(expression, path) is not None


def pairs_hold(match: Match, request: dict[str, Any]) -> bool:
    fields = {name.decode(): value.decode() for name, value in request["headers"]}
    query = dict(pair.split("=") for pair in request["query_string"].decode().split("&") if pair)
    cookies = {"c": fields["cookie"][2:]} if "cookie" in fields else {}
    return all(
        name in given and (wanted == "*" or given[name] == wanted)
        for conditions, given in ((match.headers, fields), (match.query, query), (match.cookies, cookies))
        for name, wanted in conditions.items()
    )


HOSTS = ["", "a.com", "b.a.com", "c.b.a.com", "x.org"]
HOST_PATTERNS = [None, None, "a.com", "b.a.com", "*.a.com", "*.b.a.com", "*.com"]
SEGMENTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(SEGMENTS, max_size=4).map(lambda found: "/" + "/".join(found)) | st.sampled_from(
    ["/a/", "*"]
)
REGEXES = ["~^/a/", "~b$", "~^/a/b/|^/c", "~^/a/b/[ab]", "~^/(a|b)/c", "~^/b/c/?"]


@st.composite
def path_patterns(draw: st.DrawFn) -> str | None:
    segments = draw(st.lists(st.sampled_from(["a", "b", "c", "{}"]), max_size=4))
    named = [f"{{p{at}}}" if segment == "{}" else segment for at, segment in enumerate(segments)]
    path = "/" + "/".join(named)
    shaped = path if draw(st.booleans()) else f"{path.rstrip('/')}/*"
    return draw(st.just(shaped) | st.just(shaped) | st.none() | st.sampled_from(REGEXES))


def some(names: str) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(names), st.sampled_from(["1", "2", "*"]), max_size=2) | st.just({})


MATCHES = st.builds(
    Match,
    host=st.sampled_from(HOST_PATTERNS),
    path=path_patterns(),
    methods=st.sampled_from([(), (), ("GET",), ("POST",), ("GET", "POST")]),
    headers=some("hi"),
    cookies=st.sampled_from([{}, {}, {}, {"c": "1"}, {"c": "*"}]),
    query=some("qr"),
    json=st.sampled_from([{}, {}, {}, {"/k": 1}, {"/k": 1, "/l": 2}]),
)
TABLES = st.lists(MATCHES, max_size=14).map(
    lambda matches: [Entry(f"r{at}", match, "") for at, match in enumerate(matches)]
)
FIELDS = st.dictionaries(st.sampled_from(["h", "i", "cookie"]), st.sampled_from(["1", "2"]))
REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(HOSTS),
    PATHS,
    st.builds(
        lambda fields, query: scope(
            {name: f"c={value}" if name == "cookie" else value for name, value in fields.items()},
            "&".join(f"{name}={value}" for name, value in query.items()),
        ),
        FIELDS,
        st.dictionaries(st.sampled_from(["q", "r"]), st.sampled_from(["1", "2"])),
    ),
    st.sampled_from([UNREAD, UNPARSABLE, {"k": 1}, {"k": 1, "l": 2}, {"k": 2}]),
)


@settings(max_examples=150, deadline=None)
@given(TABLES, st.lists(REQUESTS, min_size=1, max_size=8))
def test_the_table_finds_what_a_scan_over_all_routes_finds(
    entries: list[Entry[str]], requests: list[tuple[str, str, str, dict[str, Any], object]]
) -> None:
    routes = RouteTable(entries)
    never = {unreachable.entry.name for unreachable in routes.unreachable()}
    for method, host, path, request, body in requests:
        expected = scan(entries, method, host, path, request, body)
        found = routes.match(method, host, path, request, body)
        assert (found.name if isinstance(found, Matched) else found) == expected
        assert expected not in never
        if expected is not NEEDS_BODY:
            assert routes.explain(method, host, path, request, body).matched == found


# ---------------------------------------------------------------- what a match costs


def lines_run(work: Callable[[], object]) -> int:
    """Count the lines of Python that `work` runs: its cost, without the machine's noise."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


SHAPES: dict[str, Callable[[int], Match]] = {
    "exact": lambda n: Match(path=f"/s{n}/x"),
    "prefix": lambda n: Match(path=f"/s{n}/*"),
    "host": lambda n: Match(host=f"s{n}.example.com", path="/s0/*"),
    "wildcard": lambda n: Match(host=f"*.s{n}.example.com", path="/s0/*"),
    "template": lambda n: Match(path=f"/s{n}/{{id}}", methods=("GET",)),
    "regex": lambda n: Match(path=f"~^/s{n}/[a-z]"),
    "conditions": lambda n: Match(path=f"/s{n}/*", methods=("GET",), headers={"h": "1"}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_thousands_of_routes_cost_what_ten_cost(shape: str) -> None:
    def cost(size: int) -> Iterator[int]:
        routes = RouteTable([Entry(f"r{n}", SHAPES[shape](n), "") for n in range(size)])
        host = {"host": "s0.example.com", "wildcard": "a.s0.example.com"}.get(shape, "a.example")
        for path in ("/s0/x", "/nowhere/at/all"):
            yield lines_run(lambda path=path: routes.match("GET", host, path, scope({"h": "1"})))  # type: ignore[misc]

    few, many = list(cost(10)), list(cost(10_000 if shape in ("exact", "prefix") else 2_000))
    assert many[0] <= 2 * few[0]
    assert many[1] <= 2 * few[1]


def test_a_long_path_or_host_costs_no_more_than_the_table_asks_for() -> None:
    routes = RouteTable(
        [Entry(name, SHAPES[name](0), "") for name in ("prefix", "wildcard", "template", "regex")]
    )
    path, host = "/a" * 4000, "a." * 120 + "com"
    usual = lines_run(lambda: routes.match("GET", "a.b.s9.example.com", "/a/a/a", scope()))
    assert lines_run(lambda: routes.match("GET", host, path, scope())) <= 2 * usual
