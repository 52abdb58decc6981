"""What the gateway would do with a request, found out by doing it, with nothing sent.

The whole way is the real one (edge, routing, middlewares), compiled for the purpose, but ends in a recorder
in place of the forwarder. State that outlives a request (limits, metrics) is each dry run's own and thrown
away: nothing that serves is touched, and no run sees another. `gateway explain` shows the outcome; `[[test]]`
tables compare with it.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from gateway_app.answer import answer_error, edge_send
from gateway_app.edge import Edge
from gateway_app.observe.metrics import Metrics
from gateway_app.request_framing import bound_receive
from gateway_app.routing.json_body import LOOK_AHEAD_BYTES, UNPARSABLE, parse_body
from gateway_app.snapshot import compile_snapshot
from gateway_app.upstream.forwarder import upstream_target

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway_app.config.model import GatewayConfig, TestRequestConfig
    from gateway_app.route import Route
    from gateway_app.routing.explain import Explanation
    from gateway_app.snapshot import Snapshot

    Fields = tuple[tuple[str, str], ...]

DEFAULT_HOST: Final = "localhost"
"""The host of a request whose URL is only a path."""

_ABSOLUTE: Final = re.compile(r"(https?)://([^/]+)(/.*)?", re.IGNORECASE | re.DOTALL)
_PSEUDONYM: Final = "dry-run"
_LONGEST_S: Final = 5.0
"""A middleware that does not come to an end by then waits for something that a dry run cannot give."""


@dataclass(frozen=True, slots=True)
class ImaginedRequest:
    """A request as a client would send it.

    Attributes:
        method: as on the wire.
        url: absolute, a path with its query, or "*".
        headers: fields in order; Host is taken from the URL where it is not among them.
        cookies: sent as one Cookie field.
        body: None sends none.
        client: the IP address it comes from.

    """

    method: str
    url: str
    headers: Fields = ()
    cookies: Fields = ()
    body: bytes | None = None
    client: str = "127.0.0.1"

    @classmethod
    def of(cls, config: TestRequestConfig) -> Self:
        """Return the request that a `[[test]]` describes."""
        has_body = config.json_body is not None
        return cls(
            config.method,
            config.url,
            tuple(config.headers.items()),
            tuple(config.cookies.items()),
            json.dumps(config.json_body).encode() if has_body else None,
            config.client,
        )

    def scope(self) -> Scope:
        """Return the ASGI scope that a server would make of it.

        Raises:
            ValueError: the URL is none.

        """
        path, _, query = self.url.partition("#")[0].partition("?")
        scheme, host = "http", DEFAULT_HOST
        if not path.startswith("/") and path != "*":
            absolute = _ABSOLUTE.fullmatch(path)
            if absolute is None:
                raise ValueError(
                    f'expected a URL such as "https://example.com/path" or a path, not {self.url!r}'
                )
            scheme, host, path = absolute[1].lower(), absolute[2], absolute[3] or "/"
        raw_path = path.encode()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query.encode(),
            "root_path": "",
            "headers": self._fields(host),
            "client": (self.client, 0),
            "server": ("127.0.0.1", 0),
        }

    def _fields(self, host: str) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in self.headers}
        fields = [] if "host" in given else [(b"host", host.encode())]
        fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        if self.cookies:
            fields.append((b"cookie", "; ".join(f"{name}={value}" for name, value in self.cookies).encode()))
        if self.body is not None and "content-length" not in given:
            fields.append((b"content-length", b"%d" % len(self.body)))
            if "content-type" not in given:
                fields.append((b"content-type", b"application/json"))
        return fields


@dataclass(frozen=True, slots=True)
class ForwardedRequest:
    """What would be sent to the backend; an endpoint's `host` setting may still replace Host."""

    backend: str
    method: str
    target: str
    headers: Fields


