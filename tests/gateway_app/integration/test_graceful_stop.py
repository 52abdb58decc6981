"""A stop as an orchestrator does it: nothing new comes in, what runs may finish, nobody waits for ever."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

SERVERS = ["hypercorn", "granian"]

CONFIG = """
[gateway]
listen = ["127.0.0.1:PORT"]
access_log = "json"
drain = "DRAIN"
[admin]
listen = "127.0.0.1:ADMIN_PORT"
[backends.slow]
endpoints = ["http://127.0.0.1:ENDPOINT"]
[[routes]]
name = "slow"
match = { path = "/slow/*" }
backend = "slow"
[[routes]]
name = "quick"
respond = { body = "quick" }
"""


class HeldEndpoint:
    """Answers each request with half of a body at once, and with the rest when it is released.

    For /slow/silent there is nothing at once.
    """

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.released = threading.Event()
        self.left = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            if b"/slow/silent" not in connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            self.arrived.set()
            connection.settimeout(0.01)
            while not self.released.is_set():
                try:
                    if connection.recv(1):
                        continue
                except TimeoutError:
                    continue
                except ConnectionError:
                    pass
                self.left.set()
                return
            with suppress(ConnectionError):  # at the end of a test the gateway may have gone
                connection.sendall(b"-last")

    def close(self) -> None:
        self.released.set()
        self._listener.close()


@pytest.fixture
def endpoint() -> Iterator[HeldEndpoint]:
    endpoint = HeldEndpoint()
    yield endpoint
    endpoint.close()


def config(endpoint: HeldEndpoint, drain: str) -> str:
    return CONFIG.replace("ENDPOINT", str(endpoint.port)).replace("DRAIN", drain)


def begin(gateway: Any, endpoint: HeldEndpoint) -> http.client.HTTPResponse:
    """Have a request of which the answer has begun."""
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    client.request("GET", "/slow", headers={"Connection": "close"})
    answer = client.getresponse()
    assert answer.read(5) == b"first"
    assert endpoint.arrived.wait(20)
    return answer


@pytest.mark.parametrize("server", SERVERS)
def test_what_runs_finishes_while_readyz_sends_others_away(
    serve_gateway: Any, endpoint: HeldEndpoint, eventually: Callable[..., None], server: str
) -> None:
    gateway = serve_gateway(config(endpoint, "30s"), server=server)
    assert gateway.admin("/readyz") == (200, "ready\n")
    with closing(begin(gateway, endpoint)) as answer:
        gateway.process.terminate()
        eventually(lambda: gateway.admin("/readyz") == (503, "not ready\n"))
        eventually(gateway.refuses_connections)
        assert gateway.admin("/healthz")[0] == 200
        status = json.loads(gateway.admin("/status")[1])
        assert status["in_flight"] == 1
        assert [worker["ready"] for worker in status["workers"]] == [False]

        endpoint.released.set()
        assert answer.read() == b"-last"
    assert gateway.process.wait(20) == 0
    assert [(line["path"], line["status"], line["bytes_out"]) for line in gateway.access_log()] == [
        ("/slow", 200, 10)
    ]


@pytest.mark.parametrize("server", SERVERS)
def test_what_runs_longer_than_drain_is_cut(serve_gateway: Any, endpoint: HeldEndpoint, server: str) -> None:
    gateway = serve_gateway(config(endpoint, "500ms"), server=server)
    with closing(begin(gateway, endpoint)) as answer:
        gateway.process.terminate()
        gateway.process.wait(20)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    assert endpoint.left.wait(20)


def test_who_has_no_answer_when_drain_is_over_is_told_so(serve_gateway: Any, endpoint: HeldEndpoint) -> None:
    """Under hypercorn; granian kills its workers."""
    gateway = serve_gateway(config(endpoint, "500ms"))
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)) as client:
        client.request("GET", "/slow/silent")
        assert endpoint.arrived.wait(20)
        gateway.process.terminate()
        answer = client.getresponse()
        assert answer.status == 503
        assert answer.getheader("connection") == "close"
        assert json.loads(answer.read())["cause"] == "draining"
    assert gateway.process.wait(20) == 0
    assert [(line["status"], line["error"]) for line in gateway.access_log()] == [(503, "draining")]
    assert "Traceback" not in gateway.log.read_text()


def test_over_http2_the_stop_does_not_wait_for_who_has_no_answer(
    serve_gateway: Any, endpoint: HeldEndpoint
) -> None:
    """hypercorn cancels its task that sends bodies, too: nobody would take the body of an answer."""
    gateway = serve_gateway(config(endpoint, "500ms"))

    def ask() -> None:
        with httpx.Client(http1=False, http2=True, timeout=20) as client, suppress(httpx.TransportError):
            client.get(f"http://127.0.0.1:{gateway.port}/slow/silent")

    asking = threading.Thread(target=ask)
    asking.start()
    assert endpoint.arrived.wait(10)
    gateway.process.terminate()
    assert gateway.process.wait(20) == 0
    asking.join(20)
    assert [(line["status"], line["error"]) for line in gateway.access_log()] == [(503, "draining")]
    log = gateway.log.read_text()
    assert "killing" not in log
    assert "Traceback" not in log, log


@pytest.mark.parametrize("server", SERVERS)
def test_nobody_waits_for_an_idle_gateway(serve_gateway: Any, endpoint: HeldEndpoint, server: str) -> None:
    """Idle connections, also those that never asked anything, hold nothing up: `drain` is far away."""
    gateway = serve_gateway(config(endpoint, "30s"), server=server)
    silent = [socket.create_connection(("127.0.0.1", port)) for port in (gateway.port, gateway.admin_port)]
    kept = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"quick"
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0
    finally:
        kept.close()
        for client in silent:
            client.close()
