"""What one worker process holds between requests, and how it changes: start, reload, stop.

A reload goes: read and check the file, run its tests, compile a snapshot beside the running one, start what is
new, swap one reference, retire what is old once its last request has ended. Whatever fails on the way is
reported, and leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import weakref
from functools import partial
from typing import TYPE_CHECKING

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.load import load
from gateway_app.edge import Edge
from gateway_app.observe.backends import BackendSampler
from gateway_app.observe.metrics import Metrics
from gateway_app.observe.run_directory import run_directory
from gateway_app.snapshot import Snapshot, compile_snapshot
from gateway_app.upstream.backend import Backend
from gateway_app.upstream.background import Background
from gateway_app.upstream.deadlines import Deadlines
from gateway_app.upstream.forwarder import Forwarder
from gateway_app.upstream.transports import make_transport
from l4relay.resolve import Resolver

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_app.config.model import GatewayConfig

logger = logging.getLogger("gateway")


class Worker:
    """The running configuration of one process.

    Attributes:
        snapshot: what new requests run on; None before the start.
        backends: those of the snapshot, by name.
        metrics: this worker's numbers.
    """

    def __init__(self, config_path: Path) -> None:
        self._config_path = config_path
        self.snapshot: Snapshot | None = None
        self.backends: dict[str, Backend] = {}
        self.metrics = Metrics(run_directory())
        self._deadlines = Deadlines()
        self._resolver = Resolver()
        self._tasks = Background()
        self._starting: asyncio.Lock = asyncio.Lock()

    async def start(self) -> Snapshot:
        """Read the configuration and begin to serve it. Does nothing the second time.

        Raises:
            ConfigErrors: the configuration is wrong.
            OSError: the admin listener's address cannot be had.

        """
        async with self._starting:
            if self.snapshot is None:
                self._deadlines.start()
                await self._use(await asyncio.to_thread(self._read))
                self.metrics.add_sampler(BackendSampler(self.metrics, self.backends.values))
            assert self.snapshot is not None
            return self.snapshot

    async def aclose(self) -> None:
        """Stop, after the last request."""
        await self._tasks.cancel()
        if self.snapshot is not None:
            await self.snapshot.shutdown()
        for backend in self.backends.values():
            await backend.close()
        await self._deadlines.aclose()
        self.metrics.close()

    def _read(self) -> GatewayConfig:
        return load(self._config_path)

    async def _use(self, config: GatewayConfig) -> None:
        """Make `config` the running one. Raises ConfigErrors and changes nothing if it cannot work."""
        previous = self.snapshot
        edge = Edge(
            trusted_proxies=config.gateway.trusted_proxies,
            max_body_bytes=config.gateway.max_body,
            pseudonym=config.gateway.via or _pseudonym(self._config_path),
            metrics=self.metrics,
            access_log=None,
        )
        backends = self._backends_for(config)
        forwarder = Forwarder(backends, self._deadlines)
        snapshot = compile_snapshot(
            config, edge=edge, metrics=self.metrics, terminal=lambda name: forwarder, previous=previous
        )
        await snapshot.startup()
        for name, backend in backends.items():
            if self.backends.get(name) is not backend:
                await backend.start()
        gone = [backend for name, backend in self.backends.items() if backends.get(name) is not backend]
        self.snapshot = snapshot
        self.backends.clear()
        self.backends.update(backends)
        if previous is not None:
            # Nothing points to a snapshot but this worker and the requests that run on it.
            loop = asyncio.get_running_loop()
            weakref.finalize(previous, loop.call_soon, self._retire, previous.instances, gone)

    def _backends_for(self, config: GatewayConfig) -> dict[str, Backend]:
        """Give the backends of `config`: those that stay as they are, and new ones that take over the rest."""
        backends: dict[str, Backend] = {}
        problems = []
        for name, table in config.backends.items():
            running = self.backends.get(name)
            if running is not None and running.matches(table):
                backends[name] = running
                continue
            try:
                backends[name] = Backend(name, table, make_transport, self._resolver, running)
            except (ImportError, AttributeError, OSError, ValueError) as error:
                problems.append(config.error(("backends", name), f"cannot be set up: {error}"))
        if problems:
            raise ConfigErrors(problems)
        return backends


def _pseudonym(config_path: Path) -> str:
    """Make the name by which this gateway knows itself in `Via`: the same for all its workers."""
    identity = f"{socket.gethostname()}:{config_path.resolve()}"
    return f"l47-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
