"""What the shipped routes.toml leads to, so that gateway and relay have something to show.

The gateway runs `app` in-process. While it runs, the same service listens on a TCP port and an echo on the
UDP port of the same number: those are for the relay, which needs addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Final

import hypercorn.asyncio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

PORT: Final = 9092
_HOST: Final = "127.0.0.1"
_KEEP_ALIVE_S: Final = 0.5
"""hypercorn keeps a connection that its client has ended for as long as an idle one."""
_log = logging.getLogger(__name__)


async def hello(request: Request) -> JSONResponse:
    """Greet, and show the path as the backend sees it."""
    return JSONResponse({"hello": "from behind the gateway", "path": request.url.path})


async def user(request: Request) -> JSONResponse:
    """Show the user that the path names."""
    return JSONResponse({"id": request.path_params["id"], "path": request.url.path})


async def echo(request: Request) -> JSONResponse:
    """Show the request as it arrived: method, target, fields and the size of the body."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body_bytes": size,
        }
    )


async def numbers(request: Request) -> StreamingResponse:
    """Stream a thousand lines."""

    def lines() -> Iterator[str]:
        for number in range(1000):
            yield f"{number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


ROUTES: Final = (
    Route("/users/{id}", user),
    Route("/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    Route("/numbers", numbers),
    Route("/{path:path}", hello),
)


def make_app(port: int) -> Starlette:
    """Return the application, which listens on `port` of loopback, too, from its startup to its shutdown."""

    @contextlib.asynccontextmanager
    async def listening(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                tcp, udp = _bind(socket.SOCK_STREAM, port), _bind(socket.SOCK_DGRAM, port)
            except OSError as error:
                _log.warning("nothing is behind the demo's relays: port %d: %s", port, error.strerror)
            else:
                await stack.enter_async_context(_serve_http(tcp))
                await stack.enter_async_context(_serve_echo(udp))
            yield

    return Starlette(routes=ROUTES, lifespan=listening)


def _bind(kind: socket.SocketKind, port: int) -> socket.socket:
    """Return a bound socket; every worker of the gateway has one (SO_REUSEPORT)."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((_HOST, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def _serve_http(sock: socket.socket) -> AsyncIterator[None]:
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = _KEEP_ALIVE_S
    service: Any = Starlette(routes=ROUTES)  # hypercorn has types of its own for ASGI's messages
    stop = asyncio.Event()
    serving = asyncio.create_task(hypercorn.asyncio.serve(service, config, shutdown_trigger=stop.wait))
    try:
        yield
    finally:
        stop.set()
        await serving


class _Echo(asyncio.DatagramProtocol):
    """Sends every datagram back."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, datagram: bytes, client: Any) -> None:
        self._transport.sendto(datagram, client)


@contextlib.asynccontextmanager
async def _serve_echo(sock: socket.socket) -> AsyncIterator[None]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, sock=sock)
    try:
        yield
    finally:
        transport.close()


app = make_app(PORT)
