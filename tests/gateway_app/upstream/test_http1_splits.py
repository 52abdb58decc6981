"""However the network cuts an answer into pieces, the same comes out: bytes in, answer out, no socket."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from gateway_app.problem import Cause
from gateway_app.upstream.http1 import HIGH_WATER_BYTES, Http1Connection
from gateway_app.upstream.transport import UpstreamError

OK = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TRAILERS = b"X-Sum: 1\r\nX-More: 2\r\n"
ANSWERS = {
    "a length": OK + b"Content-Length: 12\r\n\r\nhello, world",
    "a length of zero": OK + b"Content-Length: 0\r\n\r\n",
    "chunks": CHUNKED + b"5\r\nhello\r\n007;a=b\r\n, world\r\n0\r\n\r\n",
    "chunks and trailers": CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\n" + TRAILERS + b"\r\n",
    "the end of the connection": OK + b"\r\nhello, world",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    + OK
    + b"Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi",
    "surplus": OK + b"Content-Length: 5\r\n\r\nhello" + OK + b"Content-Length: 4\r\n\r\nnext",
    "surplus after chunks": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "a cut body": OK + b"Content-Length: 99\r\n\r\nhello",
    "a cut chunk": CHUNKED + b"5\r\nhello\r\n7\r\n, w",
    "a cut head": OK + b"Content-Len",
    "no answer": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a broken chunk": CHUNKED + b"5\r\nhello\r\nx\r\n",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
}


class Wire:
    """What a connection asks of its transport."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert data

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def abort(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str) -> None:
        """There is no TLS."""


class Kept:
    """Whether the pool gets the connection back."""

    def __init__(self) -> None:
        self.free = 0
        self.closed = 0

    def on_free(self, _: Http1Connection) -> None:
        self.free += 1

    def on_closed(self, _: Http1Connection) -> None:
        self.closed += 1


def begin(method: str = "GET") -> tuple[Http1Connection, Wire, Kept]:
    wire, kept = Wire(), Kept()
    loop = cast("asyncio.AbstractEventLoop", None)  # only waiting needs one, and nothing waits here
    connection = Http1Connection(loop, kept.on_free, kept.on_closed)
    connection.connection_made(cast("asyncio.Transport", wire))
    connection.start(b"GET / HTTP/1.1\r\n\r\n", method)
    return connection, wire, kept


def run(step: Any) -> Any:
    """Run a coroutine that has no reason to wait; gives what it returns, or the cause of its error."""
    try:
        step.send(None)
    except StopIteration as end:
        return end.value
    except UpstreamError as error:
        return error.cause
    raise AssertionError("it waits")


async def head_of(connection: Http1Connection) -> None:
    """Wait for the head, as the pool does."""
    while not connection.has_head:
        await connection.news()


def outcome(pieces: list[bytes], method: str) -> tuple[Any, ...]:
    """The answer that comes out of these pieces and then the end of the connection, and if it was kept."""
    connection, wire, kept = begin(method)
    for piece in pieces:
        if not wire.is_closed:
            connection.data_received(piece)
    body = connection.take()
    if not (connection.is_complete or wire.is_closed):
        connection.eof_received()
    head, end = run(head_of(connection)), run(connection.read())
    connection.close()
    assert kept.free + kept.closed == 1, "the pool gets it back, or hears that it is closed, once"
    if isinstance(end, Cause):
        # How much of a broken body came out before it broke depends on the pieces.
        body = b""
    status = connection.status if head is None else 0
    return head, status, connection.headers if status else [], body, end, kept.free


def cut(answer: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % len(answer) for place in places} - {0}), len(answer)]
    return [answer[start:end] for start, end in pairwise(bounds)]


@given(
    name=st.sampled_from(sorted(ANSWERS)),
    method=st.sampled_from(["GET", "HEAD"]),
    places=st.lists(st.integers(0, 400), max_size=12),
)
@example(name="chunks and trailers", method="GET", places=list(range(400)))
@example(name="interim answers", method="GET", places=list(range(400)))
@example(name="surplus", method="GET", places=list(range(400)))
def test_any_split_gives_the_same_answer(name: str, method: str, places: list[int]) -> None:
    answer = ANSWERS[name]
    assert outcome(cut(answer, places), method) == outcome([answer], method)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 4000), max_size=20))
def test_chunks_of_any_bytes_come_out_as_they_are(chunks: list[bytes], places: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head, status, _, got, end, free = outcome(cut(CHUNKED + body + b"0\r\n\r\n", places), "GET")

    assert (head, status, got, end, free) == (None, 200, b"".join(chunks), b"", 1)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=12))
def test_bytes_without_meaning_never_do_more_than_break_the_exchange(junk: bytes, places: list[int]) -> None:
    for answer in (b"H" + junk, b"HTTP/1.1 200 " + junk, OK + junk, CHUNKED + junk):
        connection, wire, kept = begin()
        for piece in cut(answer, places):
            if not wire.is_closed:
                connection.data_received(piece)
        connection.close()
        assert kept.free + kept.closed == 1


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=30), st.sampled_from(["length", "chunked"]))
def test_reading_stops_while_too_much_is_unread(sizes: list[int], framing: str) -> None:
    connection, wire, _ = begin()
    connection.data_received(OK + b"Content-Length: 10000000\r\n\r\n" if framing == "length" else CHUNKED)
    unread = 0
    for size in sizes:
        piece = bytes(size)
        connection.data_received(piece if framing == "length" else b"%x\r\n%b\r\n" % (size, piece))
        unread += size
        assert wire.is_paused is (unread > HIGH_WATER_BYTES)
        if wire.is_paused:
            assert len(connection.take()) == unread
            assert not wire.is_paused
            unread = 0
