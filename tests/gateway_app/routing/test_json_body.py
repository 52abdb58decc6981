"""JSON conditions, and the look ahead that takes nothing away."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive

from gateway_app.routing.json_body import (
    LOOK_AHEAD_BYTES,
    UNPARSABLE,
    UNREAD,
    Scalar,
    look_ahead,
    parse_body,
    parse_json_condition,
)

DOCUMENT = {"a": {"b": [1, "two", True, None, 1.5]}, "x/y": 1, "m~n": 2, "": 3, "7": 4}


@pytest.mark.parametrize(
    ("pointer", "expected", "holds"),
    [
        ("/a/b/0", 1, True),
        ("/a/b/0", 1.0, True),
        ("/a/b/0", True, False),
        ("/a/b/0", "1", False),
        ("/a/b/1", "two", True),
        ("/a/b/2", True, True),
        ("/a/b/2", 1, False),
        ("/a/b/3", None, True),
        ("/a/b/3", False, False),
        ("/a/b/4", 1.5, True),
        ("/a/b/5", None, False),
        ("/a/b/00", 1, False),
        ("/a/b/-", 1, False),
        ("/a/b/-1", 1.5, False),
        ("/a/b", 1, False),
        ("/a/b/0/x", 1, False),
        ("/x~1y", 1, True),
        ("/m~0n", 2, True),
        ("/", 3, True),
        ("/7", 4, True),
        ("/absent", None, False),
    ],
)
def test_a_pointer_leads_to_a_scalar(pointer: str, expected: Scalar, holds: bool) -> None:
    assert parse_json_condition(pointer, expected).holds(DOCUMENT) is holds


def test_the_empty_pointer_is_the_whole_document() -> None:
    assert parse_json_condition("", "x").holds("x")
    assert not parse_json_condition("", None).holds(UNPARSABLE)
    assert not parse_json_condition("", None).holds(UNREAD)


@pytest.mark.parametrize("pointer", ["a", "#/a", "/a~2", "/~"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="no JSON pointer"):
        parse_json_condition(pointer, 1)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"1 2", b"[" * 60_000, b"1" * 5000, "1".encode("utf-16")],
)
def test_what_is_no_json_is_unparsable(body: bytes) -> None:
    assert parse_body(body) is UNPARSABLE


def test_a_byte_order_mark_may_be_ignored() -> None:
    assert parse_body(b"\xef\xbb\xbf[1]") == [1]


class Client:
    """A `receive` that gives messages, and tells how many were taken."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)
        self.taken = 0

    async def __call__(self) -> Message:
        self.taken += 1
        return self.messages[self.taken - 1]


def body_of(pieces: Sequence[bytes]) -> list[Message]:
    last = len(pieces) - 1
    return [
        {"type": "http.request", "body": piece, "more_body": at < last} for at, piece in enumerate(pieces)
    ]


async def drain(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), max_size=8), st.integers(0, 40))
async def test_any_split_gives_the_same_value_and_the_same_body(cuts: list[int], limit: int) -> None:
    whole = json.dumps({"tier": "gold", "n": [1, 2]}).encode()
    pieces, rest = [], whole
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    client = Client(body_of([*pieces, rest]))
    parsed, receive = await look_ahead(client, limit)
    assert parsed is UNPARSABLE if limit < len(whole) else parsed == json.loads(whole)
    assert await drain(receive) == whole
    assert client.taken == len(client.messages)


async def test_no_more_is_read_ahead_than_the_limit_needs() -> None:
    client = Client(body_of([b"x" * 1000] * 100))
    parsed, receive = await look_ahead(client)
    assert parsed is UNPARSABLE
    assert client.taken == LOOK_AHEAD_BYTES // 1000 + 1
    assert await drain(receive) == b"x" * 100_000


async def test_a_flood_of_small_pieces_is_joined() -> None:
    pieces = [b"[", *[b"1,"] * 5000, b"1]", b""]
    client = Client(body_of(pieces))
    parsed, receive = await look_ahead(client)
    assert parsed == [1] * 5001
    assert (await receive())["body"] == b"".join(pieces)


async def test_a_disconnect_follows_what_had_come() -> None:
    client = Client(
        [{"type": "http.request", "body": b'{"a"', "more_body": True}, {"type": "http.disconnect"}]
    )
    parsed, receive = await look_ahead(client)
    assert parsed is UNPARSABLE
    assert await receive() == {"type": "http.request", "body": b'{"a"', "more_body": True}
    assert await receive() == {"type": "http.disconnect"}


async def test_what_comes_after_the_body_passes() -> None:
    client = Client([*body_of([b"1"]), {"type": "http.disconnect"}])
    parsed, receive = await look_ahead(client)
    assert parsed == 1
    assert (await receive())["body"] == b"1"
    assert (await receive())["type"] == "http.disconnect"
