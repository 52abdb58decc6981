"""TCP: admit → preface → choose → connect → relay.

    accepted ──▶ preface ──▶ connecting ──▶ flowing ──▶ ended
       │ refused    │ bad or     │ next endpoint,  │ both ended, failed,
       ▼            ▼ late       ▼ or none left    ▼ idle, or the process stops
     closed, each with a reason in the log

A `Connection` is one client; two `Direction`s move its bytes. Nothing here waits: each step is the answer to
an event or to the relay's tick.
"""

import errno
import os
import socket
import time
from typing import Final

from l4relay.addresses import NetworkSet
from l4relay.client import Client
from l4relay.config.model import RelayConfig
from l4relay.endpoints import Endpoint, Group
from l4relay.flow import Direction, abort_on_close
from l4relay.listener import EXHAUSTED
from l4relay.poller import ENDING
from l4relay.proxy_protocol import ProxyProtocolError, parse
from l4relay.relay import Engine, Relay
from l4relay.sni import ClientHelloReader

_READ_BYTES: Final = 16_384
_SWEEPS_PER_IDLE_TIMEOUT: Final = 8
_MAX_SWEEP_INTERVAL_S: Final = 1.0


class TcpRelay(Relay):
    """One `[[relay]]` of TCP."""

    def __init__(self, config: RelayConfig, engine: Engine) -> None:
        super().__init__(config, engine)
        self.trusted = NetworkSet(config.trusted_proxies)
        self.starting: dict[Connection, float] = {}
        """Connections that are not relayed yet, and the monotonic time when they have to be further."""
        self.flowing: set[Connection] = set()
        self._next_sweep = 0.0
        self._sweep_interval = min(config.idle_timeout / _SWEEPS_PER_IDLE_TIMEOUT, _MAX_SWEEP_INTERVAL_S)

    @property
    def active(self) -> int:
        """Connections that have not ended."""
        return len(self.starting) + len(self.flowing)

    def accept(self, client: socket.socket, source: str, port: int) -> bool:
        """Take a connection from a listener; false when there was nothing left to relay it with."""
        self.counts.accepted += 1
        return Connection(self, client, source, port).begin()

    def tick(self, now: float) -> None:
        """End what is late, or has been idle for too long."""
        super().tick(now)
        for connection in [each for each, deadline in self.starting.items() if deadline <= now]:
            connection.on_late()
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_interval
            for connection in [each for each in self.flowing if each.is_idle(now)]:
                connection.end("idle_timeout")

    def close_all(self, reason: str) -> None:
        """End every connection."""
        for connection in [*self.starting, *self.flowing]:
            connection.end(reason)


