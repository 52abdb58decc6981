"""The load: one process holds both ends, client and server, behind one raw epoll set.

So it costs little beside the relay between them, which has the other core, and every relay gets the same
load. A handler is as short as the workload allows; counting happens on the client's end only.
"""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench.l4.subjects import free_port

_MESSAGE = b"x" * 100
_CHUNK = bytes(256 * 1024)
_READ = 1 << 20
_DISCARD = socket.MSG_TRUNC  # tcp(7): received bytes are dropped in the kernel and only counted
_UDP_CLIENTS = "127.0.0.9"
"""An address of their own, where nobody else has ports."""
_CLIENT_ADDRESSES = [(f"127.0.1.{host}", port) for host in range(1, 6) for port in range(10_000, 15_000)]
"""Below the ephemeral range and not 127.0.0.1, which the relay needs for as many sockets of its own."""
_MAX_UNANSWERED = 20
"""A relay that leaves more without an answer is full: no use in waiting for the others."""
_SILENCE_S = 0.25
"""After so long without an event, datagrams are taken as lost and others sent in their place."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What came through in a window, in the workload's unit, and how long the window was."""

    units: float
    seconds: float


class Server:
    """The service's TCP and UDP sockets, on one port of loopback."""

    def __init__(self) -> None:
        self.port = free_port()
        self.tcp = socket.create_server(("127.0.0.1", self.port), backlog=4096)
        self.tcp.settimeout(10)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.udp.setblocking(False)

    def close(self) -> None:
        """Close both."""
        self.tcp.close()
        self.udp.close()

    def forget_waiting(self) -> None:
        """Close connections that nobody took, such as those of a relay's health check or a start-up probe."""
        self.tcp.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.tcp.accept()[0].close()
        with suppress(BlockingIOError):
            while True:
                self.udp.recv(65_535)
        self.tcp.settimeout(10)


@contextmanager
def connected(
    server: Server, port: int, count: int
) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """Open connections through the relay on `port`: the clients' ends and the server's, in any order."""
    server.forget_waiting()
    clients: list[socket.socket] = []
    servers: list[socket.socket] = []
    try:
        for _ in range(count):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            servers.append(server.tcp.accept()[0])
        for sock in clients + servers:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        yield clients, servers
    finally:
        for sock in clients + servers:
            sock.close()


class Exchanges:
    """Small messages to and fro over kept-open connections; the unit is an exchange."""

    CONNECTIONS = 32

    def __init__(self, server: Server, port: int) -> None:
        self._server, self._port = server, port

    @contextmanager
    def prepared(self) -> Iterator["Exchanges"]:
        """Open the connections and set the messages going."""
        with (
            connected(self._server, self._port, self.CONNECTIONS) as (clients, servers),
            select.epoll() as epoll,
        ):
            self._epoll = epoll
            self._sockets = {sock.fileno(): sock for sock in clients + servers}
            self._client_fds = {sock.fileno() for sock in clients}
            for fd in self._sockets:
                epoll.register(fd, select.EPOLLIN)
            for sock in clients:
                sock.send(_MESSAGE)
            yield self

    def run(self, seconds: float) -> Counted:
        """Answer every message with a message, at both ends."""
        poll, sockets, clients = self._epoll.poll, self._sockets, self._client_fds
        count = 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            for fd, _ in poll(1):
                sock = sockets[fd]
                sock.send(sock.recv(4096))
                if fd in clients:
                    count += 1
        return Counted(count, elapsed)


class Bulk:
    """One download as fast as it goes; the unit is a gigabyte (10^9 bytes)."""

    def __init__(self, server: Server, port: int) -> None:
        self._server, self._port = server, port

    @contextmanager
    def prepared(self) -> Iterator["Bulk"]:
        """Open the connection."""
        with connected(self._server, self._port, 1) as ((client,), (sender,)), select.epoll() as epoll:
            self._epoll, self._client, self._sender = epoll, client, sender
            epoll.register(client, select.EPOLLIN)
            epoll.register(sender, select.EPOLLOUT)
            yield self

    def run(self, seconds: float) -> Counted:
        """Send and receive."""
        poll, receive, send = self._epoll.poll, self._client.recv_into, self._sender.send
        client_fd = self._client.fileno()
        room = bytearray(_READ)
        received = 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            for fd, _ in poll(1):
                if fd == client_fd:
                    received += receive(room, _READ, _DISCARD)
                else:
                    send(_CHUNK)
        return Counted(received / 1e9, elapsed)


