"""Drives a middleware the way a pipeline does: an exchange in the scope, httpx on the ASGI seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_app.answer import edge_send
from gateway_app.exchange import Exchange
from gateway_app.middleware import registry
from gateway_app.middleware.context import SharedObjects
from gateway_app.problem import GatewayError, send_problem


class Backend:
    """The innermost application: remembers the last request and answers 200 with `fields`."""

    def __init__(self) -> None:
        self.requests: list[Scope] = []
        self.bodies: list[bytes] = []
        self.fields: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain"), (b"server", b"inner/1")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.requests.append(scope)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": list(self.fields)})
        await send({"type": "http.response.body", "body": b"forwarded"})

    @property
    def request(self) -> Scope:
        return self.requests[-1]

    @property
    def target(self) -> str:
        query = self.request["query_string"]
        raw_path: bytes = self.request["raw_path"]
        return (raw_path + (b"?" + query if query else b"")).decode()

    def values(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.request["headers"] if key == name.encode()]


@dataclass
class Edge:
    """What the gateway does around a pipeline: makes the exchange, turns a GatewayError into an answer."""

    app: ASGIApp
    client: str = "192.0.2.7"
    params: Mapping[str, str] = field(default_factory=dict)
    max_body_bytes: int = 1000
    content_length: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    exact_headers: list[tuple[bytes, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange("req-1", self.client, scope["scheme"], 0.0, self.max_body_bytes)
        raw_path: bytes = scope["raw_path"].partition(b"?")[0]
        scope["raw_path"] = raw_path
        exchange.content_length = self.content_length
        exchange.path = raw_path.decode()
        exchange.params = self.params
        host = dict(scope["headers"]).get(b"host", b"").decode()
        exchange.host = host.rpartition(":")[0] if ":" in host else host
        scope["path"] = unquote(raw_path)
        scope["gateway"] = exchange
        if self.exact_headers is not None:
            scope["headers"] = list(self.exact_headers)
        self.exchanges.append(exchange)
        send = edge_send(exchange, send)
        try:
            await self.app(scope, receive, send)
        except GatewayError as error:
            await send_problem(scope, send, error.cause, error.detail, error.headers)

    @property
    def exchange(self) -> Exchange:
        return self.exchanges[-1]


class Gateway:
    """One middleware in front of one backend, as routes.toml would name it."""

    def __init__(
        self,
        type_name: str,
        options: Mapping[str, Any] | None = None,
        *,
        name: str = "under-test",
        route: str = "the-route",
        captured: frozenset[str] | None = None,
        shared: SharedObjects | None = None,
        inner: ASGIApp | None = None,
    ) -> None:
        options = options or {}
        self.backend = Backend()
        context = (shared or SharedObjects()).context(name, route, type_name, options, captured)
        self.middleware = registry.build(registry.resolve(type_name), inner or self.backend, options, context)
        self.edge = Edge(self.middleware)

    async def request(self, method: str = "GET", url: str = "/", **arguments: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.edge, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example.com") as client:
            return await client.request(method, url, **arguments)

    async def get(self, url: str = "/", **arguments: Any) -> httpx.Response:
        return await self.request("GET", url, **arguments)

    async def get_with_fields(self, *fields: tuple[bytes, bytes]) -> httpx.Response:
        """Send exactly these fields, also such as httpx would refuse to send."""
        self.edge.exact_headers = [(b"host", b"api.example.com"), *fields]
        return await self.request("GET", "/")


@pytest.fixture
def gateway() -> Callable[..., Gateway]:
    return Gateway


async def discard(message: Message) -> None:
    """Take an answer and forget it."""
