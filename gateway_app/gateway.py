"""The ASGI application: takes each request through edge, routing and pipeline, and follows the server's life.

What a worker holds between requests (snapshot, backends, metrics) is `worker.Worker`'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from gateway_app.answer import answer_cancelled, answer_error, dated_send, edge_send
from gateway_app.problem import Cause, GatewayError
from gateway_app.request_framing import NO_LIMIT, bound_receive, bound_replay
from gateway_app.routing.json_body import LOOK_AHEAD_BYTES, UNPARSABLE, look_ahead
from gateway_app.worker import Worker, if_unexpected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from gateway_app.exchange import Exchange
    from gateway_app.route import Route
    from gateway_app.snapshot import Snapshot

logger = logging.getLogger(__name__)

LOOK_AHEAD_S: Final = 60.0
"""How long the beginning of a body may take that a route asks for; later it is the backend's `timeout`."""


class Gateway:
    """The gateway as an ASGI application, for the configuration file at `config_path`.

    The file is read when the server starts the application (lifespan) and again whenever it changes. With
    `adds_date`, answers without a Date get one; for servers that do not see to it. `reads_proxy_headers` says
    that the server reads PROXY headers, where `expects_proxy_header` tells it to.
    """

    def __init__(
        self, config_path: Path, *, adds_date: bool = False, reads_proxy_headers: bool = False
    ) -> None:
        self._worker = Worker(config_path, reads_proxy_headers=reads_proxy_headers)
        self._edge_send = dated_send if adds_date else edge_send

    def expects_proxy_header(self, peer: Sequence[object] | str | None) -> bool:
        """Say whether a connection from `peer`, a socket's address, has to begin with a PROXY header."""
        snapshot = self._worker.snapshot
        return (
            snapshot is not None
            and snapshot.config.gateway.accept_proxy_protocol
            and snapshot.edge.trusts(None if isinstance(peer, str) else peer)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        snapshot = self._worker.snapshot or await self._worker.start()
        edge = snapshot.edge
        try:
            exchange = edge.admit(scope)
            answer = self._edge_send(exchange, send)
            if scope["type"] != "http":
                await receive()  # the handshake
                raise GatewayError(Cause.WEBSOCKET_UNSUPPORTED, "WebSockets are not supported yet")
            if exchange.has_body:
                receive = bound_receive(exchange, receive)
            route = snapshot.find_route(exchange, scope)
            if route is None:
                route, receive = await _find_route_by_body(snapshot, exchange, scope, receive)
            await route.app(scope, receive, answer)
            if not exchange.status:
                raise RuntimeError(f"the middlewares of route {route.name!r} have ended without an answer")
        except asyncio.CancelledError:
            await answer_cancelled(scope["gateway"], scope, self._edge_send(scope["gateway"], send))
            raise
        except Exception as error:  # the edge of a request: nothing may escape unanswered
            exchange = scope["gateway"]
            await answer_error(exchange, scope, self._edge_send(exchange, send), error)
        finally:
            edge.finish(scope["gateway"], scope)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start with the server and stop with it; a configuration that is wrong ends the start."""
        await receive()
        try:
            await self._worker.start()
        except Exception as error:  # an error that got out would have the server go on without a gateway
            logger.error("the gateway does not start:\n%s", error, exc_info=if_unexpected(error))
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._worker.aclose()
        await send({"type": "lifespan.shutdown.complete"})


async def _find_route_by_body(
    snapshot: Snapshot, exchange: Exchange, scope: Scope, receive: Receive
) -> tuple[Route, Receive]:
    """Read the beginning of the body, since a route asks for it, and give a `receive` that replays it."""
    body: object = UNPARSABLE
    if exchange.has_body and exchange.content_length <= LOOK_AHEAD_BYTES:
        limit, exchange.max_body_bytes = exchange.max_body_bytes, NO_LIMIT  # the route may have another
        try:
            async with asyncio.timeout(LOOK_AHEAD_S):
                body, receive = await look_ahead(receive)
        except TimeoutError as error:
            detail = f"the first {LOOK_AHEAD_BYTES} bytes of the body took more than {LOOK_AHEAD_S:g} s"
            raise GatewayError(Cause.REQUEST_TIMEOUT, detail) from error
        exchange.max_body_bytes = limit
        receive = bound_replay(exchange, receive)
        exchange.expects_continue = False  # reading the body has told the client to send it
    route = snapshot.find_route(exchange, scope, body)
    assert route is not None, "with a body there is nothing left to ask for"
    return route, receive
