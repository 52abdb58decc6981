"""A gateway in a process of its own under a real server, and a backend that records what reaches it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

SERVERS = {
    "hypercorn": ["hypercorn", "-k", "uvloop", "-b", "127.0.0.1:{port}", "gateway_app:app"],
    "granian": [
        *("granian", "--interface", "asgi", "--loop", "uvloop", "--host", "127.0.0.1", "--port", "{port}"),
        *("--log-level", "warning", "gateway_app:app"),
    ],
}


NewPort = Callable[[], int]


class RunningGateway:
    """A gateway under `server`, serving the file at `config`."""

    def __init__(self, new_port: NewPort, server: str, config: Path, log: Path) -> None:
        self.server = server
        self.port = new_port()
        self.config = config
        self.log = log
        self._start()

    def _arguments(self) -> list[str]:
        return [part.format(port=self.port) for part in SERVERS[self.server]]

    def _start(self) -> None:
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._arguments()],
                env={**os.environ, "GATEWAY_CONFIG": str(self.config)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _wait(self) -> None:
        """Wait until the server answers; what it is sent is no request, so that the gateway sees none."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as client:
                    client.sendall(b"?\r\n\r\n")
                    client.recv(1)
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise AssertionError(f"the gateway does not start:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class ServedGateway(RunningGateway):
    """`gateway serve`, in the directory of its file, whose PORT and ADMIN_PORT become free ports."""

    def __init__(self, new_port: NewPort, server: str, directory: Path, text: str, *options: str) -> None:
        self.admin_port = new_port()
        self._options = options
        self._text = text
        super().__init__(new_port, server, directory / "routes.toml", directory / "log")

    def _arguments(self) -> list[str]:
        return [
            *("gateway_app", "serve", "--config", str(self.config), "--server", self.server),
            *self._options,
        ]

    def _start(self) -> None:
        self.write(self._text)
        super()._start()

    def write(self, text: str) -> None:
        """Save the file, as an editor does."""
        text = text.replace("ADMIN_PORT", str(self.admin_port)).replace("PORT", str(self.port))
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of the access log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def admin(self, path: str) -> tuple[int, str]:
        """What the admin listener answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def refuses_connections(self) -> bool:
        """Whether nobody listens any more."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Stop, at once if it takes long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)  # the second one ends it at once
                self.process.wait(20)


class Load:
    """Clients that ask one request after the other; what they were answered, and what went wrong."""

    def __init__(self, url: str, method: str = "GET", clients: int = 8) -> None:
        self.seen: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._url = url
        self._method = method
        self._clients = clients
        self._answered = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self) -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            while True:
                try:
                    answer = await client.request(self._method, self._url)
                except httpx.HTTPError as error:
                    self.lost[repr(error)] += 1
                    continue
                (self.seen if answer.status_code == 200 else self.lost)[answer.text] += 1
                self._answered.set()

    async def answers(self, count: int) -> Counter[str]:
        """Wait for so many answers, and give them."""
        before = self.seen.copy()
        async with asyncio.timeout(20):
            while self.seen.total() < before.total() + count:
                self._answered.clear()
                await self._answered.wait()
        return self.seen - before

    async def becomes(self, *expected: str) -> None:
        """Wait until exactly the `expected` answers come."""
        async with asyncio.timeout(20):
            while set(await self.answers(60)) != set(expected):
                pass


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
                    except (ValueError, ConnectionError):  # the body was broken off: no request
                        return
                    backend.requests.append(head)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            def _read_body(self, head: bytes) -> None:
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
                )
                self._read_exactly(int(fields.get(b"content-length", b"0")))
                if fields.get(b"transfer-encoding") == b"chunked":
                    while size := int(self.rfile.readline(), 16):
                        self._read_exactly(size + 2)
                    self._read_exactly(2)

            def _read_exactly(self, size: int) -> None:
                if len(self.rfile.read(size)) < size:
                    raise ValueError

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
    new_port: NewPort,
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
    gateway = RunningGateway(new_port, request.param, config, directory / "log")
    yield gateway
    gateway.stop()


@pytest.fixture
def start_gateway(tmp_path: Path, new_port: NewPort) -> Iterator[Callable[..., RunningGateway]]:
    running: list[RunningGateway] = []

    def start(config: str, server: str = "hypercorn") -> RunningGateway:
        path = tmp_path / "routes.toml"
        path.write_text(config)
        gateway = RunningGateway(new_port, server, path, tmp_path / "log")
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.stop()


@pytest.fixture
def serve_gateway(tmp_path: Path, new_port: NewPort) -> Iterator[Callable[..., ServedGateway]]:
    """Start `gateway serve` with a file's text; PORT and ADMIN_PORT in it become free ports."""
    running: list[ServedGateway] = []

    def serve(text: str, *options: str, server: str = "hypercorn") -> ServedGateway:
        gateway = ServedGateway(new_port, server, tmp_path, text, *options)
        running.append(gateway)
        return gateway

    yield serve
    for gateway in running:
        gateway.close()


@pytest.fixture(scope="session")
def served_gateway(new_port: NewPort) -> Callable[..., ServedGateway]:
    """For modules that share one `gateway serve`."""
    return partial(ServedGateway, new_port)


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until something holds, where nothing can be awaited: another process changes it."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "it did not come to be in time"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def free_ports(new_port: NewPort) -> Callable[[int], list[int]]:
    """Find ports that nobody listens on."""
    return lambda count: [new_port() for _ in range(count)]


@pytest.fixture(scope="session")
def make_load() -> type[Load]:
    """Make a `Load` on a URL."""
    return Load
