"""TCP: admit → preface → choose → connect → relay.

    accepted ──▶ preface ──▶ connecting ──▶ flowing ──▶ ended
       │ refused    │ bad or     │ next endpoint,  │ both ended, failed,
       ▼            ▼ late       ▼ or none left    ▼ idle, or the process stops
     closed, each with a reason in the log

A `Connection` is one client; `Flow` moves its bytes. Nothing here waits: each step is the answer to an event
or to the relay's tick.
"""

import errno
import socket
import time
from typing import Final

from l4relay.addresses import NetworkSet
from l4relay.client import Client
from l4relay.config.model import RelayConfig
from l4relay.endpoints import Endpoint, Group
from l4relay.flow import Flow, abort_on_close
from l4relay.listener import EXHAUSTED
from l4relay.poller import ENDING
from l4relay.preface import Preface
from l4relay.proxy_protocol import ProxyProtocolError
from l4relay.relay import Engine, Relay

_READ_BYTES: Final = 16_384
_SWEEPS_PER_IDLE_TIMEOUT: Final = 8
_MAX_SWEEP_INTERVAL_S: Final = 1.0
_LOCAL_FAULTS: Final = EXHAUSTED | {errno.EADDRNOTAVAIL}
"""Descriptors or local ports are used up (ip(7)): no fault of the endpoint's."""


