"""What one worker process holds between requests, and how it changes: start, reload, stop.

A reload goes: read and check the file, run its tests, compile a snapshot beside the running one, start what
is new, swap one reference, retire what is old once its last request has ended. Whatever fails on the way is
reported, and leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
import weakref
from typing import TYPE_CHECKING

from gateway_app.admin.server import AdminServer
from gateway_app.config.errors import ConfigErrors
from gateway_app.config.load import load
from gateway_app.config.proxy_protocol import READ_BY_HYPERCORN_ALONE
from gateway_app.config.watch import changes, digest
from gateway_app.edge import Edge
from gateway_app.expectations import failed_expectations
from gateway_app.middleware.registry import changed_modules
from gateway_app.observe import families
from gateway_app.observe.access_log import AccessLog
from gateway_app.observe.backends import BackendSampler
from gateway_app.observe.log_writer import LogWriter
from gateway_app.observe.metrics import Metrics
from gateway_app.observe.run_directory import run_directory
from gateway_app.snapshot import HasShutdown, Snapshot, compile_snapshot
from gateway_app.termination import on_termination
from gateway_app.upstream.backend import Backend
from gateway_app.upstream.background import Background
from gateway_app.upstream.deadlines import Deadlines
from gateway_app.upstream.forwarder import Forwarder
from gateway_app.upstream.transports import make_transport
from l4relay.dns.resolve import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp

    from gateway_app.config.model import GatewayConfig

logger = logging.getLogger("gateway")


class Worker:
    """The running configuration of one process, and what the admin listener tells of it.

    Attributes:
        config_path: the configuration file.
        snapshot: what new requests run on; None before the start.
        backends: those of the snapshot, by name.
        started_at: when it started, in seconds since the epoch.
        loaded_at: when it took over its configuration, likewise.
        is_ready: whether it takes requests.
    """

    def __init__(self, config_path: Path, *, reads_proxy_headers: bool = False) -> None:
        self.config_path = config_path
        self._reads_proxy_headers = reads_proxy_headers
        self.snapshot: Snapshot | None = None
        self.backends: dict[str, Backend] = {}
        self.started_at = self.loaded_at = time.time()
        self.is_ready = False
        self._deadlines = Deadlines()
        self._resolver = Resolver()
        self._watching = Background()
        self._retiring = Background()
        self._starting = asyncio.Lock()
        self._metrics: Metrics | None = None
        self._access_log: AccessLog | None = None
        self._admin: AdminServer | None = None
        self._forget_termination: Callable[[], None] | None = None

    @property
    def metrics(self) -> Metrics:
        """The numbers of this worker; there are none before the start, since they are in a file."""
        assert self._metrics is not None
        return self._metrics

    def routes(self) -> Sequence[Mapping[str, object]]:
        """Return the routes in precedence order, as JSON values."""
        assert self.snapshot is not None
        return [
            {"name": entry.name, "backend": entry.value.backend, "middleware": entry.value.middleware}
            for entry in self.snapshot.table.in_precedence_order()
        ]

    async def start(self) -> Snapshot:
        """Read the configuration and begin to serve it. Does nothing the second time.

        Raises:
            ConfigErrors: the configuration is wrong.
            OSError: the admin listener's address cannot be had.

        """
        async with self._starting:
            if self.snapshot is None:
                seen = digest(self.config_path)  # before it is read, so that no change in between is lost
                config = await self._read()
                try:
                    await self._start(config, seen)
                except BaseException:
                    await self.aclose()
                    raise
            assert self.snapshot is not None
            return self.snapshot

    async def _start(self, config: GatewayConfig, seen: bytes | None) -> None:
        # A log file beside the configuration would else have each of its lines told as a change.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        self._metrics = Metrics(run_directory())
        self._deadlines.start()
        await self._use(config)
        self.metrics.add_sampler(BackendSampler(self.metrics, self.backends.values))
        if config.admin is not None:
            self._admin = AdminServer(config.admin.listen, self, self.metrics)
            await self._admin.start()
        self._watching.spawn(self._follow_file(seen), "configuration file")
        self._forget_termination = on_termination(self._drain)
        self.is_ready = True

    async def aclose(self) -> None:
        """Stop, after the last request, or give back what a start that failed has taken."""
        self.is_ready = False
        if self._forget_termination is not None:
            self._forget_termination()
            self._forget_termination = None
        await self._watching.cancel()
        if self._admin is not None:
            await self._admin.aclose()
        if self.snapshot is not None:
            await self.snapshot.shutdown()
        for backend in self.backends.values():
            await backend.close()
        await self._retiring.cancel()
        await self._deadlines.aclose()
        if self._access_log is not None:
            await self._access_log.aclose()
        if self._metrics is not None:
            self._metrics.close()
        self.snapshot = self._admin = self._access_log = self._metrics = None
        self.backends.clear()

    def _drain(self) -> None:
        """Tell on the admin listener that the stop has begun; the server sees to the requests in flight."""
        self.is_ready = False

    async def reload(self) -> bool:
        """Take over the file as it is now. False, with everything as before, if it is wrong."""
        try:
            await self._use(await self._read())
        except Exception as error:  # whatever a file or a user's class does, the running one stays
            self.metrics.cell(families.RELOADS, "failed").add()
            logger.error("the configuration stays as it was:\n%s", error, exc_info=if_unexpected(error))
            return False
        finally:
            for name in changed_modules():
                logger.warning(
                    "module %s has changed since it was imported; only a new start imports it again", name
                )
        self.metrics.cell(families.RELOADS, "ok").add()
        logger.info("the configuration has been taken over from %s", self.config_path)
        return True

    async def _follow_file(self, seen: bytes | None) -> None:
        async for _ in changes(self.config_path, seen):
            await self.reload()

    async def _read(self) -> GatewayConfig:
        """Read the file and run its tests. Raises ConfigErrors."""
        config = await asyncio.to_thread(load, self.config_path)
        if config.gateway.accept_proxy_protocol and not self._reads_proxy_headers:
            key = ("gateway", "accept_proxy_protocol")
            raise ConfigErrors([config.error(key, READ_BY_HYPERCORN_ALONE)])
        if failed := await failed_expectations(config):
            raise ConfigErrors(failed)
        return config

    async def _use(self, config: GatewayConfig) -> None:
        """Make `config` the running one. Raises ConfigErrors and changes nothing if it cannot work."""
        previous = self.snapshot
        backends = await self._backends_for(config)
        new = [backend for name, backend in backends.items() if self.backends.get(name) is not backend]
        try:
            forwarder = Forwarder(backends, self._deadlines)
            snapshot = compile_snapshot(
                config,
                edge=self._edge_for(config),
                metrics=self.metrics,
                terminal=lambda name: forwarder,
                previous=previous,
            )
            await snapshot.startup()
        except BaseException:
            for backend in new:
                await backend.close()
            raise
        gone = [backend for name, backend in self.backends.items() if backends.get(name) is not backend]
        for backend in new:
            await backend.start()
        for backend in gone:
            await backend.stop()
        self.snapshot = snapshot
        self.backends.clear()
        self.backends.update(backends)
        self.loaded_at = time.time()
        if previous is not None:
            # Nothing points to a snapshot but this worker and the requests that run on it.
            loop = asyncio.get_running_loop()
            leaving = tuple(i for i in previous.instances if isinstance(i, HasShutdown))
            weakref.finalize(previous, loop.call_soon_threadsafe, self._retire, leaving, gone).atexit = False

    def _retire(self, instances: tuple[ASGIApp, ...], backends: list[Backend]) -> None:
        self._retiring.spawn(_close(instances, backends), "retirement of a configuration")

    def _edge_for(self, config: GatewayConfig) -> Edge:
        settings = config.gateway
        if settings.access_log == "off":
            access_log = None
        elif self._access_log is None:
            dropped = self.metrics.cell(families.LOG_DROPPED)
            access_log = self._access_log = AccessLog(settings.access_log, LogWriter(), dropped)
        else:
            access_log = self._access_log
            access_log.use_format(settings.access_log)
        return Edge(
            trusted_proxies=settings.trusted_proxies,
            max_body_bytes=settings.max_body,
            pseudonym=settings.via or _pseudonym(self.config_path),
            metrics=self.metrics,
            access_log=access_log,
        )

    async def _backends_for(self, config: GatewayConfig) -> dict[str, Backend]:
        """Give the backends of `config`: those that stay as they are, new ones that take over the rest."""
        backends: dict[str, Backend] = {}
        problems = []
        for name, table in config.backends.items():
            running = self.backends.get(name)
            if running is not None and running.matches(table):
                backends[name] = running
                continue
            try:
                backends[name] = Backend(name, table, make_transport, self._resolver, running)
            except (Exception, SystemExit) as error:  # an application may do anything while imported
                problems.append(config.error(("backends", name), f"cannot be set up: {error!r}"))
        if problems:
            for name, backend in backends.items():
                if self.backends.get(name) is not backend:
                    await backend.close()
            raise ConfigErrors(problems)
        return backends


async def _close(instances: tuple[ASGIApp, ...], backends: list[Backend]) -> None:
    for instance in instances:
        if isinstance(instance, HasShutdown):
            await instance.shutdown()
    for backend in backends:
        await backend.close()


def if_unexpected(error: Exception) -> Exception | None:
    """Give the exception whose traceback helps; a configuration error says all by itself."""
    return None if isinstance(error, ConfigErrors | OSError) else error


def _pseudonym(config_path: Path) -> str:
    """Make the name by which this gateway knows itself in `Via`: the same for all its workers."""
    identity = f"{socket.gethostname()}:{config_path.resolve()}"
    return f"l47-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
