"""One process's relays: started, reloaded, drained.

A reload builds everything new beside the old, binds what is new, resolves names, and only then swaps:
listeners hand their next connection to the new relay of the same address. Relays that were replaced keep
their connections, on their old settings, until the last has ended. If anything fails, nothing has changed.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from l4relay.addresses import ListenAddress, UnixAddress
from l4relay.admission import LimitTable
from l4relay.config.load import ConfigError, load
from l4relay.config.model import Config
from l4relay.dns.follow import LastAddresses, follow_names
from l4relay.dns.resolve import Resolver
from l4relay.health import watch_health
from l4relay.listener import Listener, bind
from l4relay.observe.access_log import AccessLog
from l4relay.observe.status import Status, relay_status
from l4relay.relay import Engine, Relay
from l4relay.tcp import TcpRelay
from l4relay.udp import UdpListener, UdpRelay

_TICK_S: Final = 0.1
_FILE_POLL_S: Final = 1.0
_FIRST_RESOLUTION_S: Final = 3.0
_log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class Worker:
    """Everything that one process relays; to be made inside the running loop.

    Args:
        path: The configuration, read again when it changes.
        config: What is in it now.
        limits: Counts for the relays' bounds, shared by all workers. Only the first of them listens on Unix
            sockets, which cannot be shared.
        log_fd: Where the access log goes.
        stamp: `stamp_of` the file from before `config` was read; None takes it as it is now.

    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        limits: LimitTable | None = None,
        log_fd: int = 1,
        stamp: Stamp | None = None,
    ) -> None:
        self._path = path
        self._config = config
        self._last_addresses: LastAddresses = {}
        self._upkeep: list[asyncio.Task[None]] = []
        self._retiring: list[Relay] = []
        self._stamp = stamp or stamp_of(path)
        self._reloading = asyncio.Lock()
        self._reload_wanted = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drained = asyncio.Event()
        log = AccessLog(log_fd if config.process.log == "json" else None)
        self.engine = Engine(log, limits or LimitTable())
        self.relays: tuple[Relay, ...] = ()
        self.listeners: dict[ListenAddress, Listener | UdpListener] = {}
        self.reloads: dict[str, int] = {"ok": 0, "failed": 0}

    async def run(self) -> int:
        """Relay until `stop`, then until all connections have ended or `drain` is over; return 0.

        When it cannot listen on an address, log that and return 1 at once.
        """
        try:
            await self._apply(self._config)
        except OSError as error:
            _log.error("%s", error.strerror or error)
            return 1
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(each) for each in (self._tick_forever(), self._watch_file())]
                await self._stopped.wait()
                async with self._reloading:  # one that is under way would listen again
                    self._stop_listening()
                await self._drain()
                for task in running:
                    task.cancel()
        finally:
            await self._close()
        return 0

    def stop(self) -> None:
        """Accept nothing more and let connections end; called again, end them now."""
        if self._stopped.is_set():
            self._drained.set()
        self._stopped.set()

    def request_reload(self) -> None:
        """Read the file again soon."""
        self._reload_wanted.set()

    async def reload(self) -> bool:
        """Read the file again; false, and nothing has changed, when it cannot be used."""
        async with self._reloading:
            if self._stopped.is_set():
                return False
            self._stamp = stamp_of(self._path)
            try:
                config = load(self._path)
                if config != self._config:
                    await self._apply(config)
                    self._config = config
            except (ConfigError, OSError, UnicodeDecodeError) as error:
                _log.error("not reloaded, the old configuration stays:\n%s", error)
                self.reloads["failed"] += 1
                return False
            _log.info("reloaded %s", self._path)
            self.reloads["ok"] += 1
            return True

    def status(self) -> Status:
        """Return what `admin` shows of this process; see `observe.status`."""
        by_name: dict[str, list[Relay]] = {}
        for relay in self._all_relays():  # each before those that it has replaced
            by_name.setdefault(relay.config.name, []).append(relay)
        relays = [relay_status(each) for each in by_name.values()]
        return {"workers": 1, "reloads": dict(self.reloads), "relays": relays}

    async def collect(self) -> Status:
        """Return the same as a supervisor does of several."""
        return self.status()

    # ------------------------------------------------------------------------------------------ reload

    async def _apply(self, config: Config) -> None:
        wanted = self._wanted(config)
        bound: dict[ListenAddress, socket.socket] = {}
        upkeep: list[asyncio.Task[None]] = []
        try:
            self._bind_missing(wanted, bound)
            relays = {
                each.name: (UdpRelay if each.transport == "udp" else TcpRelay)(each, self.engine)
                for each in config.relays
            }
            upkeep = [asyncio.create_task(task) for each in relays.values() for task in self._upkeep_of(each)]
            resolved = [group.resolved.wait() for each in relays.values() for group in each.groups]
            await _wait(asyncio.gather(*resolved), _FIRST_RESOLUTION_S)  # the others need not wait for ever
            self._bind_missing(wanted, bound)  # a UDP listener may have closed with its last session
        except BaseException:
            await _cancel(upkeep)
            for sock in bound.values():
                sock.close()
            raise
        old_upkeep, self._upkeep = self._upkeep, upkeep
        self._retiring += [relay for relay in self.relays if relay.active]
        self.relays = tuple(relays.values())
        for listen, name in wanted.items():
            self._serve(listen, relays[name], bound.get(listen))
        for listen in self.listeners.keys() - wanted.keys():
            self.listeners[listen].retire()
        self._forget_closed()
        await _cancel(old_upkeep)

    def _wanted(self, config: Config) -> dict[ListenAddress, str]:
        """Return where this worker listens, and for which relay.

        ``[::]`` is IPv4 as well, unless that is listed. Unix sockets are the first worker's.
        """
        is_first = self.engine.limits.index == 0
        listed = {listen: relay.name for relay in config.relays for listen in relay.listen}
        twins = {listen.ipv4_twin: name for listen, name in listed.items()}
        return {
            listen: name
            for listen, name in (twins | listed).items()
            if listen is not None and (is_first or not isinstance(listen.address, UnixAddress))
        }

    def _bind_missing(
        self, wanted: Iterable[ListenAddress], bound: dict[ListenAddress, socket.socket]
    ) -> None:
        """Bind what is neither listened on nor `bound`."""
        self._forget_closed()
        reuse_port = self.engine.limits.workers > 1  # not the file's number, which a reload does not change
        for listen in wanted:
            if listen not in self.listeners and listen not in bound:
                bound[listen] = bind(listen, reuse_port=reuse_port)

    def _forget_closed(self) -> None:
        """Forget the listeners that have closed; retired ones of UDP do with their last session."""
        self.listeners = {listen: each for listen, each in self.listeners.items() if each.is_open}

    def _serve(self, listen: ListenAddress, relay: Relay, sock: Any) -> None:
        """Have a listener, bound just now or long ago, feed a relay."""
        poller = self.engine.poller
        match relay, self.listeners.get(listen):
            case TcpRelay() as tcp, Listener() as listener:
                listener.accepted = tcp.accept
            case UdpRelay() as udp, UdpListener() as listener:
                listener.relay = udp
            case TcpRelay() as tcp, _:
                self.listeners[listen] = Listener(poller, listen, sock, tcp.accept)
            case UdpRelay() as udp, _:
                self.listeners[listen] = UdpListener(sock, udp)
        if sock is not None:
            _log.info("relay %s listens on %s", relay.config.name, self.listeners[listen])

    def _upkeep_of(self, relay: Relay) -> Iterator[Coroutine[None, None, None]]:
        resolver = Resolver()
        for group in relay.groups:
            for config, address in group.names:
                yield follow_names(group, config, address, resolver, self._last_addresses)
            if relay.config.health is not None:
                yield watch_health(group, relay.config)

    # ------------------------------------------------------------------------------------- time, the end

    def _all_relays(self) -> list[Relay]:
        return [*self.relays, *self._retiring]

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            for relay in self._all_relays():
                relay.tick(now)
            self._retiring = [relay for relay in self._retiring if relay.active]
            self.engine.log.flush()

    async def _watch_file(self) -> None:
        while True:
            await _wait(self._reload_wanted.wait(), _FILE_POLL_S)
            if self._reload_wanted.is_set() or stamp_of(self._path) != self._stamp:
                self._reload_wanted.clear()
                await self.reload()

    def _stop_listening(self) -> None:
        for listener in self.listeners.values():
            listener.retire()
        self.listeners.clear()

    async def _drain(self) -> None:
        drain = self._config.process.drain
        deadline = time.monotonic() + drain
        if active := sum(relay.active for relay in self._all_relays()):
            _log.info("draining %d connections for at most %g s", active, drain)
        while any(relay.active for relay in self._all_relays()):
            if self._drained.is_set() or time.monotonic() >= deadline:
                return
            await _wait(self._drained.wait(), _TICK_S)

    async def _close(self) -> None:
        await _cancel(self._upkeep)
        self._stop_listening()
        for relay in self._all_relays():
            relay.close_all("stopped")
        self.engine.log.close()
        self.engine.pipes.close()
        self.engine.poller.shut_down()


async def _wait(what: Awaitable[object], seconds: float) -> None:
    """Wait for something, or until the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes with the file, None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
