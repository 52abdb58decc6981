"""Conditions on header fields, cookies and query parameters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_app.routing.conditions import Request, Source, parse_condition, parse_cookies

FIELDS = [
    (b"x-beta", b"1"),
    (b"x-beta", b" two "),
    (b"cookie", b'plan=pro; q="quoted"; plan=free; bare'),
    (b"cookie", b"crumb=1"),
    (b"x-name", "café".encode()),
]


def request(query: bytes = b"") -> Request:
    names = frozenset(name for name, _ in FIELDS)
    return Request("GET", "/", {"headers": FIELDS, "query_string": query}, None, names)


@pytest.mark.parametrize(
    ("source", "name", "value", "holds"),
    [
        ("header", "X-Beta", "1", True),
        ("header", "x-beta", "two", True),
        ("header", "x-beta", "3", False),
        ("header", "x-beta", "1, two", False),
        ("header", "x-beta", "~^t", True),
        ("header", "x-beta", "~^w", False),
        ("header", "x-beta", "*", True),
        ("header", "x-none", "*", False),
        ("header", "x-name", "café", True),
        ("cookie", "plan", "pro", True),
        ("cookie", "plan", "free", True),
        ("cookie", "Plan", "pro", False),
        ("cookie", "q", "quoted", True),
        ("cookie", "crumb", "~^[0-9]$", True),
        ("cookie", "", "bare", True),
        ("query", "v", "2", True),
        ("query", "v", "3", True),
        ("query", "a b", "c&d", True),
        ("query", "empty", "", True),
        ("query", "empty", "*", True),
        ("query", "absent", "*", False),
    ],
)
def test_a_condition_holds_if_any_value_does(source: Source, name: str, value: str, holds: bool) -> None:
    asked = request(b"v=2&v=3&%61+b=c%26d&empty=")
    assert parse_condition(source, name, value).holds(asked) is holds


def test_wrong_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="no header field name"):
        parse_condition("header", "x beta", "1")
    with pytest.raises(ValueError, match="no regular expression"):
        parse_condition("query", "v", "~[")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_cookie_field_can_be_parsed(field: str) -> None:
    assert len(parse_cookies(field)) == field.count(";") + 1


VALUES = st.sampled_from(["1", "12", "~^1", "~2$", "*"])


@settings(deadline=None)
@given(VALUES, VALUES, st.sampled_from([b"1", b"12", b"2", b"3", b""]))
def test_an_implied_condition_always_holds_too(one: str, other: str, value: bytes) -> None:
    first, second = parse_condition("header", "x", one), parse_condition("header", "x", other)
    asked = Request("GET", "/", {"headers": [(b"x", value)], "query_string": b""}, None, frozenset([b"x"]))
    if first.implies(second) and first.holds(asked):
        assert second.holds(asked)
