"""The HTTP/1.1 transport of one endpoint: which connection carries which request.

The pool decides without waiting and acts afterwards, so no cancellation can split a decision: a connection is
at any moment idle, in one exchange's hands, on its way to one waiter, or closed. A place in the pool is
counted from before the connect until the connection is lost.

Idle connections are used last-in first-out, so that surplus ones age and expire. They expire a second before
the endpoint would close them (`Keep-Alive: timeout`), or after `keep_alive_s` where it does not say.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway_app.problem import Cause, GatewayError
from gateway_app.upstream.deadlines import NEVER
from gateway_app.upstream.exhaustion import is_exhaustion
from gateway_app.upstream.http1 import Http1Connection
from gateway_app.upstream.http1_request import head_of, start_upload
from gateway_app.upstream.transport import Sent, UpstreamError

if TYPE_CHECKING:
    from gateway_app.upstream.deadlines import Flight
    from gateway_app.upstream.transport import UpstreamRequest

_KEEP_ALIVE_MARGIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint listens: `host` and `port`, or the `path` of a Unix socket; with `tls`, over TLS.

    `server_name` is the name that the endpoint's certificate must hold, and what SNI says.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of one endpoint's pool; times in seconds."""

    max_connections: int = 256
    max_waiting: int = 1024
    connect_timeout_s: float = 1.0
    idle_timeout_s: float = 60.0
    keep_alive_s: float = 4.0


