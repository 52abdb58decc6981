"""A gibibyte each way through a peer that stops reading again and again: next to none of it is held."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SIZE = 1 << 30
MAY_GROW = 24 << 20
PIECE = bytes(range(256)) * 1024
BURSTS = 4
DEADLINE_S = 50.0

CONFIG = """
[gateway]
access_log = "off"
max_body = "4GB"
[backends.peer]
endpoints = ["http://127.0.0.1:PORT"]
[[routes]]
name = "all"
match = { path = "/*" }
backend = "peer"
"""


class Flow:
    """A body on its way: who sends counts, and who receives stops reading again and again."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.held_back = 0

    def send(self, connection: socket.socket) -> None:
        while self.sent < SIZE:
            connection.sendall(PIECE)
            self.sent += len(PIECE)

    def receive(self, connection: socket.socket, first: bytes) -> None:
        assert first == (PIECE * 2)[: len(first)]
        self.received = len(first)
        buffer = bytearray(1 << 20)
        for burst in range(1, BURSTS + 1):
            self._wait_until_nothing_moves()
            self.held_back = max(self.held_back, self.sent - self.received)
            while self.received < SIZE * burst // BURSTS:
                count = connection.recv_into(buffer)
                assert count, "the body was cut"
                self.received += count

    def _wait_until_nothing_moves(self) -> None:
        seen = -1
        while seen != self.sent:
            seen = self.sent
            time.sleep(0.1)


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head, and what has come of the body with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


@contextmanager
def peer(flow: Flow) -> Iterator[int]:
    """An endpoint that takes a body with PUT, gives one with GET, and says a word with HEAD."""

    def serve() -> None:
        connection = listening.accept()[0]
        with connection:
            connection.settimeout(DEADLINE_S)
            while True:
                head, rest = read_head(connection)
                if head.startswith(b"PUT"):
                    flow.receive(connection, rest)
                length = SIZE if head.startswith(b"GET") else 0
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
                if length:
                    flow.send(connection)
                if not head.startswith(b"HEAD"):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def peak_bytes(pid: int) -> int:
    """The most memory that each process of the gateway has had since it was forgotten, together."""
    peaks = 0
    for each in tree(pid):
        status = Path(f"/proc/{each}/status").read_text()
        peaks += int(status.split("VmHWM:")[1].split()[0]) * 1024
    return peaks


def forget_peak(pid: int) -> None:
    for each in tree(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_large_body_through_a_slow_peer_leaves_memory_flat(
    method: str, server: str, start_gateway: Callable[..., Any]
) -> None:
    flow = Flow()
    with peer(flow) as port:
        gateway = start_gateway(CONFIG.replace("PORT", str(port)), server)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE_S) as client:
            client.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_head(client)[0].startswith(b"HTTP/1.1 200")
            forget_peak(gateway.process.pid)
            before = peak_bytes(gateway.process.pid)
            length = SIZE if method == "PUT" else 0
            head = f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
            client.sendall(head.encode())
            if method == "PUT":
                flow.send(client)
            head_of_answer, rest = read_head(client)
            assert head_of_answer.startswith(b"HTTP/1.1 200")
            if method == "GET":
                flow.receive(client, rest)
        grown = peak_bytes(gateway.process.pid) - before

    assert flow.received == flow.sent == SIZE
    assert flow.held_back < SIZE / 4, "what is between the two is in the gateway or in the kernel"
    assert grown < MAY_GROW