@dataclass(slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        route: the route it took, None if it took none.
        explanation: why that one; None if the request was refused before routing.
        forwarded: what would go to a backend, None if the gateway answers itself.
        status: of the gateway's own answer; 0 if there is none.
        headers: of the gateway's own answer, else what middlewares add to the backend's.
        body: of the gateway's own answer.
        error: the token of what went wrong, and its detail; "" if nothing did.

    """

    route: Route | None = None
    explanation: Explanation[Route] | None = None
    forwarded: ForwardedRequest | None = None
    status: int = 0
    headers: Fields = ()
    body: bytes = b""
    error: str = ""


class DryRun:
    """A configuration compiled for dry runs; a context manager, since it holds a temporary directory.

    Raises:
        ConfigErrors: on entering, if the configuration does not compile.

    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="gateway-dry-run-")
        try:
            self._metrics = Metrics(Path(self._directory.name))
            self.snapshot = self._compile(self._config)
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._directory.cleanup()

    async def run(self, request: ImaginedRequest) -> Outcome:
        """Take a request through the gateway.

        Raises:
            ValueError: the request's URL is none.

        """
        outcome = Outcome()
        scope = request.scope()
        scope["extensions"] = {_PSEUDONYM: outcome}
        try:
            async with asyncio.timeout(_LONGEST_S):
                await self._serve(request, scope, outcome)
        except TimeoutError:
            outcome.error = f"a middleware has not come to an end within {_LONGEST_S:g} s"
        return outcome

    async def _serve(self, request: ImaginedRequest, scope: Scope, outcome: Outcome) -> None:
        """Do what `Gateway.__call__` does, and note what it decides."""
        edge = self.snapshot.edge
        send = _answer_recorder(outcome)
        receive = _body_of(request)
        body: object = UNPARSABLE
        if request.body is not None and len(request.body) <= LOOK_AHEAD_BYTES:
            body = parse_body(request.body)
        try:
            exchange = edge.admit(scope)
            send = edge_send(exchange, send)
            if exchange.has_body:
                receive = bound_receive(exchange, receive)
            try:
                route = self.snapshot.find_route(exchange, scope, body)
            finally:
                if exchange.path:
                    outcome.explanation = self.snapshot.table.explain(
                        scope["method"], exchange.host, exchange.path, scope, body
                    )
            assert route is not None, "there is nothing left to ask for"
            outcome.route = route
            await self._fresh_pipeline(route)(scope, receive, send)
        except Exception as error:  # as at the edge of a served request
            await answer_error(scope["gateway"], scope, send, error)
        finally:
            exchange = scope["gateway"]
            edge.finish(exchange, scope)
            outcome.error = ": ".join(part for part in (exchange.error, exchange.error_detail) if part)

    def _fresh_pipeline(self, route: Route) -> ASGIApp:
        """Return the route's pipeline with state of its own: no limit has been used up by an earlier run."""
        alone = tuple(table for table in self._config.routes if table.name == route.name)
        snapshot = self._compile(self._config.model_copy(update={"routes": alone}))
        return snapshot.table.in_precedence_order()[0].value.app

    def _compile(self, config: GatewayConfig) -> Snapshot:
        settings = config.gateway
        edge = Edge(
            trusted_proxies=settings.trusted_proxies,
            max_body_bytes=settings.max_body,
            pseudonym=settings.via or _PSEUDONYM,
            metrics=self._metrics,
            access_log=None,
        )
        return compile_snapshot(config, edge=edge, metrics=self._metrics, terminal=_recorder)


def _recorder(backend: str) -> ASGIApp:
    """Return what stands in for the forwarder: it reads the body, notes the request, and answers 200."""

    async def record(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["gateway"]
        if exchange.has_body:
            while (await receive()).get("more_body", False):
                pass
        outcome: Outcome = scope["extensions"][_PSEUDONYM]
        outcome.forwarded = ForwardedRequest(
            exchange.backend or backend,
            scope["method"],
            upstream_target(scope, exchange).decode("latin-1"),
            _as_text(scope["headers"]),
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return record


def _answer_recorder(outcome: Outcome) -> Send:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            outcome.status = 0 if outcome.forwarded else message["status"]
            outcome.headers = _as_text(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            outcome.body += message.get("body", b"")

    return send


def _body_of(request: ImaginedRequest) -> Receive:
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": request.body or b"", "more_body": False},
    ]

    async def receive() -> Message:
        return messages.pop() if len(messages) > 1 else messages[0]

    return receive


def _as_text(headers: object) -> Fields:
    assert isinstance(headers, list | tuple)
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
