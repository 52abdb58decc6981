"""`GET /metrics` (Prometheus) and `GET /status` (JSON) on a loopback address; nothing can be changed here."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from typing import Final

from l4relay.addresses import Address, UnixAddress
from l4relay.observe.status import Status, render_metrics

Collect = Callable[[], Awaitable[Status]]

_REQUEST_TIMEOUT_S: Final = 5.0
_MAX_REQUEST_BYTES: Final = 8192


async def start_admin(address: Address, collect: Collect) -> asyncio.Server:
    """Serve what `collect` gathers at each request.

    Raises:
        OSError: the address is taken.

    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(request, collect))
                await writer.drain()
        writer.close()

    if isinstance(address, UnixAddress):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.path)
        return await asyncio.start_unix_server(serve, address.path, limit=_MAX_REQUEST_BYTES)
    return await asyncio.start_server(serve, address.host, address.port, limit=_MAX_REQUEST_BYTES)


async def _answer(request: bytes, collect: Collect) -> bytes:
    method, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", "text/plain", "only GET\n", with_body=True)
    if path == b"/metrics":
        body, kind = render_metrics(await collect()), "text/plain; version=0.0.4; charset=utf-8"
    elif path == b"/status":
        body, kind = json.dumps(await collect(), indent=2) + "\n", "application/json"
    else:
        return _response("404 Not Found", "text/plain", "/metrics or /status\n", with_body=True)
    return _response("200 OK", kind, body, with_body=method == b"GET")


def _response(status: str, kind: str, body: str, *, with_body: bool) -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (content if with_body else b"")
