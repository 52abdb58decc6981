"""A relay inside the test's own loop, and real servers for it to relay to."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from l4relay.config.load import load
from l4relay.worker import Worker

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait for what has no event."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    return wait_until


class Relay:
    """A running worker, its file and its log."""

    def __init__(self, worker: Worker, path: Path, log: Path) -> None:
        self.worker = worker
        self.path = path
        self._log = log

    @property
    def ports(self) -> dict[str, int]:
        """The port of each relay's first listener, by the relay's name."""
        names = {relay.config.listen[0]: relay.config.name for relay in self.worker.relays}
        return {
            names[listen]: int(str(listener).rpartition(":")[2])
            for listen, listener in self.worker.listeners.items()
            if listen in names
        }

    @property
    def port(self) -> int:
        return next(iter(self.ports.values()))

    def relay(self, name: str = "test") -> dict[str, Any]:
        """What the status says about a relay."""
        relays: list[dict[str, Any]] = self.worker.status()["relays"]
        return next(relay for relay in relays if relay["name"] == name)

    def log(self) -> list[dict[str, Any]]:
        self.worker.engine.log.flush()
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, message: bytes = b"hello") -> bytes:
        """Send, end, and read all of the answer."""
        reader, writer = await self.connect()
        writer.write(message)
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()

    async def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """The log, as soon as it has so many lines."""
        await wait_until(lambda: len(self.log()) >= count)
        return self.log()


StartRelay = Callable[..., Awaitable[Relay]]


@pytest.fixture
async def start_relay(tmp_path: Path) -> AsyncIterator[StartRelay]:
    """Start a relay from a file's text; without a table of its own, one named "test" with these keys."""
    running: list[tuple[Worker, asyncio.Task[int], int]] = []

    async def start(text: str = "", **keys: Any) -> Relay:
        path = tmp_path / f"routes{len(running)}.toml"
        path.write_text(text or relay_table(**keys))
        log = tmp_path / f"log{len(running)}"
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        worker = Worker(path, load(path), log_fd=log_fd)
        task = asyncio.create_task(worker.run())
        running.append((worker, task, log_fd))
        await wait_until(lambda: bool(worker.relays))
        return Relay(worker, path, log)

    yield start
    for worker, task, log_fd in running:
        worker.stop()
        worker.stop()
        await task
        os.close(log_fd)


def relay_table(name: str = "test", listen: str = "tcp://127.0.0.1:0", **keys: Any) -> str:
    """One [[relay]] table; JSON's values are TOML's for what is needed here."""
    lines = [f"{key} = {_toml(value)}" for key, value in {"name": name, "listen": listen, **keys}.items()]
    return "\n".join(["[[relay]]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value)


StartServer = Callable[..., Awaitable[str]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Start a TCP server with a handler; returns its address."""
    servers: list[asyncio.Server] = []

    async def start(handler: Handler | None = None, address: str = "127.0.0.1:0", **more: Any) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await (handler or echo)(reader, writer)
            writer.close()

        host, _, port = address.rpartition(":")
        server = await asyncio.start_server(serve, host, int(port), backlog=4096, **more)
        servers.append(server)
        return f"{host}:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while segment := await reader.read(65536):
        writer.write(segment)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@pytest.fixture
def refused_address(new_port: Callable[[], int]) -> str:
    """An address that nobody listens on."""
    return f"127.0.0.1:{new_port()}"


@pytest.fixture
def free_ports(new_port: Callable[[], int]) -> list[int]:
    """Two ports that nobody has."""
    return [new_port(), new_port()]


@pytest.fixture
def free_port(free_ports: list[int]) -> int:
    return free_ports[0]