class Http1Pool:
    """Connections to one endpoint, kept open and reused."""

    def __init__(self, address: Address, limits: PoolLimits) -> None:
        self._address = address
        self._limits = limits
        self._kept_s = limits.keep_alive_s
        self._places = limits.max_connections
        self._connections: set[Http1Connection] = set()
        self._idle: deque[Http1Connection] = deque()
        self._waiters: deque[asyncio.Future[Http1Connection | None]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = NEVER
        self._is_closed = False

    def status(self) -> dict[str, int]:
        """Count open and idle connections and the requests that wait for one."""
        return {"open": len(self._connections), "idle": len(self._idle), "waiting": len(self._waiters)}

    async def send(self, request: UpstreamRequest, flight: Flight) -> Http1Connection:
        """Send `request` and wait for the answer's head; the connection returned is the answer.

        A kept-open connection that ends before the answer's first byte has most often met the endpoint's idle
        timeout: the request is then sent once more, on a new connection, if it can be repeated.

        Raises:
            UpstreamError: the endpoint could not be reached, or its answer is broken.
            GatewayError: no connection is free and too many requests wait, none can be opened since this
                process has no descriptors left, or the client's body is at fault.

        """
        connection = self._take_idle(flight.started) or await self._acquire()
        is_repeat = False
        while True:
            try:
                if request.receive is None:
                    connection.start(head_of(request) + request.body, request.method)
                else:
                    await start_upload(connection, request, flight, self._limits.idle_timeout_s)
                while not connection.has_head:
                    await connection.news()
                return connection
            except BaseException as error:
                connection.drop()
                is_race = isinstance(error, UpstreamError) and error.sent is Sent.REUSED
                if is_repeat or not (is_race and request.is_repeatable):
                    raise
            is_repeat = True
            connection = await self._acquire()

    async def aclose(self) -> None:
        """Close idle connections now; those in use close when their exchange ends."""
        self._is_closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        while self._idle:
            self._idle.pop().drop()

    # ------------------------------------------------------------ places and waiting

    def _take_idle(self, now: float) -> Http1Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.idle_until > now:
                return connection
            connection.drop()
        return None

    async def _acquire(self) -> Http1Connection:
        """Open a connection, or wait for one where all places are taken."""
        while True:
            if self._places:
                self._places -= 1
                return await self._connect()
            if len(self._waiters) >= self._limits.max_waiting:
                raise GatewayError(
                    Cause.OVERLOADED, f"{len(self._waiters)} requests wait for a connection already"
                )
            connection = await self._wait()
            if connection is None:
                return await self._connect()
            if connection.is_usable:
                return connection

    async def _wait(self) -> Http1Connection | None:
        """Wait for a connection, or for the place of one that was closed (None)."""
        waiter: asyncio.Future[Http1Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await waiter
        except BaseException as error:
            if not waiter.done() or waiter.cancelled():
                if waiter in self._waiters:  # else it was skipped by who had a place to give
                    self._waiters.remove(waiter)
            elif (connection := waiter.result()) is not None:
                self._release(connection)
            else:
                self._free_place()
            if isinstance(error, TimeoutError):
                raise GatewayError(Cause.OVERLOADED, "no connection became free in time") from error
            raise

    async def _connect(self) -> Http1Connection:
        """Open a connection in a place that is counted already."""
        loop = asyncio.get_running_loop()
        address = self._address
        connection = Http1Connection(loop, self._release, self._lost)
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                if address.path:
                    await loop.create_unix_connection(
                        lambda: connection, address.path, ssl=address.tls, server_hostname=address.server_name
                    )
                else:
                    await loop.create_connection(
                        lambda: connection,
                        address.host,
                        address.port,
                        ssl=address.tls,
                        server_hostname=address.server_name,
                    )
        except BaseException as error:
            self._free_place()
            if isinstance(error, OSError):
                raise _connect_error(error) from error
            raise
        if not connection.is_usable:  # on uvloop it may end before we hear that it has begun
            self._free_place()
            detail = "closed by the endpoint as soon as it was open"
            raise UpstreamError(Cause.CONNECTION_RESET, detail, Sent.NOTHING)
        self._connections.add(connection)
        return connection

    def _free_place(self) -> None:
        """Give a place back, or hand it to who has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places += 1

    def _release(self, connection: Http1Connection) -> None:
        """Take back a connection that can carry another request."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._is_closed or not connection.is_usable:
            connection.drop()
            return
        kept_s = self._kept_s if connection.keep_alive_s is None else _kept_s(connection.keep_alive_s)
        connection.idle_until = connection.loop.time() + kept_s
        self._idle.append(connection)
        if connection.idle_until < self._expires_at:
            self._expire_at(connection.idle_until, connection.loop)

    def _lost(self, connection: Http1Connection) -> None:
        """Forget a connection that was closed, by either side."""
        if connection in self._connections:
            self._connections.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._free_place()

    def _expire_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_at = when
        self._expiry = loop.call_at(when, self._expire)

    def _expire(self) -> None:
        """Close idle connections whose time is over, and come back when the next one's may be."""
        self._expires_at = NEVER
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [each for each in self._idle if each.idle_until <= now]:
            connection.drop()
        if self._idle:
            soonest = min(connection.idle_until for connection in self._idle)
            self._expire_at(max(soonest, now + 0.05), loop)


def _kept_s(timeout_s: float) -> float:
    """Return how long a connection is kept of which the endpoint says that it closes after `timeout_s`."""
    return max(timeout_s - _KEEP_ALIVE_MARGIN_S, timeout_s / 2)


def _connect_error(error: OSError) -> GatewayError:
    """Say what a failed connect means. Nothing of the request was sent."""
    detail = str(error) or type(error).__name__
    if is_exhaustion(error):
        return GatewayError(Cause.OVERLOADED, f"no connection can be opened here: {detail}")
    if isinstance(error, TimeoutError):
        return UpstreamError(
            Cause.CONNECT_TIMEOUT, "the endpoint did not accept the connection in time", Sent.NOTHING
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamError(Cause.TLS_CERTIFICATE, detail, Sent.NOTHING)
    if isinstance(error, ssl.SSLError):
        return UpstreamError(Cause.TLS, detail, Sent.NOTHING)
    if isinstance(error, socket.gaierror):
        return UpstreamError(Cause.DNS, detail, Sent.NOTHING)
    return UpstreamError(Cause.CONNECTION_REFUSED, detail, Sent.NOTHING)
