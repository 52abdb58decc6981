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
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from l4relay.addresses import ListenAddress, UnixAddress
from l4relay.admission import LimitTable
from l4relay.config.load import load
from l4relay.config.model import Config, RelayConfig
from l4relay.config.table import ConfigError
from l4relay.dns.follow import LastAddresses, follow_names
from l4relay.dns.resolve import Resolver
from l4relay.health import watch_health
from l4relay.listener import Listener, bind
from l4relay.observe.access_log import AccessLog
from l4relay.observe.status import relay_status
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

    async def start(self) -> None:
        """Listen on everything.

        Raises:
            OSError: an address is taken, or not this machine's.

        """
        await self._apply(self._config)

    async def run(self) -> None:
        """Relay until `stop`, then until all connections have ended or `drain` is over."""
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
            await self.close()

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

    async def close(self) -> None:
        """Close everything at once."""
        await _cancel(self._upkeep)
        self._stop_listening()
        for relay in self._all_relays():
            relay.close_all("stopped")
        self.engine.log.close()
        self.engine.pipes.close()
        self.engine.poller.shut_down()

    def status(self) -> dict[str, Any]:
        """Return what `admin` shows of this process; see `observe.status`."""
        by_name: dict[str, list[Relay]] = {}
        for relay in self._all_relays():  # each before those that it has replaced
            by_name.setdefault(relay.config.name, []).append(relay)
        relays = [relay_status(each) for each in by_name.values()]
        return {"workers": 1, "reloads": dict(self.reloads), "relays": relays}

    # ------------------------------------------------------------------------------------------ reload

    async def _apply(self, config: Config) -> None:
        listed = {listen for relay in config.relays for listen in relay.listen}
        mine = [(relay, self._listens(relay, listed)) for relay in config.relays]
        wanted = [listen for _, listens in mine for listen in listens]
        bound = self._bind_new(wanted)
        relays = [
            (UdpRelay if relay.transport == "udp" else TcpRelay)(relay, self.engine) for relay, _ in mine
        ]
        upkeep = [task for relay in relays for task in self._start_upkeep(relay)]
        try:
            await self._first_resolution(relays)
            bound |= self._bind_new(wanted, bound)  # a UDP listener may have closed with its last session
        except BaseException:
            await _cancel(upkeep)
            for sock in bound.values():
                sock.close()
            raise
        old_upkeep, self._upkeep = self._upkeep, upkeep
        self._retiring += [relay for relay in self.relays if relay.active]
        self.relays = tuple(relays)
        for relay, (_, listens) in zip(relays, mine, strict=True):
            for listen in listens:
                self._serve(listen, relay, bound.get(listen))
        for listen in [each for each in self.listeners if each not in wanted]:
            self.listeners[listen].retire()
        self._forget_closed(wanted)
        await _cancel(old_upkeep)

    def _listens(self, relay: RelayConfig, listed: Collection[ListenAddress]) -> list[ListenAddress]:
        """Return where this worker listens for a relay; ``[::]`` is IPv4 as well, unless that is `listed`."""
        is_first = self.engine.limits.index == 0
        mine = [each for each in relay.listen if is_first or not isinstance(each.address, UnixAddress)]
        twins = [each.ipv4_twin for each in mine]
        return mine + [each for each in twins if each is not None and each not in listed]

    def _bind_new(
        self, listens: list[ListenAddress], known: Collection[ListenAddress] = ()
    ) -> dict[ListenAddress, socket.socket]:
        """Bind what is neither listened on nor `known`: all of it, or nothing."""
        self._forget_closed(self.listeners.keys())
        reuse_port = self.engine.limits.workers > 1  # not the file's number, which a reload does not change
        with contextlib.ExitStack() as undo:
            bound: dict[ListenAddress, socket.socket] = {}
            for listen in listens:
                if listen not in self.listeners and listen not in known:
                    bound[listen] = bind(listen, reuse_port=reuse_port)
                    undo.callback(bound[listen].close)
            undo.pop_all()
        return bound

    def _forget_closed(self, wanted: Collection[ListenAddress]) -> None:
        """Forget the listeners that are not wanted; one of UDP not before its last session has ended."""
        self.listeners = {
            listen: listener
            for listen, listener in self.listeners.items()
            if (listener.is_open if isinstance(listener, UdpListener) else listen in wanted)
        }

    def _serve(self, listen: ListenAddress, relay: Relay, sock: Any) -> None:
        """Have a listener, bound just now or long ago, feed a relay."""
        listener = self.listeners.get(listen)
        if listener is None:
            if isinstance(relay, TcpRelay):
                listener = Listener(self.engine.poller, listen, sock, relay.accept)
            else:
                assert isinstance(relay, UdpRelay)
                listener = UdpListener(self.engine.poller, listen, sock, relay)
            self.listeners[listen] = listener
            _log.info("relay %s listens on %s", relay.config.name, listener)
        elif isinstance(listener, Listener) and isinstance(relay, TcpRelay):
            listener.accepted = relay.accept
        elif isinstance(listener, UdpListener) and isinstance(relay, UdpRelay):
            listener.relay = relay

    def _start_upkeep(self, relay: Relay) -> list[asyncio.Task[None]]:
        tasks = []
        resolver = Resolver()
        for group in relay.groups:
            tasks += [
                asyncio.create_task(follow_names(group, *each, resolver, self._last_addresses))
                for each in group.names
            ]
            if relay.config.health is not None:
                tasks.append(asyncio.create_task(watch_health(group, relay.config)))
        return tasks

    async def _first_resolution(self, relays: Iterable[Relay]) -> None:
        """Wait until every name has its addresses, but not for ever: the others can be relayed meanwhile."""
        waiting = [group.resolved.wait() for relay in relays for group in relay.groups]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_RESOLUTION_S):
                await asyncio.gather(*waiting)

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
            await _wait(self._reload_wanted, _FILE_POLL_S)
            if self._reload_wanted.is_set() or stamp_of(self._path) != self._stamp:
                self._reload_wanted.clear()
                await self.reload()

    def _stop_listening(self) -> None:
        for listener in self.listeners.values():
            listener.retire()
        self.listeners.clear()

    async def _drain(self) -> None:
        active = sum(relay.active for relay in self._all_relays())
        if active:
            _log.info("draining %d connections for at most %g s", active, self._config.process.drain)
        deadline = time.monotonic() + self._config.process.drain
        while any(relay.active for relay in self._all_relays()) and time.monotonic() < deadline:
            await _wait(self._drained, _TICK_S)
            if self._drained.is_set():
                return


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or until the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


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