class TcpRelay(Relay):
    """One `[[relay]]` of TCP."""

    def __init__(self, config: RelayConfig, engine: Engine) -> None:
        super().__init__(config, engine)
        self.trusted = NetworkSet(config.trusted_proxies)
        self.starting: dict[Connection, float] = {}
        """Connections that are not relayed yet, and the monotonic time when they have to be further."""
        self.flowing: set[Connection] = set()
        self.is_exhausted = False
        """Descriptors or local ports were used up for the last connection."""
        self._next_sweep = 0.0

    @property
    def active(self) -> int:
        """Connections that have not ended."""
        return len(self.starting) + len(self.flowing)

    def accept(self, client: socket.socket, source: str, port: int) -> bool:
        """Take a connection from a listener; false when there was nothing left to relay it with."""
        self.counts.accepted += 1
        self.is_exhausted = False
        Connection(self, client, source, port).begin()
        return not self.is_exhausted

    def tick(self, now: float) -> None:
        """End what is late, or has been idle for too long."""
        super().tick(now)
        for connection in [each for each, deadline in self.starting.items() if deadline <= now]:
            connection.on_late()
        if now >= self._next_sweep:
            interval = self.config.idle_timeout / _SWEEPS_PER_IDLE_TIMEOUT
            self._next_sweep = now + min(interval, _MAX_SWEEP_INTERVAL_S)
            for connection in [each for each in self.flowing if each.is_idle(now, self.config.idle_timeout)]:
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
        *("_endpoint", "_flow", "_group", "_preface", "_relay", "_sock", "_start", "_tried", "_upstream"),
        "__weakref__",
    )

    def __init__(self, relay: TcpRelay, sock: socket.socket, source: str, port: int) -> None:
        self._relay = relay
        self._sock = sock
        self._client = Client(source, port, relay.engine.new_id())
        self._counted_as: str | None = None
        self._preface: Preface | None = None
        self._start = b""
        self._group: Group = relay.names.default
        self._tried: tuple[Endpoint, ...] = ()
        self._endpoint: Endpoint | None = None
        self._upstream: socket.socket | None = None
        self._flow: Flow | None = None
        self._bytes_before = 0
        self._accepted_at = self._changed_at = time.monotonic()
        self._connected_at = 0.0

    def begin(self) -> None:
        """Admit the client, and read what it has to say first, if anything."""
        relay = self._relay
        # The networks of `accept_proxy_protocol` speak for others: their clients are admitted, not they.
        source = self._client.source
        expects_header = relay.config.accept_proxy_protocol and (not source or source in relay.trusted)
        if not expects_header and not self._admit():
            return
        if not expects_header and not relay.names.by_name:
            self._connect()
            return
        self._preface = Preface(expects_header=expects_header, reads_name=relay.names.by_name)
        relay.starting[self] = self._accepted_at + relay.config.handshake_timeout
        relay.engine.poller.watch(self._sock, self._on_preface)

    def is_idle(self, now: float, idle_timeout: float) -> bool:
        """Say whether no byte has moved for so many seconds."""
        flow = self._flow
        moved = flow.up.moved + flow.down.moved if flow is not None else 0
        if moved != self._bytes_before:
            self._bytes_before = moved
            self._changed_at = now
        return now - self._changed_at >= idle_timeout

    def on_late(self) -> None:
        """Give up what should have happened by now: the preface, or the connection to the endpoint."""
        if self._endpoint is None:
            self.end("handshake_timeout")
        else:
            self._connect_failed()

    def end(self, reason: str) -> None:
        """Close both sides, count and log; once."""
        relay, poller, now = self._relay, self._relay.engine.poller, time.monotonic()
        relay.starting.pop(self, None)
        relay.flowing.discard(self)
        flow, sent, received = self._flow, 0, 0
        if flow is not None:
            flow.close()
            sent, received = max(0, flow.up.moved), flow.down.moved
            self._flow = None
        else:
            poller.close(self._sock)
            if self._upstream is not None:
                poller.close(self._upstream)
        if self._endpoint is not None:
            self._endpoint.active -= 1
        if self._counted_as is not None:
            relay.admission.release(self._counted_as)
        relay.count_end(reason, sent, received)
        self._write_log(reason, sent, received, now)

    # ------------------------------------------------------------------------------------------- admit

    def _admit(self) -> bool:
        refusal = self._relay.admission.admit(self._client.source, self._accepted_at)
        if refusal is None:
            self._counted_as = self._client.source
            return True
        self._relay.counts.refused[refusal] += 1
        abort_on_close(self._sock)  # a reset leaves no TIME_WAIT behind, whatever they send us
        self.end(refusal)
        return False

    # ----------------------------------------------------------------------------------------- preface

    def _on_preface(self, events: int) -> None:
        preface = self._preface
        assert preface is not None, "watched for a preface only"
        try:
            while True:
                segment = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                if not segment:
                    self.end("client_closed")
                    return
                if preface.feed(segment):
                    break
        except BlockingIOError:
            return
        except ProxyProtocolError:
            self.end("bad_proxy_header")
            return
        except OSError:
            self.end("client_reset")
            return
        self._preface_complete(preface)

    def _preface_complete(self, preface: Preface) -> None:
        relay = self._relay
        relay.starting.pop(self, None)
        relay.engine.poller.pause(self._sock)
        self._start = bytes(preface.rest)
        self._group = relay.names.find(preface.server_name)
        if preface.header is not None:
            self._client.believe(preface.header)
            if not self._admit():
                return
        self._connect()

    # ---------------------------------------------------------------------------------- choose, connect

    def _connect(self) -> None:
        """Begin to connect to the next endpoint, or end when there is none left to try."""
        relay = self._relay
        while len(self._tried) < relay.config.connect_attempts:
            endpoint = self._group.choose(self._client.source, self._tried)
            if endpoint is None:
                break
            self._tried = (*self._tried, endpoint)
            try:
                self._open(endpoint)
            except OSError as error:
                if error.errno in _LOCAL_FAULTS:
                    relay.is_exhausted = True
                    self.end("no_descriptors")
                    return
                self._group.failed(endpoint, relay.engine.poller.now)
                continue
            return
        self.end("connect_failed" if self._tried else "no_endpoint")

    def _open(self, endpoint: Endpoint) -> None:
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
        self._upstream = sock
        self._endpoint = endpoint
        endpoint.active += 1
        relay = self._relay
        relay.starting[self] = relay.engine.poller.now + relay.config.connect_timeout
        relay.engine.poller.watch(sock, self._on_connect)

    def _on_connect(self, events: int) -> None:
        if events & ENDING and self._socket_error():
            self._connect_failed()
        else:
            self._connected(events)

    def _socket_error(self) -> int:
        assert self._upstream is not None, "watched for connecting only"
        return self._upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _connect_failed(self) -> None:
        relay, endpoint, upstream = self._relay, self._endpoint, self._upstream
        assert endpoint is not None
        assert upstream is not None
        relay.engine.poller.close(upstream)
        endpoint.active -= 1
        self._group.failed(endpoint, relay.engine.poller.now)
        self._endpoint = self._upstream = None
        self._connect()

    def _connected(self, events: int) -> None:
        relay, endpoint, upstream = self._relay, self._endpoint, self._upstream
        assert endpoint is not None
        assert upstream is not None
        self._connected_at = self._changed_at = relay.engine.poller.now
        del relay.starting[self]
        relay.flowing.add(self)
        self._group.succeeded(endpoint)
        endpoint.total += 1
        version = relay.config.proxy_protocol
        header = self._client.proxy_header(version, self._sock) if version is not None else b""
        self._flow = Flow(
            relay.engine.poller,
            relay.engine.pipes,
            self._sock,
            upstream,
            to_upstream=header + self._start,
            not_counted=len(header),
            splice=relay.config.splice,
            on_end=self.end,
        )
        self._start = b""
        self._flow.start(events)

    # --------------------------------------------------------------------------------------------- log

    def _write_log(self, reason: str, sent: int, received: int, now: float) -> None:
        log = self._relay.engine.log
        if log.fd is None:
            return
        tried, preface = self._tried, self._preface
        log.write(
            type="tcp",
            relay=self._relay.config.name,
            id=self._client.id,
            client=str(self._client),
            endpoint=self._endpoint.key if self._endpoint is not None else "",
            sent=sent,
            received=received,
            duration_ms=round((now - self._accepted_at) * 1000, 1),
            connect_ms=round((self._connected_at - self._accepted_at) * 1000, 1)
            if self._connected_at
            else None,
            attempts=len(tried) if len(tried) != 1 else None,
            proxy=self._client.proxy or None,
            server_name=preface.server_name if preface is not None else None,
            end=reason,
        )
