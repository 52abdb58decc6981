"""The lifespan protocol for applications that run in this process (ASGI specification, "Lifespan")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message


class Lifespan:
    """Starts an application before its first request and stops it after its last.

    An application that does not know the protocol (it raises on such a scope) is used without.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, object] = {}
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._started: asyncio.Future[None] | None = None
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def started(self) -> dict[str, object]:
        """Run the startup once, whoever comes first; give the state that requests are to see.

        Raises:
            RuntimeError: the application said that its startup failed.

        """
        if self._started is None:
            loop = asyncio.get_running_loop()
            self._started = loop.create_future()
            self._events.put_nowait({"type": "lifespan.startup"})
            self._task = loop.create_task(self._run())
        await asyncio.shield(self._started)
        return self._state

    async def stop(self) -> None:
        """Run the shutdown, if the startup was run."""
        if self._task is not None:
            self._events.put_nowait({"type": "lifespan.shutdown"})
            await self._task

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        assert self._started is not None
        try:
            await self._app(scope, self._events.get, self._send)
        except Exception:  # noqa: S110 -- the specification: the protocol is not supported then
            pass
        finally:
            if not self._started.done():
                self._started.set_result(None)

    async def _send(self, message: Message) -> None:
        assert self._started is not None
        if message["type"] == "lifespan.startup.complete":
            self._started.set_result(None)
        elif message["type"] == "lifespan.startup.failed":
            self._started.set_exception(RuntimeError(message.get("message", "") or "no reason given"))
