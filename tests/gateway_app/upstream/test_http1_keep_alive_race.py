"""A reused connection that dies before the answer's first byte: what is sent again, and how often."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from gateway_app.problem import Cause

OK = b"HTTP/1.1 200 OK\r\n"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def reset(writer: Writer) -> None:
    """Close with RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Races:
    """Serves a connection's first request; ends the connection when the second has arrived."""

    def __init__(self, *, partly: bytes = b"", ends: Callable[[Writer], None] = Writer.close) -> None:
        self.served = 0
        self.asked: list[bytes] = []
        self.refuses_first = False
        self._partly = partly
        self._ends = ends

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        for is_first in (not self.refuses_first, False):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(3) if b"content-length: 3" in head.lower() else b""
            self.asked.append(head[: head.index(b" ")] + body)
            if not is_first:
                writer.write(self._partly)
                self._ends(writer)
                return
            writer.write(OK + b"Content-Length: 2\r\n\r\n")
            if not head.startswith(b"HEAD "):
                writer.write(b"ok")


@pytest.mark.parametrize("ends", [reset, Writer.close], ids=["RST", "FIN"])
@pytest.mark.parametrize(("method", "body"), [("GET", []), ("HEAD", []), ("PUT", [b"abc"]), ("DELETE", [])])
async def test_a_repeatable_request_is_sent_again_on_a_fresh_connection(
    method: str, body: list[bytes], ends: Callable[[Writer], None], line: Any
) -> None:
    endpoint = Races(ends=ends)
    async with asyncio.timeout(5), line(endpoint) as made:
        await made.ask()
        again = await made.ask(method, body=body, length=len(b"".join(body)) if body else None)

        assert (again.cause, again.status) == (None, 200)
        request = method.encode() + b"".join(body)
        assert endpoint.asked == [b"GET", request, request]
        assert made.connections == 2
        assert made.pool["open"] == made.pool["idle"] == 1
        assert made.backend.endpoints[0].failures == 0


async def test_a_body_that_the_client_still_has_is_asked_for_on_the_fresh_connection(line: Any) -> None:
    """With Expect: 100-continue nothing of it has been read when the connection dies."""
    is_first = True

    async def speak(reader: Reader, writer: Writer) -> None:
        nonlocal is_first
        await reader.readuntil(b"\r\n\r\n")
        if is_first:
            is_first = False
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")
            await reader.readuntil(b"\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(3)
        writer.write(OK + b"Content-Length: 3\r\n\r\n" + body)
        await reader.read()

    async with asyncio.timeout(5), line(speak) as made:
        await made.ask()
        again = await made.ask("PUT", body=[b"abc"], length=3, expect=True)

        assert (again.cause, again.body, made.connections) == (None, b"abc", 2)


async def test_a_request_that_cannot_be_repeated_is_not(line: Any) -> None:
    for method, body, sent in (
        ("POST", [], b"POST"),
        ("POST", [b"abc"], b"POSTabc"),
        ("PUT", [b"ab", b"c"], b"PUTabc"),  # its body came in pieces, which are gone
    ):
        endpoint = Races()
        async with asyncio.timeout(5), line(endpoint) as made:
            await made.ask()
            again = await made.ask(method, body=body, length=3 if body else None)

            assert (again.cause, again.status) == (Cause.CONNECTION_RESET, 0)
            assert endpoint.asked == [b"GET", sent]
            assert made.pool["open"] == 0


async def test_it_is_sent_again_only_once(line: Any) -> None:
    endpoint = Races()
    async with asyncio.timeout(5), line(endpoint) as made:
        await made.ask()
        endpoint.refuses_first = True
        again = await made.ask()

        assert again.cause is Cause.CONNECTION_RESET
        assert endpoint.asked == [b"GET"] * 3
        assert made.pool["open"] == 0


async def test_a_fresh_connection_that_dies_is_no_race(line: Any) -> None:
    endpoint = Races()
    endpoint.refuses_first = True
    async with asyncio.timeout(5), line(endpoint) as made:
        assert (await made.ask()).cause is Cause.CONNECTION_RESET
        assert endpoint.asked == [b"GET"]


async def test_an_answer_that_has_begun_is_not_asked_for_again(line: Any) -> None:
    endpoint = Races(partly=b"H")
    async with asyncio.timeout(5), line(endpoint) as made:
        await made.ask()
        assert (await made.ask()).cause is Cause.ANSWER_INCOMPLETE
        assert endpoint.asked == [b"GET", b"GET"]