class Connections:
    """Open, one exchange, close, sixteen at a time; the unit is a connection."""

    AT_ONCE = 16

    def __init__(self, server: Server, port: int) -> None:
        self._server, self._address = server, ("127.0.0.1", port)

    @contextmanager
    def prepared(self) -> Iterator["Connections"]:
        """Set the first connections going."""
        self._server.forget_waiting()
        self._server.tcp.setblocking(False)
        self._clients: dict[int, socket.socket] = {}
        self._servers: dict[int, socket.socket] = {}
        with select.epoll() as self._epoll:
            self._epoll.register(self._server.tcp, select.EPOLLIN)
            for _ in range(self.AT_ONCE):
                self._open()
            try:
                yield self
            finally:
                for sock in [*self._clients.values(), *self._servers.values()]:
                    sock.close()
                self._server.tcp.settimeout(10)

    def run(self, seconds: float) -> Counted:
        """Open the next connection for each that has had its exchange."""
        poll, listener, servers = self._epoll.poll, self._server.tcp.fileno(), self._servers
        count = 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            for fd, events in poll(1):
                if fd == listener:
                    self._accept()
                elif fd in servers:
                    self._serve(fd)
                elif self._proceed(fd, events):
                    count += 1
        return Counted(count, elapsed)

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        self._clients[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLOUT)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._server.tcp.accept()
                sock.setblocking(False)
                self._servers[sock.fileno()] = sock
                self._epoll.register(sock, select.EPOLLIN)

    def _serve(self, fd: int) -> None:
        message = self._servers[fd].recv(4096)
        if message:
            self._servers[fd].send(message)
        else:
            self._servers.pop(fd).close()

    def _proceed(self, fd: int, events: int) -> bool:
        """Send once the connection is there; close it when the answer is; true if that was an exchange."""
        sock = self._clients[fd]
        if events & select.EPOLLIN:
            answer = sock.recv(4096)
            self._clients.pop(fd).close()
            self._open()
            return answer == _MESSAGE
        sock.send(_MESSAGE)
        self._epoll.modify(fd, select.EPOLLIN)
        return False


class Datagrams:
    """Request and reply over many client ports in turn, a few in flight; the unit is a round trip."""

    PORTS = 1000
    IN_FLIGHT = 32
    _PORT_NUMBERS = range(20_000, 20_000 + PORTS)
    """The same in each round: others would leave sessions behind until the system has no ports left."""

    def __init__(self, server: Server, port: int) -> None:
        self._server, self._address = server, ("127.0.0.1", port)

    @contextmanager
    def prepared(self) -> Iterator["Datagrams"]:
        """Open the clients' ports; the first requests are sent by `run`."""
        self._server.forget_waiting()
        self._clients = [_udp_client(self._address, (_UDP_CLIENTS, port)) for port in self._PORT_NUMBERS]
        try:
            with select.epoll() as self._epoll:
                self._sockets = {client.fileno(): client for client in self._clients}
                self._epoll.register(self._server.udp, select.EPOLLIN)
                for client in self._clients:
                    self._epoll.register(client, select.EPOLLIN)
                self._next = 0
                self._start()
                yield self
        finally:
            for client in self._clients:
                client.close()

    def run(self, seconds: float) -> Counted:
        """Send the next port's request for each reply."""
        poll, sockets, clients, server = self._epoll.poll, self._sockets, self._clients, self._server.udp
        server_fd = server.fileno()
        turn, count = self._next, 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            events = poll(_SILENCE_S)
            if not events:
                self._start()
            for fd, _ in events:
                if fd == server_fd:
                    server.sendto(*server.recvfrom(2048))
                else:
                    sockets[fd].recv(2048)
                    count += 1
                    turn = (turn + 1) % self.PORTS
                    clients[turn].send(_MESSAGE)
        self._next = turn
        return Counted(count, elapsed)

    def _start(self) -> None:
        for number in range(self.IN_FLIGHT):
            self._clients[(self._next - number) % self.PORTS].send(_MESSAGE)


Workload = Exchanges | Bulk | Connections | Datagrams


@contextmanager
def idle_connections(server: Server, port: int, count: int) -> Iterator[int]:
    """Hold connections that have had one exchange and are idle now; give how many."""
    with connected(server, port, count) as (clients, servers):
        for sock in clients + servers:
            sock.settimeout(10)
        for sock in clients:
            sock.send(_MESSAGE)
        for sock in servers:
            sock.send(sock.recv(4096))
        for sock in clients:
            sock.recv(4096)
        yield count


@contextmanager
def idle_sessions(server: Server, port: int, count: int) -> Iterator[int]:
    """Hold UDP client ports that have had one round trip each; give how many have."""
    server.forget_waiting()
    clients = []
    answered = 0
    server.udp.settimeout(1)
    try:
        for number in range(count):
            client = _udp_client(("127.0.0.1", port), _CLIENT_ADDRESSES[number % len(_CLIENT_ADDRESSES)])
            clients.append(client)
            client.settimeout(1)
            client.send(_MESSAGE)
            with suppress(TimeoutError):
                server.udp.sendto(*server.udp.recvfrom(2048))
                client.recv(2048)
                answered += 1
            if len(clients) - answered > _MAX_UNANSWERED:
                break
        yield answered
    finally:
        server.udp.setblocking(False)
        for client in clients:
            client.close()


def _udp_client(address: tuple[str, int], own: tuple[str, int] | None = None) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    if own is not None:
        client.bind(own)
    client.connect(address)
    return client
