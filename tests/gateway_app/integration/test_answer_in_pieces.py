"""An answer whose head comes long before its body, and one that is cut, as client and log see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

CONFIG = """
[gateway]
listen = ["127.0.0.1:PORT"]
[admin]
listen = "127.0.0.1:ADMIN_PORT"
[backends.all]
endpoints = ["http://127.0.0.1:ENDPOINT"]
[[routes]]
name = "all"
backend = "all"
"""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FRAMINGS = {
    "length": b"Content-Length: 2\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
    "end": b"Connection: close\r\n\r\n",
}


class Endpoint:
    """Answers with `answer`, and goes on when it is told to."""

    def __init__(self) -> None:
        self.answer = b""
        self.goes_on = asyncio.Event()
        self.rest = b""
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        await self.goes_on.wait()
        writer.write(self.rest)
        writer.close()

    def close(self) -> None:
        self.goes_on.set()
        if self._server is not None:
            self._server.close()


Serve = Callable[[], Awaitable[tuple[Any, Endpoint]]]


@pytest.fixture(params=["hypercorn", "granian"])
async def serve(request: pytest.FixtureRequest, serve_gateway: Any) -> AsyncIterator[Serve]:
    endpoint = Endpoint()

    async def start() -> tuple[Any, Endpoint]:
        port = await endpoint.start()
        config = CONFIG.replace("ENDPOINT", str(port))
        return await asyncio.to_thread(serve_gateway, config, server=request.param), endpoint

    yield start
    endpoint.close()


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
async def test_a_head_does_not_wait_for_the_body(serve: Serve, framing: bytes) -> None:
    """Event streams begin so; their clients wait for the head before anything else."""
    gateway, endpoint = await serve()
    endpoint.answer = b"HTTP/1.1 200 OK\r\n" + framing
    endpoint.rest = b"2\r\nok\r\n0\r\n\r\n" if b"chunked" in framing else b"ok"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(10):
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        endpoint.goes_on.set()
        await reader.readuntil(b"ok")
    writer.close()


@pytest.mark.parametrize("body", [b"", b"1\r\no\r\n"], ids=["nothing", "a piece"])
async def test_a_cut_answer_is_cut_and_the_log_has_one_line_for_it(serve: Serve, body: bytes) -> None:
    gateway, endpoint = await serve()
    endpoint.answer = b"HTTP/1.1 200 OK\r\n" + FRAMINGS["chunked"] + body
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(10):
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        endpoint.goes_on.set()
        rest = await reader.read()
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert not rest.endswith(b"0\r\n\r\n")
    await asyncio.to_thread(gateway.stop)
    (line,) = gateway.access_log()
    assert (line["status"], line["error"]) == (200, "answer_incomplete")
    assert "Traceback" not in gateway.log.read_text()


async def test_a_client_that_leaves_an_answer_is_one_line_in_the_log(serve: Serve) -> None:
    gateway, endpoint = await serve()
    endpoint.answer = b"HTTP/1.1 200 OK\r\n" + FRAMINGS["chunked"] + b"1\r\no\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    async with asyncio.timeout(10):
        while not gateway.access_log():  # noqa: ASYNC110  # it is another process's
            await asyncio.sleep(0.02)
    await asyncio.to_thread(gateway.stop)
    (line,) = gateway.access_log()
    assert (line["status"], line["error"]) == (200, "client_closed")
    assert "Traceback" not in gateway.log.read_text()
