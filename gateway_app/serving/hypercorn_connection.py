"""hypercorn's connections, but a PROXY header may come first, and to wait costs nothing.

Nor does a client that takes nothing keep its connection: hypercorn waits for it without end once the
connection is to be closed.

hypercorn starts a task for each idle connection and cancels it when a request comes, which is a good part of
what a small request costs it. Here an idle connection is an entry in a dictionary, which keeps the order in
which they became idle, and one timer a second closes those that have been idle for too long.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import re
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import h11
from hypercorn import protocol as hypercorn_protocol
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import RawData
from hypercorn.protocol import h2 as hypercorn_h2
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol

from gateway_app.serving.hypercorn_http2 import Http2, Http2Stream
from gateway_app.serving.proxy_header import STATE_KEY, Told, read_header
from l4relay.proxy_protocol import ProxyProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.asyncio.task_group import TaskGroup
    from hypercorn.config import Config
    from hypercorn.events import Event

    from gateway_app.serving.proxy_header import IsExpected

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL_S: Final = 1.0
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")


class IdleConnections:
    """The connections of one worker on which no request is under way, the longest idle first.

    Args:
        keep_alive_s: how long one may be idle; it is closed up to `sweep_s` later.

    """

    def __init__(self, keep_alive_s: float, sweep_s: float = _SWEEP_INTERVAL_S) -> None:
        self.keep_alive_s = keep_alive_s
        self._sweep_s = sweep_s
        self._idle_since: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    def __len__(self) -> int:
        """Count them."""
        return len(self._idle_since)

    def __iter__(self) -> Iterator[Connection]:
        """Yield them, the longest idle first."""
        return iter(self._idle_since)

    def add(self, connection: Connection) -> None:
        """Take note that `connection` waits for a request from now on; while the worker stops, close it."""
        self._idle_since.pop(connection, None)
        self._idle_since[connection] = connection.loop.time()
        if self._is_stopping:
            connection.end()
        elif self._timer is None:
            self._sweep_later(connection.loop)

    def discard(self, connection: Connection) -> bool:
        """Take note that a request has come, or that the connection is closed; say whether it was idle."""
        return self._idle_since.pop(connection, None) is not None

    def close(self) -> None:
        """Close them all, and from now on each that becomes idle."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in self._idle_since:
            connection.end()

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._sweep_s, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close those whose time is over; come back while there are others."""
        self._timer = None
        over = loop.time() - self.keep_alive_s
        for connection, idle_since in self._idle_since.items():
            if idle_since > over:
                self._sweep_later(loop)
                return
            connection.end()


class _IdleMark:
    """Stands where hypercorn has its idle task: notes idleness instead of starting and cancelling."""

    __slots__ = ("_connection", "_connections")

    def __init__(self, connection: Connection, connections: IdleConnections) -> None:
        self._connection = connection
        self._connections = connections

    async def restart(self, task_group: TaskGroup, action: object) -> None:
        self._connections.add(self._connection)

    async def stop(self) -> None:
        self._connections.discard(self._connection)


class Connection(TCPServer):
    """One client's connection, served by hypercorn; the further arguments are those of its class."""

    def __init__(self, idle: IdleConnections, expects_header: IsExpected, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._idle = idle
        self._expects_header = expects_header
        self._is_cancelled = False
        self._waiting: asyncio.TimerHandle | None = None
        self.idle_task = _IdleMark(self, idle)  # type: ignore[assignment]  # has what hypercorn calls

    async def run(self) -> None:
        """Serve the connection, as the one that its PROXY header tells of where it has to have one."""
        try:
            if await self._has_told_who():
                await super().run()
        except asyncio.CancelledError:
            # At the end of the drain time hypercorn waits for this task's end, however it ends. Of one that
            # ends cancelled Python 3.11's streams log a traceback.
            if not self.context.terminated.is_set():
                raise

    async def _has_told_who(self) -> bool:
        """Read the PROXY header where there has to be one; False if it is none, and the connection closed."""
        peer = self.writer.get_extra_info("peername")
        if not self._expects_header(peer):
            return True
        try:
            header = await read_header(self.reader)
        except (OSError, ProxyProtocolError) as error:
            logger.warning("a connection from %s is closed: %s", peer or "a Unix socket", error)
            self.writer.transport.abort()
            return False
        except asyncio.CancelledError:
            self.writer.transport.abort()
            raise
        told = Told(header, self.writer.get_extra_info("socket"))
        ours = self.writer.get_extra_info
        # The one place where hypercorn asks who the client is.
        setattr(  # noqa: B010  # a method
            self.writer, "get_extra_info", lambda name: told if name == "socket" else ours(name)
        )
        if told.connection_id:
            self.state = type(self.state)({**self.state, STATE_KEY: told.connection_id})
        return True

    async def protocol_send(self, event: Event) -> None:
        """Write, unless it is nothing: the end of a body of known length has no bytes."""
        if isinstance(event, RawData) and not event.data:
            return
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        except asyncio.CancelledError:  # the task group takes no further task from now on
            self._is_cancelled = True
            raise

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def _close(self) -> None:
        """Close once the client has taken what was written, or nothing for as long as it may be idle."""
        self._idle.discard(self)  # the task group may have ended, in which `end` would start its task
        self._wait_for_client(sys.maxsize)
        try:
            await super()._close()
        finally:
            self._stop_waiting()

    def _wait_for_client(self, untaken: int) -> None:
        """Break the connection off if there are still as many bytes `untaken`, else look again later."""
        self._stop_waiting()
        transport = self.writer.transport
        left = transport.get_write_buffer_size() + _unacknowledged(transport)
        if left < untaken:
            self._waiting = self.loop.call_later(self._idle.keep_alive_s, self._wait_for_client, left)
            return
        with suppress(OSError):  # else the system would go on offering the rest for minutes
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()

    def end(self) -> None:
        """Close the connection soon, unless a request that has arrived already comes before."""
        if not self._is_cancelled:  # else it is being closed
            self._task_group.spawn(self._end_if_idle)

    async def _end_if_idle(self) -> None:
        transport: Any = self.writer.transport  # reads, too
        if transport.is_closing():
            return
        transport.pause_reading()
        await asyncio.sleep(0)  # what has been read from the socket is looked at now
        if self._idle.discard(self):
            await self._initiate_server_close()
        else:
            transport.resume_reading()


def _unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes the system has been given that the client has not taken; tcp(7), SIOCOUTQ."""
    try:
        count = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it is closed
        return 0
    return int.from_bytes(count, sys.byteorder)


class _H11Connection(h11.Connection):
    """h11's, but what comes before a request and behind the last one is no error.

    Empty lines before a request are ignored (RFC 9112 2.2): old clients send one behind a body. So is what
    follows a request that closes the connection (9.6): h11 would have the client told 400 in place of the
    answer, when the backend has the request already.
    """

    def receive_data(self, data: bytes) -> None:
        if self.their_state is not h11.MUST_CLOSE or not data:
            super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        state = self.their_state
        if state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        if state is h11.IDLE and (received := bytes(self._receive_buffer)).startswith(b"\r"):
            empty = _EMPTY_LINES.match(received)
            end = empty.end() if empty else 0
            self._receive_buffer.maybe_extract_at_most(end)
            if received[end:] == b"\r":  # its line feed is still to come
                return h11.NEED_DATA
        return super().next_event()


class Http1(H11Protocol):
    """hypercorn's HTTP/1.1, but a client cannot turn it into HTTP/2 with an `Upgrade: h2c`.

    Through a proxy in front that passes Upgrade on, that would be a tunnel to the gateway, in which the
    client speaks with the proxy's address and past its rules. RFC 9113 3.1 has done away with it; HTTP/2
    without TLS begins with its preface.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = _H11Connection(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])


def use_for(config: Config, idle: IdleConnections, expects_header: IsExpected) -> None:
    """Let hypercorn make these connections for the server of `config`, and its own for others in the process.

    `expects_header` tells by a peer's address whether it has to begin with a PROXY header. Hypercorn has no
    setting for a class of connections, hence its global. The others are the admin listener, which a stop must
    not end.
    """

    def make(app: Any, loop: Any, its_config: Config, *arguments: Any) -> TCPServer:
        if its_config is config:
            return Connection(idle, expects_header, app, loop, its_config, *arguments)
        return TCPServer(app, loop, its_config, *arguments)

    setattr(hypercorn_run, "TCPServer", make)  # noqa: B010  # it exports no name
    setattr(hypercorn_protocol, "H11Protocol", Http1)  # noqa: B010  # likewise; for all of the process
    setattr(hypercorn_protocol, "H2Protocol", Http2)  # noqa: B010
    setattr(hypercorn_h2, "HTTPStream", Http2Stream)  # noqa: B010