class Connection:
    """One client, from accept to close.

    Args:
        source: The client's IP address, "" over a Unix socket. A PROXY header replaces both.
        port: The client's port.

    """

    __slots__ = (
        *("_accepted_at", "_bytes_before", "_changed_at", "_client", "_connected_at", "_counted_as"),
        *("_directions", "_endpoint", "_expects_header", "_group", "_hello", "_relay", "_sock", "_start"),
        *("_tried", "_upstream"),
    )

    _upstream: socket.socket

    def __init__(self, relay: TcpRelay, sock: socket.socket, source: str, port: int) -> None:
        self._relay = relay
        self._sock = sock
        self._client = Client(source, port, relay.engine.new_id())
        self._counted_as: str | None = None
        self._expects_header = False
        self._hello: ClientHelloReader | None = None
        self._start = b""
        self._group: Group = relay.names.default
        self._tried: tuple[Endpoint, ...] = ()
        self._endpoint: Endpoint | None = None  # the last one of those, while `_upstream` leads to it
        self._directions: tuple[Direction, ...] = ()  # up and down, once it flows
        self._bytes_before = 0
        self._accepted_at = self._changed_at = time.monotonic()
        self._connected_at = 0.0

    def begin(self) -> bool:
        """Admit the client, and read what it has to say first, if anything.

        Returns:
            False when there was nothing left to connect with.

        """
        relay, source = self._relay, self._client.source
        # The networks of `accept_proxy_protocol` speak for others: their clients are admitted, not they.
        self._expects_header = relay.config.accept_proxy_protocol and (not source or source in relay.trusted)
        if not self._expects_header and not self._admit():
            return True
        if relay.names.by_name:
            self._hello = ClientHelloReader()
        elif not self._expects_header:
            return self._connect()
        relay.starting[self] = self._accepted_at + relay.config.handshake_timeout
        relay.engine.poller.watch(self._sock, self._on_preface)
        return True

    def is_idle(self, now: float) -> bool:
        """Say whether no byte has moved for `idle_timeout`."""
        up, down = self._directions
        moved = up.moved + down.moved
        if moved != self._bytes_before:
            self._bytes_before = moved
            self._changed_at = now
        return now - self._changed_at >= self._relay.config.idle_timeout

    def on_late(self) -> None:
        """Give up what should have happened by now: the preface, or the connection to the endpoint."""
        if self._endpoint is None:
            self.end("handshake_timeout")
        else:
            self._connect_failed()

    def end(self, reason: str) -> None:
        """Close both sides, count and log; once."""
        relay, sent, received = self._relay, 0, 0
        relay.starting.pop(self, None)
        relay.flowing.discard(self)
        if self._directions:
            up, down = self._directions
            sent, received = max(0, up.moved), down.moved
            up.close()
            down.close()
            self._directions = ()
        relay.engine.poller.close(self._sock)
        if self._endpoint is not None:
            relay.engine.poller.close(self._upstream)
            self._endpoint.active -= 1
        if self._counted_as is not None:
            relay.admission.release(self._counted_as)
        relay.count_end(reason, sent, received)
        self._write_log(reason, sent, received)

    def _admit(self) -> bool:
        refusal = self._relay.admission.admit(self._client.source, self._accepted_at)
        if refusal is None:
            self._counted_as = self._client.source
            return True
        self._relay.counts.refused[refusal] += 1
        abort_on_close(self._sock)  # a reset leaves no TIME_WAIT behind, whatever they send us
        self.end(refusal)
        return False

    def _on_preface(self, events: int) -> None:
        relay = self._relay
        try:
            segment = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            self._start += segment
            is_complete = self._read_preface()
        except BlockingIOError:
            return
        except ProxyProtocolError:
            self.end("bad_proxy_header")
            return
        except OSError:
            self.end("client_reset")
            return
        if not segment:
            self.end("client_closed")
        elif not is_complete:
            relay.engine.poller.rearm(self._sock.fileno())
        elif self._counted_as is not None or self._admit():
            relay.engine.poller.pause(self._sock)
            if self._hello is not None:
                self._group = relay.names.find(self._hello.server_name)
            self._connect()

    def _read_preface(self) -> bool:
        """Take the PROXY header off; the ClientHello goes on. True when all is known that was wanted."""
        if self._expects_header:
            parsed = parse(self._start)
            if parsed is None:
                return False
            header, length = parsed
            self._client.believe(header)
            self._start = self._start[length:]
            self._expects_header = False
        return self._hello is None or self._hello.read(self._start)

    def _connect(self) -> bool:
        """Begin to connect to the next endpoint, or end when there is none left to try; see `begin`."""
        relay, is_exhausted = self._relay, False
        while len(self._tried) < relay.config.connect_attempts:
            endpoint = self._group.choose(self._client.source, self._tried)
            if endpoint is None:
                break
            self._tried = (*self._tried, endpoint)
            try:
                self._upstream = _connecting_socket(endpoint)
            except OSError as error:
                if error.errno in EXHAUSTED:  # not the endpoint's; another may be of another family
                    is_exhausted = True
                else:
                    self._group.failed(endpoint, relay.engine.poller.now)
                continue
            self._endpoint = endpoint
            endpoint.active += 1
            relay.starting[self] = relay.engine.poller.now + relay.config.connect_timeout
            relay.engine.poller.watch(self._upstream, self._on_connect)
            return True
        if is_exhausted:
            self.end("no_descriptors")
            return False
        self.end("connect_failed" if self._tried else "no_endpoint")
        return True

    def _on_connect(self, events: int) -> None:
        if events & ENDING and self._upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._connect_failed()
            return
        relay, endpoint = self._relay, self._tried[-1]
        self._connected_at = self._changed_at = relay.engine.poller.now
        del relay.starting[self]
        relay.flowing.add(self)
        self._group.succeeded(endpoint)
        endpoint.total += 1
        version = relay.config.proxy_protocol
        header = self._client.proxy_header(version, self._sock) if version is not None else b""
        start = header + self._start
        engine, splice, client, upstream = relay.engine, relay.config.splice, self._sock, self._upstream
        up = Direction(engine, "client", client, upstream, start, splice=splice, on_end=self.end)
        down = Direction(engine, "endpoint", upstream, client, splice=splice, on_end=self.end)
        up.reverse, down.reverse = down, up
        up.moved = -len(header)  # which is not the client's
        up.settle()
        self._directions = up, down
        self._start = b""
        os.set_blocking(client.fileno(), False)  # the flag alone: nobody calls the object's methods now
        engine.poller.replace(upstream, down.on_source)
        engine.poller.watch(client, up.on_source)
        down.on_source(events)

    def _connect_failed(self) -> None:
        relay, endpoint = self._relay, self._tried[-1]
        relay.engine.poller.close(self._upstream)
        endpoint.active -= 1
        self._endpoint = None
        self._group.failed(endpoint, relay.engine.poller.now)
        self._connect()

    def _write_log(self, reason: str, sent: int, received: int) -> None:
        log = self._relay.engine.log
        if log.fd is None:
            return
        tried, connected_at = self._tried, self._connected_at
        log.write(
            type="tcp",
            relay=self._relay.config.name,
            id=self._client.id,
            client=str(self._client),
            endpoint=self._endpoint.key if self._endpoint is not None else "",
            sent=sent,
            received=received,
            duration_ms=round((time.monotonic() - self._accepted_at) * 1000, 1),
            connect_ms=round((connected_at - self._accepted_at) * 1000, 1) if connected_at else None,
            attempts=len(tried) if len(tried) != 1 else None,
            proxy=self._client.proxy or None,
            server_name=self._hello.server_name if self._hello is not None else None,
            end=reason,
        )


def _connecting_socket(endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if endpoint.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        error = sock.connect_ex(endpoint.address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "cannot connect")
    except OSError:
        sock.close()
        raise
    return sock
