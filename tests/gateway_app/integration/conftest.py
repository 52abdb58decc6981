"""A gateway in a process of its own under a real server, and a backend that records what reaches it."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVERS = {
    "hypercorn": ["hypercorn", "-k", "uvloop", "-b", "127.0.0.1:{port}", "gateway_app:app"],
    "granian": [
        *("granian", "--interface", "asgi", "--loop", "uvloop", "--host", "127.0.0.1", "--port", "{port}"),
        *("--log-level", "warning", "gateway_app:app"),
    ],
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RunningGateway:
    """A gateway under `server`, serving the file at `config`."""

    def __init__(self, server: str, config: Path, log: Path) -> None:
        self.server = server
        self.port = free_port()
        self.config = config
        self.log = log
        arguments = [part.format(port=self.port) for part in SERVERS[server]]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**os.environ, "GATEWAY_CONFIG": str(config)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise AssertionError(f"the gateway does not start:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class RecordingBackend:
    """Answers every request with 200 and keeps the heads that arrived, and the bytes behind them."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        backend = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while True:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = self.rfile.readline(65537)
                        if not line:
                            return
                        head += line
                    try:
                        self._read_body(head)
                    except ValueError:  # the body was broken off: no request
                        return
                    backend.requests.append(head)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            def _read_body(self, head: bytes) -> None:
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
                )
                self.rfile.read(int(fields.get(b"content-length", b"0")))
                if fields.get(b"transfer-encoding") == b"chunked":
                    while size := int(self.rfile.readline(), 16):
                        self.rfile.read(size + 2)
                    self.rfile.readline()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def recording_backend() -> Iterator[RecordingBackend]:
    backend = RecordingBackend()
    yield backend
    backend.close()


@pytest.fixture(params=list(SERVERS), scope="session")
def recorded_gateway(
    request: pytest.FixtureRequest,
    recording_backend: RecordingBackend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    config = directory / "routes.toml"
    config.write_text(
        f"""
        [gateway]
        access_log = "off"
        [backends.recorder]
        endpoints = ["http://127.0.0.1:{recording_backend.port}"]
        [[routes]]
        name = "all"
        match = {{ path = "/*" }}
        backend = "recorder"
        """
    )
    gateway = RunningGateway(request.param, config, directory / "log")
    yield gateway
    gateway.stop()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., RunningGateway]]:
    running: list[RunningGateway] = []

    def start(config: str, server: str = "hypercorn") -> RunningGateway:
        path = tmp_path / "routes.toml"
        path.write_text(config)
        gateway = RunningGateway(server, path, tmp_path / "log")
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.stop()
