"""One exchange with an endpoint that speaks as a script says: framing, early answers, pace, cut answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from gateway_app.config.backends import OutlierConfig
from gateway_app.problem import Cause

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = OK + b"Content-Length: 4\r\n\r\nnext"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PIECE = bytes(range(256)) * 256

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Eventually = Callable[[Callable[[], bool]], Any]


def answering(*pieces: bytes, then_close: bool = False) -> Callable[[Reader, Writer], Any]:
    """An endpoint that gives these pieces to a connection's first request, `NEXT` to the others."""

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if then_close:
            return
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(NEXT)

    return speak


# ---------------------------------------------------------------- framing of the answer

FRAMED = {
    "a length": ("GET", [OK + b"Content-Length: 6\r\n\r\nabcdef"], 200, b"abcdef"),
    "a length, body apart": ("GET", [OK + b"Content-Length: 6\r\n\r\n", b"abc", b"def"], 200, b"abcdef"),
    "a length of zero": ("GET", [OK + b"Content-Length: 0\r\n\r\n"], 200, b""),
    "chunks": ("GET", [CHUNKED + b"3\r\nabc\r\n", b"3\r\nd", b"ef\r\n0\r\n\r\n"], 200, b"abcdef"),
    "chunks with extensions": ("GET", [CHUNKED + b'6;a=b;c="d"\r\nabcdef\r\n0\r\n\r\n'], 200, b"abcdef"),
    "no chunk": ("GET", [CHUNKED + b"0\r\n\r\n"], 200, b""),
    "HEAD with a length": ("HEAD", [OK + b"Content-Length: 6\r\n\r\n"], 200, b""),
    "HEAD with chunks": ("HEAD", [CHUNKED], 200, b""),
    "204": ("GET", [b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
    "304": ("GET", [b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"], 304, b""),
    "304 with a length": ("GET", [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"], 304, b""),
    "205 without a body": ("GET", [b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"], 205, b""),
    "no reason": ("GET", [b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi"], 200, b"hi"),
    "an unknown status": ("GET", [b"HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nhi"], 799, b"hi"),
    "early hints before": ("GET", [HINTS, OK + b"Content-Length: 2\r\n\r\nhi"], 200, b"hi"),
    "several interim answers at once": ("GET", [CONTINUE + HINTS * 3 + CHUNKED + b"0\r\n\r\n"], 200, b""),
    "HTTP/1.0 kept alive": (
        "GET",
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"],
        200,
        b"hi",
    ),
}


@pytest.mark.parametrize(("method", "answer", "status", "body"), FRAMED.values(), ids=FRAMED)
async def test_a_framed_answer_leaves_the_connection_to_the_next(
    method: str, answer: list[bytes], status: int, body: bytes, line: Any
) -> None:
    async with asyncio.timeout(5), line(answering(*answer)) as made:
        first = await made.ask(method)
        second = await made.ask()

    assert (first.cause, first.status, first.body, first.is_whole) == (None, status, body, True)
    assert second.body == b"next"
    assert made.connections == 1
    assert not any(name == b"link" for name, _ in first.headers), "an interim answer's fields are its own"


UNFRAMED = {
    "no framing": [OK + b"\r\nabc", b"def"],
    "no framing and no body yet": [OK + b"\r\n", b"abcdef"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"],
    "Connection: close": [OK + b"Connection: close\r\nContent-Length: 6\r\n\r\nabcdef"],
    "Connection: close and chunks": [
        OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n"
    ],
    "Connection: close without framing": [OK + b"Connection: x, Close\r\nX: y\r\n\r\nabcdef"],
}


@pytest.mark.parametrize("answer", UNFRAMED.values(), ids=UNFRAMED)
async def test_an_answer_that_ends_the_connection(answer: list[bytes], line: Any) -> None:
    async with asyncio.timeout(5), line(answering(*answer, then_close=True)) as made:
        first = await made.ask()
        await made.ask()

    assert (first.cause, first.body, first.is_whole) == (None, b"abcdef", True)
    assert made.connections == 2
    assert first.headers in ([], [(b"content-length", b"6")])


async def test_the_length_stays_in_answers_without_a_body(line: Any) -> None:
    async with asyncio.timeout(5), line(answering(OK + b"Content-Length: 6\r\n\r\n")) as made:
        assert (b"content-length", b"6") in (await made.ask("HEAD")).headers
    unmodified = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"
    async with asyncio.timeout(5), line(answering(unmodified)) as made:
        assert (b"content-length", b"6") in (await made.ask()).headers


# ---------------------------------------------------------------- pace


@pytest.mark.parametrize("framing", [b"Content-Length: 50331648", b"X: y"], ids=["length", "close"])
async def test_a_slow_client_sets_the_pace_of_a_download(framing: bytes, line: Any) -> None:
    size = 48 << 20
    written = 0

    async def speak(reader: Reader, writer: Writer) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + framing + b"\r\n\r\n")
        while written < size:
            writer.write(PIECE)
            written += len(PIECE)
            await writer.drain()

    taken = 0
    resumed = asyncio.Event()

    async def on_send(message: Message) -> None:
        nonlocal taken
        if message["type"] == "http.response.start":
            await resumed.wait()
        elif message["body"]:
            assert len(message["body"]) < 1 << 20
            taken += len(message["body"])
            message["body"] = b""

    async with asyncio.timeout(20), line(speak) as made:
        asking = asyncio.create_task(made.ask(on_send=on_send))
        seen = 0
        while not seen or seen != written:
            seen = written
            await asyncio.sleep(0.1)
        assert written < size / 2, "the rest waits at the endpoint"
        resumed.set()
        assert (await asking).is_whole
    assert taken == size


# ---------------------------------------------------------------- the answer cut short, the client gone


async def test_an_answer_cut_in_the_middle_is_never_ended_as_if_whole(line: Any) -> None:
    async with (
        asyncio.timeout(5),
        line(answering(OK + b"Content-Length: 9\r\n\r\nabc", then_close=True)) as made,
    ):
        first = await made.ask()

        assert (first.cause, first.status, first.body) == (Cause.ANSWER_INCOMPLETE, 200, b"abc")
        assert not first.is_whole
        assert made.pool["open"] == made.flights == 0


async def test_a_reset_is_no_end_of_an_unframed_answer(line: Any) -> None:
    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\nabc")
        await delivered.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    delivered = asyncio.Event()

    async def on_send(message: Message) -> None:
        if message.get("body"):
            delivered.set()

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask(on_send=on_send)

    assert (first.cause, first.body, first.is_whole) == (Cause.ANSWER_INCOMPLETE, b"abc", False)


async def test_answers_cut_one_after_the_other_eject_the_endpoint(line: Any) -> None:
    """Their heads are sound: what counts is how they end."""
    cut = OK + b"Content-Length: 9\r\n\r\nabc"
    outlier = OutlierConfig(consecutive_failures=3)

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(cut)

    async with asyncio.timeout(5), line(speak, outlier=outlier) as made:
        endpoint = made.backend.endpoints[0]
        for count in (1, 2, 3):
            assert (await made.ask()).cause is Cause.ANSWER_INCOMPLETE
            assert endpoint.failures_in_row == count
        cut += b"defghi"
        assert (await made.ask()).is_whole
        assert endpoint.failures_in_row == 0


async def test_a_stream_that_its_client_leaves_was_no_failure_of_the_endpoint(line: Any) -> None:
    """Streams of events end in no other way, so failures that are days apart would be in a row."""
    leave = asyncio.Event()
    body: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"1\r\na\r\n")
        await reader.read()

    async def receive() -> Message:
        if body:
            return body.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def take(message: Message) -> None:
        if message.get("body"):
            leave.set()

    async with asyncio.timeout(5), line(speak) as made:
        endpoint = made.backend.endpoints[0]
        endpoint.failures_in_row = 4
        answer = await made.ask(receive=receive, on_send=take)
        assert (answer.cause, answer.body) == (Cause.CLIENT_CLOSED, b"a")
        assert endpoint.failures_in_row == 0


async def test_an_endpoint_that_falls_silent_within_its_answer(line: Any) -> None:
    stalled = OK + b"Content-Length: 9\r\n\r\nabc"
    async with asyncio.timeout(5), line(answering(stalled), timeout={"idle": 0.2}) as made:
        first = await made.ask()

        assert (first.cause, first.body, first.is_whole) == (Cause.IDLE_TIMEOUT, b"abc", False)
        assert made.backend.endpoints[0].failures == 1
        assert made.pool["open"] == made.flights == 0


async def test_an_endpoint_that_never_answers(line: Any) -> None:
    async with asyncio.timeout(5), line(answering(b""), timeout={"response": 0.2}) as made:
        first = await made.ask()

        assert (first.cause, first.status) == (Cause.RESPONSE_TIMEOUT, 0)
        assert made.pool["open"] == made.flights == 0


async def test_the_total_timeout_ends_an_answer_that_never_pauses(line: Any) -> None:
    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5), line(speak, timeout={"total": 1.0}) as made:
        first = await made.ask()

        assert (first.cause, first.status, first.is_whole) == (Cause.TOTAL_TIMEOUT, 200, False)
        assert made.pool["open"] == made.flights == 0


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"1\r\na\r\n"], ids=["before the head", "in the body"])
async def test_a_client_that_leaves_ends_the_exchange(
    answer: bytes, line: Any, eventually: Eventually
) -> None:
    asked = asyncio.Event()

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        asked.set()
        await reader.read()

    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(5), line(speak) as made:
        assert (await made.ask(receive=receive)).cause is Cause.CLIENT_CLOSED
        assert made.pool["open"] == made.flights == 0
        await eventually(lambda: made.open_at_endpoint == 0)


async def test_a_client_that_takes_nothing_is_ended(line: Any) -> None:
    async def on_send(message: Message) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    async with (
        asyncio.timeout(5),
        line(answering(CHUNKED + b"3\r\nabc\r\n"), timeout={"idle": 0.2}) as made,
    ):
        first = await made.ask(on_send=on_send)

        assert (first.cause, first.is_whole) == (Cause.CLIENT_STALLED, False)
        assert made.backend.endpoints[0].failures == 0
        assert made.pool["open"] == made.flights == 0


async def test_a_client_has_its_own_time_for_an_answer_that_came_late(line: Any) -> None:
    """What the endpoint has used up of its timeouts is not taken from the client."""

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.2)
        writer.write(CHUNKED + b"1\r\na\r\n")
        await writer.drain()
        await asyncio.sleep(1.2)
        writer.write(b"1\r\nb\r\n0\r\n\r\n")
        await reader.read()

    async def slowly(message: Message) -> None:
        if message["type"] == "http.response.start" or message["body"] == b"b":
            await asyncio.sleep(1.2)

    async with asyncio.timeout(20), line(speak, timeout={"response": 2.0, "idle": 2.0}) as made:
        first = await made.ask(on_send=slowly)

    assert (first.cause, first.body, first.is_whole) == (None, b"ab", True)
