"""Serves the admin application in a worker's event loop, whatever server the worker itself runs under."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from hypercorn.asyncio import serve
from hypercorn.config import Config

from gateway_app.admin.application import admin_application
from gateway_app.admin.listener import forget_listener, is_local, open_listener
from gateway_app.admin.status import StatusFile

if TYPE_CHECKING:
    import socket

    from hypercorn.typing import ASGIFramework

    from gateway_app.admin.status import GatewayView
    from gateway_app.observe.metrics import Metrics

logger = logging.getLogger(__name__)

_SAMPLE_EVERY_S: Final = 1.0
_GRACE_S: Final = 1.0


class AdminServer:
    """One worker's part of the admin listener, and what keeps its gauges and status up to date.

    Args:
        listen: the address, as in routes.toml; port 0 gives every worker a port of its own.
        view: the worker.
        metrics: the worker's.

    Attributes:
        address: what the socket is bound to, as `getsockname` tells it; None if another worker listens.

    """

    def __init__(self, listen: str, view: GatewayView, metrics: Metrics) -> None:
        self._listen = listen
        self._view = view
        self._metrics = metrics
        self._status = StatusFile(metrics, view)
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.address: object = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: the address cannot be had; the message says which, and why.

        """
        metrics = self._metrics
        listener = open_listener(self._listen, metrics.directory, metrics.writer.name)
        if not is_local(self._listen):
            logger.warning(
                "the admin listener %s can be reached from other machines; it has no access control",
                self._listen,
            )
        metrics.add_sampler(self._status)
        metrics.sample()
        self._tasks.append(asyncio.create_task(self._keep_sampling(), name="admin-sampling"))
        if listener is not None:
            self.address = listener.getsockname()
            self._tasks.append(asyncio.create_task(self._serve(listener), name="admin-server"))

    async def aclose(self) -> None:
        """Stop listening, let answers in progress finish within a second, and leave the status."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        if self._tasks:
            self._metrics.remove_sampler(self._status)
        self._tasks.clear()
        self._status.remove()
        if isinstance(self.address, str):  # before another worker may open its own there
            with suppress(FileNotFoundError):
                os.unlink(self.address)
        forget_listener(self._metrics.directory, self._metrics.writer.name)

    async def _serve(self, listener: socket.socket) -> None:
        config = Config()
        config.errorlog = logger
        config.graceful_timeout = _GRACE_S
        config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
        try:
            application = cast("ASGIFramework", admin_application(self._view, self._metrics))
            await serve(application, config, shutdown_trigger=self._stop.wait)
        except Exception:
            logger.exception("the admin listener %s has failed; the gateway goes on without", self._listen)

    async def _keep_sampling(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _SAMPLE_EVERY_S)
                return
            self._metrics.sample()
