"""UDP: admit → choose → a session with its own connected socket → relay, datagram by datagram.

A session is one client address on one listener. Its socket towards the endpoint is connected, so that only
the endpoint's datagrams arrive there, and an ICMP refusal does, too: it moves the session to the next
endpoint, with the datagram that nobody has answered. Sessions end by `responses`, by `idle_timeout`, or when
`max_sessions` are open and they have been idle the longest; each holds one descriptor, and nothing else
outlives it.
"""

import errno
import logging
import os
import socket
from collections import OrderedDict
from typing import Final

from l4relay.addresses import InetAddress
from l4relay.config.model import RelayConfig
from l4relay.datagrams import ClientAddress, server_calls
from l4relay.endpoints import Endpoint
from l4relay.listener import EXHAUSTED
from l4relay.poller import READABLE
from l4relay.relay import Engine, Relay

_MAX_DATAGRAM: Final = 65_535
_DATAGRAMS_A_TURN: Final = 64
_read: Final = os.read
_write: Final = os.write
"""By descriptor, which Python is quicker with than with a socket's own methods."""

_COMPLAINT_INTERVAL_S: Final = 1.0
_LOCAL_FAULTS: Final = EXHAUSTED | {errno.EAGAIN}  # local ports are used up (udp(7))

_log = logging.getLogger(__name__)


