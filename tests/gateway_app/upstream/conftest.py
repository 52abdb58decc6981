"""Backends whose transports only note that they were closed, and one that asks a server over real sockets."""

from __future__ import annotations

import asyncio
import random
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import pytest
import uvloop
from starlette.types import Message, Receive, Scope

from gateway_app.config.backends import BackendConfig, EndpointConfig
from gateway_app.exchange import Exchange
from gateway_app.problem import Cause, GatewayError
from gateway_app.upstream.backend import Backend
from gateway_app.upstream.deadlines import Deadlines
from gateway_app.upstream.endpoint import Endpoint
from gateway_app.upstream.forwarder import Forwarder
from gateway_app.upstream.transport import Transport
from gateway_app.upstream.transports import make_transport
from l4relay.dns.resolve import Resolver

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> LoopFactories:
    """Connections are tested on both event loops: they call a protocol in different orders."""
    factories: LoopFactories = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_http1_"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


class NotingTransport:
    """Carries nothing."""

    def __init__(self) -> None:
        self.is_closed = False

    def status(self) -> dict[str, int]:
        return {"open": 0}

    async def aclose(self) -> None:
        self.is_closed = True


class Bench:
    """Makes backends, and closes them in the end."""

    def __init__(self) -> None:
        self.backends: list[Backend] = []
        self.transports: dict[str, list[NotingTransport]] = {}
        self.resolver = Resolver()

    @staticmethod
    def config(*endpoints: int | str | EndpointConfig, **settings: Any) -> BackendConfig:
        """A number stands for a port of 127.0.0.1."""
        entries = tuple(
            entry
            if isinstance(entry, EndpointConfig)
            else EndpointConfig(url=f"http://127.0.0.1:{entry}" if isinstance(entry, int) else entry)
            for entry in endpoints
        )
        return BackendConfig(endpoints=entries, **settings)

    def make(self, config: BackendConfig, previous: Backend | None = None) -> Backend:
        def transport(endpoint: Endpoint, config: BackendConfig, tls: ssl.SSLContext | None) -> Transport:
            noting = NotingTransport()
            self.transports.setdefault(endpoint.key, []).append(noting)
            return cast("Transport", noting)

        backend = Backend("users", config, transport, self.resolver, previous, rng=random.Random(1))
        self.backends.append(backend)
        return backend

    def of(self, *endpoints: int | str | EndpointConfig, **settings: Any) -> Backend:
        return self.make(self.config(*endpoints, **settings))

    async def close(self) -> None:
        for backend in self.backends:
            await backend.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("id", "192.0.2.7", "http", 0.0, 1000)


@pytest.fixture
def scope() -> Scope:
    return {"type": "http", "method": "GET", "headers": [(b"host", b"example.com")]}


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Any]:
    """Waits until a condition holds that no event announces."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 -- there is no event for every condition
                await asyncio.sleep(0.005)

    return wait


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Outcome:
    """What the client of the gateway would have seen of one request."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_whole = False
        self.cause: Cause | None = None


class Line:
    """The forwarder, one backend, and an endpoint that speaks as `conversation` does on every connection."""

    def __init__(self, conversation: Conversation, port: int | str, settings: dict[str, Any]) -> None:
        self.connections = 0
        self.open_at_endpoint = 0
        self._conversation = conversation
        self._port = port
        self._settings = settings
        self._resolver = Resolver()
        self._deadlines = Deadlines()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Line:
        self._others = asyncio.all_tasks()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._port or self._server.sockets[0].getsockname()[1]
        # Only who says so is about the time for a connect: a second of it is soon over on a busy machine.
        timeout = {"connect": 20.0, **self._settings.get("timeout", {})}
        config = Bench.config(port, **{**self._settings, "timeout": timeout})
        self.backend = Backend("users", config, make_transport, self._resolver, None, rng=random.Random(1))
        self._deadlines.start()
        self._forwarder = Forwarder({"users": self.backend}, self._deadlines)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.backend.close()
        await self._deadlines.aclose()
        self._server.close()
        for serving in self._serving:
            serving.cancel()
        async with asyncio.timeout(5):
            while asyncio.all_tasks() - self._others:  # noqa: ASYNC110 -- no task may be left behind
                await asyncio.sleep(0.001)

    def stop_listening(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_at_endpoint += 1
        serving = cast("asyncio.Task[None]", asyncio.current_task())
        self._serving.add(serving)
        try:
            await self._conversation(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(serving)
            writer.close()
            self.open_at_endpoint -= 1

    @property
    def pool(self) -> dict[str, int]:
        return self.backend.endpoints[0].transport.status()

    @property
    def flights(self) -> int:
        return len(self._deadlines)

    async def ask(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        body: Sequence[bytes] = (),
        receive: Receive | None = None,
        length: int | None = None,
        expect: bool = False,
        on_send: Callable[[Message], Awaitable[None]] | None = None,
    ) -> Outcome:
        """Forward one request whose body comes in these pieces, or as `receive` gives it."""
        loop = asyncio.get_running_loop()
        exchange = Exchange("id", "192.0.2.7", "http", loop.time(), 1_000_000)
        exchange.backend = "users"
        exchange.has_body = bool(body) or receive is not None
        exchange.expects_continue = expect
        exchange.decoded_path, exchange.raw_path = path, path.encode()
        headers = [(b"host", b"example.com")]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "method": method,
            "path": exchange.decoded_path,
            "raw_path": exchange.raw_path,
            "query_string": b"",
            "headers": headers,
            "gateway": exchange,
        }
        pieces = list(body)
        outcome = Outcome()

        async def receive_piece() -> Message:
            if not pieces:
                await loop.create_future()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: Message) -> None:
            if on_send is not None:
                await on_send(message)
            if message["type"] == "http.response.start":
                exchange.status = outcome.status = message["status"]
                outcome.headers = list(message["headers"])
            else:
                outcome.body += message["body"]
                outcome.is_whole = not message.get("more_body", False)

        try:
            await self._forwarder(scope, receive or receive_piece, send)
        except GatewayError as error:
            outcome.cause = error.cause
        return outcome


@pytest.fixture
def line() -> Callable[..., Line]:
    """Makes a `Line`, an asynchronous context manager; its settings are the backend's.

    With `port`, or a URL in its place, it asks who listens there instead of the conversation.
    """
    return lambda conversation, port=0, **settings: Line(conversation, port, settings)


@pytest.fixture
def no_descriptors() -> Callable[[], AbstractContextManager[None]]:
    """Let this process open nothing for a while."""

    @contextmanager
    def exhausted() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return exhausted
