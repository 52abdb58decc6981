"""Resident memory per connection: idle keep-alive clients, and clients that download slowly.

Linux's loopback would hide a proxy's buffers: with 64 KiB segments the kernel takes megabytes for
every socket. The slow clients therefore announce the segment size of an Ethernet (1,460 bytes) and a
small receive buffer, as clients across the Internet do, and the body is larger than what sockets hold.
"""

import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.subjects import RunningSubject

IDLE_CLIENTS = 2000
SLOW_DOWNLOADS = 1000
SUBJECT_NAMES = ("gateway-granian", "gateway-hypercorn", "envoy", "nginx")
_SEGMENT_BYTES = 1460
_RECEIVE_BUFFER_BYTES = 32 * 1024
_READ_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """Resident memory of one server's process tree before and during a scenario."""

    before_bytes: int
    during_bytes: int
    connections: int

    @property
    def per_connection_bytes(self) -> float:
        """Growth for each connection held open."""
        return (self.during_bytes - self.before_bytes) / self.connections


def raise_file_limit() -> None:
    """Allow this process, and the servers it starts, as many files as the system lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def idle_clients(server: RunningSubject, count: int) -> Figure:
    """Hold `count` keep-alive connections that have each had one answer."""
    before = server.process.rss_bytes()
    with _connections(server, count, slow=False) as clients:
        for client in clients:
            client.sendall(_request(server, "/small"))
            _read_answer(client)
        return Figure(before, server.process.rss_bytes(), count)


def slow_downloads(server: RunningSubject, count: int, duration_s: float) -> Figure:
    """Hold `count` downloads open whose clients each read a few KiB now and then, for `duration_s`."""
    before = server.process.rss_bytes()
    peak = before
    with _connections(server, count, slow=True) as clients, selectors.DefaultSelector() as selector:
        for client in clients:
            client.sendall(_request(server, "/slow"))
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            _read_a_little(selector)
            peak = max(peak, server.process.rss_bytes())
            time.sleep(0.25)
    return Figure(before, peak, count)


def _read_a_little(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(0):
        assert isinstance(key.fileobj, socket.socket)
        if not key.fileobj.recv(_READ_BYTES):
            raise ConnectionError("a slow download was cut off")


@contextmanager
def _connections(server: RunningSubject, count: int, *, slow: bool) -> Iterator[list[socket.socket]]:
    address = urlsplit(server.url)
    clients: list[socket.socket] = []
    try:
        for _ in range(count):
            client = socket.socket()
            clients.append(client)
            if slow:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            client.settimeout(10)
            client.connect((address.hostname, address.port))
        yield clients
    finally:
        for client in clients:
            client.close()


def _request(server: RunningSubject, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\n\r\n".encode()


def _read_answer(client: socket.socket) -> None:
    """Read one whole /small answer: its body ends with the only `"}` of the message."""
    received = b""
    while not received.endswith(b'"}'):
        piece = client.recv(4096)
        if not piece:
            raise ConnectionError(f"the server closed after {received!r}")
        received += piece
