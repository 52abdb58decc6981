"""For tests of one's own middlewares and configuration: the whole gateway in the test's process, no socket.

`with GatewayClient("routes.toml") as client: client.get("/orders")`. Works in any test framework.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from gateway_app.gateway import Gateway

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import Message


class GatewayClient:
    """The gateway for a configuration file, and a client that asks it; a context manager.

    It has an event loop of its own, which runs only while it is asked something; use it where none runs.

    Args:
        config_path: the file, read when the context is entered.
        base_url: where the client thinks the gateway is; its host is what routes are matched on.

    """

    def __init__(self, config_path: Path | str, *, base_url: str = "http://gateway.test") -> None:
        self._app = Gateway(Path(config_path))
        self._base_url = base_url
        self._runner = asyncio.Runner()
        self._lifespan: _Lifespan | None = None
        self._client: httpx.AsyncClient | None = None

    def __enter__(self) -> GatewayClient:
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._stop())
        finally:
            self._runner.close()

    def request(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        """Return the answer; the arguments are those of `httpx.Client.request`."""
        if self._client is None:
            raise RuntimeError('the gateway does not run; use "with GatewayClient(...) as client"')
        return self._runner.run(self._client.request(method, url, **arguments))

    def get(self, url: str, **arguments: Any) -> httpx.Response:
        """Return the answer to a GET request."""
        return self.request("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> httpx.Response:
        """Return the answer to a POST request."""
        return self.request("POST", url, **arguments)

    async def _start(self) -> None:
        self._lifespan = _Lifespan(self._app)
        await self._lifespan.start()
        transport = httpx.ASGITransport(self._app)
        self._client = httpx.AsyncClient(transport=transport, base_url=self._base_url)

    async def _stop(self) -> None:
        assert self._lifespan is not None, "the context was entered"
        assert self._client is not None, "the context was entered"
        await self._client.aclose()
        self._client = None
        await self._lifespan.stop()


class _Lifespan:
    """A server's side of ASGI's lifespan protocol."""

    def __init__(self, app: Gateway) -> None:
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self._task = asyncio.ensure_future(app(scope, self._events.get, self._answers.put))

    async def start(self) -> None:
        """Start the application.

        Raises:
            RuntimeError: it does not start; the message is the one that it gave.

        """
        await self._events.put({"type": "lifespan.startup"})
        answer = await self._answers.get()
        if answer["type"] != "lifespan.startup.complete":
            await self._task
            raise RuntimeError(f"the gateway does not start:{os.linesep}{answer.get('message', '')}")

    async def stop(self) -> None:
        """Stop the application and wait for its end."""
        await self._events.put({"type": "lifespan.shutdown"})
        await self._task