class UdpRelay(Relay):
    """One `[[relay]]` of UDP."""

    def __init__(self, config: RelayConfig, engine: Engine) -> None:
        super().__init__(config, engine)
        self.sessions: OrderedDict[Session, None] = OrderedDict()
        """The longest idle one first."""
        self.touch = self.sessions.move_to_end
        self.poller = engine.poller
        self.responses = config.responses
        self._max_sessions = max(1, config.max_sessions // engine.limits.workers)
        self._silent_until = 0.0

    @property
    def active(self) -> int:
        """Sessions that have not ended."""
        return len(self.sessions)

    def open_session(self, listener: "UdpListener", client: ClientAddress) -> "Session | None":
        """Return a session for a client that has none; None where it is refused or cannot be had."""
        source = client[0]
        refusal = self.admission.admit(source, self.poller.now)
        if refusal is not None:
            self.counts.refused[refusal] += 1
            return None
        self.counts.accepted += 1
        if len(self.sessions) >= self._max_sessions:
            next(iter(self.sessions)).end("max_sessions")
        session = listener.sessions[client] = Session(self, listener, client, source)
        self.sessions[session] = None
        return session if session.connect() else None

    def tick(self, now: float) -> None:
        """End the sessions that have been idle for too long."""
        super().tick(now)
        oldest = now - self.config.idle_timeout
        while self.sessions:
            session = next(iter(self.sessions))
            if session.active_at > oldest:
                break
            session.end("idle_timeout")

    def close_all(self, reason: str) -> None:
        """End every session."""
        for session in list(self.sessions):
            session.end(reason)

    def no_descriptors(self, error: OSError) -> None:
        """Say that none are left, or no ports, at most once a second; one session makes room for the next."""
        if self.poller.now >= self._silent_until:
            self._silent_until = self.poller.now + _COMPLAINT_INTERVAL_S
            _log.error("relay %s: %s: the longest idle session ends", self.config.name, error.strerror)
        if self.sessions:
            next(iter(self.sessions)).end("no_descriptors")


class UdpListener:
    """A bound socket and the sessions of its clients.

    It outlives reloads; `relay` is who opens new sessions, None when there are to be none.
    """

    def __init__(self, sock: socket.socket, relay: UdpRelay) -> None:
        self._poller = relay.poller
        self._sock = sock
        self._receive, self.send_to = server_calls(sock)
        self.relay: UdpRelay | None = relay
        self.sessions: dict[ClientAddress, Session] = {}
        self._poller.watch(sock, self._on_ready, READABLE)

    def __str__(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"udp://{InetAddress(host, port)}"

    @property
    def is_open(self) -> bool:
        """Whether the socket is still there."""
        return self.relay is not None or bool(self.sessions)

    def retire(self) -> None:
        """Take no new clients; the socket closes with the last session, unless there is a relay again."""
        self.relay = None
        if not self.is_open:
            self._poller.close(self._sock)

    def forget(self, client: ClientAddress) -> None:
        """Drop a session that has ended."""
        del self.sessions[client]
        if not self.is_open:
            self._poller.close(self._sock)

    def _on_ready(self, events: int) -> None:
        receive, sessions = self._receive, self.sessions
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                datagram, client = receive(_MAX_DATAGRAM)
            except OSError:  # nothing more for now; or an ICMP error for a reply, whose session will learn it
                return
            session = sessions.get(client)
            if session is None:
                session = self.relay.open_session(self, client) if self.relay is not None else None
                if session is None:
                    continue
            session.forward(datagram)


def _connected_socket(endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(endpoint.address)
    except OSError:
        sock.close()
        raise
    return sock


class Session:
    """One client's datagrams.

    Args:
        client: Its address as the listener's socket gives it.
        source: Its IP address in plain form.

    Attributes:
        active_at: Monotonic time of the last datagram, either way.

    """

    __slots__ = (
        *("_client", "_group", "_has_answered", "_id", "_listener", "_opened_at", "_received", "_relay"),
        *("_received_bytes", "_sent", "_sent_bytes", "_source", "_tried", "_unanswered", "_upstream"),
        *("_upstream_fd", "active_at"),
    )

    _upstream: socket.socket

    def __init__(self, relay: UdpRelay, listener: UdpListener, client: ClientAddress, source: str) -> None:
        self._relay = relay
        self._listener = listener
        self._client = client
        self._source = source
        self._group = relay.names.default
        self._tried: tuple[Endpoint, ...] = ()
        self._upstream_fd = -1  # else `_upstream` leads to the last one of those
        self._has_answered = False
        self._unanswered: bytes | None = None
        self._sent = self._received = self._sent_bytes = self._received_bytes = 0
        self._opened_at = self.active_at = relay.poller.now
        self._id = relay.engine.new_id()

    def connect(self) -> bool:
        """Turn to the next endpoint; false, and the session has ended, when there is none left."""
        fault: OSError | None = None
        while (endpoint := self._group.choose(self._source, self._tried)) is not None:
            self._tried = (*self._tried, endpoint)
            try:
                self._upstream = _connected_socket(endpoint)
            except OSError as error:
                if error.errno in _LOCAL_FAULTS:  # not the endpoint's; another may be of another family
                    fault = error
                else:
                    self._group.failed(endpoint, self.active_at)
                continue
            self._upstream_fd = self._upstream.fileno()
            self._has_answered = False
            endpoint.active += 1
            endpoint.total += 1
            self._relay.poller.watch(self._upstream, self._on_ready, READABLE)
            return True
        if fault is not None:
            self.end("no_descriptors")
            self._relay.no_descriptors(fault)
        else:
            self.end("refused" if self._tried else "no_endpoint")
        return False

    def forward(self, datagram: bytes) -> None:
        """Send a client's datagram to the endpoint."""
        relay = self._relay
        self.active_at = relay.poller.now
        relay.touch(self)
        self._sent += 1
        self._sent_bytes += len(datagram)
        self._unanswered = datagram
        self._send(datagram)

    def end(self, reason: str) -> None:
        """Close, count and log; once."""
        relay = self._relay
        del relay.sessions[self]
        self._let_go()
        self._listener.forget(self._client)
        relay.admission.release(self._source)
        relay.count_end(reason, self._sent_bytes, self._received_bytes)
        self._write_log(reason)

    def _send(self, datagram: bytes) -> None:
        try:
            _write(self._upstream_fd, datagram)
        except ConnectionRefusedError:
            self._refused()
        except OSError:
            return  # a full queue, too long for the path, no route just now: lost, as on any other link

    def _on_ready(self, events: int) -> None:
        try:
            datagram = _read(self._upstream_fd, _MAX_DATAGRAM)
        except ConnectionRefusedError:
            self._refused()
            return
        except OSError:  # nothing there after all; or an ICMP error other than a refusal
            return
        relay = self._relay
        self.active_at = relay.poller.now
        relay.touch(self)
        self._received += 1
        self._received_bytes += len(datagram)
        self._unanswered = None
        try:  # noqa: SIM105 - `suppress` takes as long as all the lines above
            self._listener.send_to(datagram, self._client)
        except OSError:
            pass  # what the kernel does not take is lost, as on any other link
        if not self._has_answered:
            self._has_answered = True
            self._group.succeeded(self._tried[-1])
        if relay.responses and self._received >= relay.responses * self._sent:
            self.end("responses")

    def _refused(self) -> None:
        """Move to the next endpoint, and ask it what the last one was asked."""
        self._group.failed(self._tried[-1], self._relay.poller.now)
        self._let_go()
        if self._has_answered:  # since then, those that refused before it may be back
            self._tried = self._tried[-1:]
        if self.connect() and self._unanswered is not None:
            self._send(self._unanswered)

    def _let_go(self) -> None:
        if self._upstream_fd >= 0:
            self._relay.poller.close(self._upstream)
            self._upstream_fd = -1
            self._tried[-1].active -= 1

    def _write_log(self, reason: str) -> None:
        relay, tried = self._relay, self._tried
        if relay.engine.log.fd is None:
            return
        relay.engine.log.write(
            type="udp",
            relay=relay.config.name,
            id=self._id,
            client=str(InetAddress(self._source, self._client[1])),
            endpoint=tried[-1].key if self._sent else "",
            sent=self._sent_bytes,
            received=self._received_bytes,
            duration_ms=round((relay.poller.now - self._opened_at) * 1000, 1),
            datagrams_sent=self._sent,
            datagrams_received=self._received,
            attempts=len(tried) if len(tried) != 1 else None,
            end=reason,
        )
