"""The command as it is run: checking, workers, signals, reload and drain under traffic."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from l4relay import __main__ as command_module
from l4relay import worker as worker_module
from l4relay.worker import Worker


class Command:
    """A running `python -m l4relay`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self.lines: list[dict[str, Any]] = []
        self._reading = [
            asyncio.create_task(self._read_messages()),
            asyncio.create_task(self._read_log()),
        ]

    async def _read_messages(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(json.loads(line))

    @property
    def workers(self) -> list[int]:
        """The ids of the processes that have begun to listen."""
        return [int(pid) for pid in re.findall(r"l4relay\[(\d+)\] INFO: relay test", self.said)]

    async def wait(self) -> int:
        status = await asyncio.wait_for(self.process.wait(), 30)
        await asyncio.gather(*self._reading)
        return status


Start = Callable[..., Awaitable[Command]]


@pytest.fixture
async def start(until: Any) -> AsyncIterator[Start]:
    running: list[Command] = []

    async def start_command(path: Path, *arguments: str, says: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "l4relay", str(path), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        command = Command(process)
        running.append(command)
        await until(lambda: says in command.said or process.returncode is not None)
        return command

    yield start_command
    for command in running:
        if command.process.returncode is None:
            command.process.kill()
            await command.wait()


StartWorkers = Callable[..., Awaitable[Command]]


@pytest.fixture
def start_workers(start: Start, start_server: Any, tmp_path: Path, until: Any) -> StartWorkers:
    """Start so many of them on a port, and wait until each listens."""

    async def started(count: int, port: int, *, admin: int = 0, relay: str = "") -> Command:
        path = tmp_path / "routes.toml"
        process = f"workers = {count}\n" + (f'admin = "127.0.0.1:{admin}"' if admin else "")
        write_config(path, await start_server(), port, process=process, relay=relay)
        command = await start(path, says="metrics and status" if admin else "listens on")
        await until(lambda: command.said.count("listens on") == count)
        return command

    return started


def write_config(path: Path, endpoint: str, port: int, process: str = "", relay: str = "") -> None:
    path.write_text(
        f'[l4relay]\n{process}\n[[relay]]\nname = "test"\nlisten = "127.0.0.1:{port}"\n'
        f'endpoints = ["{endpoint}"]\n{relay}\n'
    )


async def converse(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert await asyncio.wait_for(reader.read(1), 5) == b"x"
    return reader, writer


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    return body


async def test_check_says_all_that_is_wrong_and_where(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "routes.toml"
    path.write_text('[[relay]]\nname = "a"\nlisten = "127.0.0.1:1"\nendpoint = ["b:1"]\nidle_timeout = 5\n')
    command = await start(path, "--check", says="idle_timeout")
    assert await command.wait() == 2
    assert f'{path}:4: relay[0].endpoint: is no known key; did you mean "endpoints"?' in command.said
    assert f"{path}:5: relay[0].idle_timeout: expected a duration with its unit" in command.said


async def test_a_taken_address_is_said(tmp_path: Path, start: Start, start_server: Any) -> None:
    taken = await start_server()
    path = tmp_path / "routes.toml"
    write_config(path, taken, int(taken.rpartition(":")[2]))
    command = await start(path, says="cannot listen")
    assert await command.wait() == 1
    assert f"cannot listen on tcp://{taken}: Address already in use" in command.said


def test_a_file_that_changes_once_it_is_read_is_read_again(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "routes.toml"
    write_config(path, "127.0.0.1:9", free_port)
    reloaded: list[bool] = []

    def change_file() -> None:
        """What main does between reading the file and making the worker."""
        write_config(path, "127.0.0.1:9", free_port, relay='idle_timeout = "60s"')

    async def reload(self: Worker) -> bool:
        reloaded.append(await real_reload(self))
        self.stop()
        return reloaded[-1]

    real_reload = Worker.reload
    monkeypatch.setattr(Worker, "reload", reload)
    monkeypatch.setattr(command_module, "raise_descriptor_limit", change_file)
    monkeypatch.setattr(worker_module, "_FILE_POLL_S", 0.01)
    give_up = threading.Timer(10, os.kill, (os.getpid(), signal.SIGTERM))
    give_up.start()
    try:
        assert command_module.main([str(path)]) == 0
    finally:
        give_up.cancel()
    assert reloaded == [True]


async def test_term_drains_and_a_second_one_ends(
    tmp_path: Path, start: Start, start_server: Any, free_port: int, until: Any
) -> None:
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port)
    command = await start(path, says="listens on")
    reader, writer = await converse(free_port)
    command.process.send_signal(signal.SIGTERM)
    await until(lambda: "draining 1" in command.said)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", free_port)
    writer.write(b"still here")
    assert await reader.read(10) == b"still here"
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0
    writer.close()
    assert [line["end"] for line in command.lines] == ["stopped"]


async def test_drain_ends_with_the_last_connection(
    tmp_path: Path, start: Start, start_server: Any, free_port: int, until: Any
) -> None:
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port)
    command = await start(path, says="listens on")
    _, writer = await converse(free_port)
    command.process.send_signal(signal.SIGTERM)
    await until(lambda: "draining 1" in command.said)
    writer.close()
    assert await command.wait() == 0
    assert [line["end"] for line in command.lines] == ["client_closed"]


async def test_drain_under_traffic_breaks_nothing(
    tmp_path: Path, start: Start, start_server: Any, free_port: int, until: Any
) -> None:
    """Those that are in the middle of it go on, at full speed, until they are done."""
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port)
    command = await start(path, says="listens on")
    is_draining = asyncio.Event()
    message = b"x" * 10_000

    async def talk() -> int:
        reader, writer = await converse(free_port)
        connected.release()
        exchanges, left = 0, 50
        while left:
            writer.write(message)
            assert await asyncio.wait_for(reader.readexactly(len(message)), 10) == message
            exchanges += 1
            left -= is_draining.is_set()
        writer.close()
        return 1 + exchanges * len(message)

    connected = asyncio.Semaphore(0)
    talking = [asyncio.create_task(talk()) for _ in range(20)]
    for _ in talking:
        await connected.acquire()
    command.process.send_signal(signal.SIGTERM)
    await until(lambda: "draining" in command.said)
    is_draining.set()
    sizes = await asyncio.gather(*talking)
    assert await command.wait() == 0
    assert {line["end"] for line in command.lines} == {"client_closed"}
    assert sorted(line["sent"] for line in command.lines) == sorted(sizes)
    assert sorted(line["received"] for line in command.lines) == sorted(sizes)


async def test_reload_under_traffic_breaks_nothing(
    tmp_path: Path, start: Start, start_server: Any, free_port: int, until: Any
) -> None:
    """A changed file counts for new connections; a bad one for none; those that there are stay."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            writer.write(b"o")

    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port)
    command = await start(path, says="listens on")
    established = [await converse(free_port) for _ in range(20)]
    answers = set()
    stop = asyncio.Event()

    async def keep_connecting() -> None:
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
            writer.write(b"x")
            answers.add(await asyncio.wait_for(reader.read(1), 5))
            writer.close()

    traffic = asyncio.create_task(keep_connecting())
    path.write_text("nonsense")
    command.process.send_signal(signal.SIGHUP)
    await until(lambda: "not valid TOML" in command.said)
    assert answers == {b"x"}
    write_config(path, await start_server(other), free_port)  # noticed without a signal
    await until(lambda: "reloaded" in command.said)
    await until(lambda: answers == {b"x", b"o"})
    stop.set()
    await traffic
    for reader, writer in established:
        writer.write(b"x")
        assert await asyncio.wait_for(reader.read(1), 5) == b"x"
        writer.close()


async def test_workers_share_port_limits_and_status(
    start_workers: StartWorkers, free_ports: list[int], until: Any
) -> None:
    port, admin = free_ports
    command = await start_workers(3, port, admin=admin, relay="max_connections_per_source = 10")
    kept = []
    for _ in range(30):
        with contextlib.suppress(ConnectionResetError, AssertionError):  # refused
            kept.append((await converse(port))[1])
    assert len(kept) == 10
    status = json.loads(await get(admin, "/status"))
    [relay] = status["relays"]
    assert (status["workers"], relay["active"]) == (3, 10)
    assert relay["refused"] == {"max_connections_per_source": 20}
    metrics = await get(admin, "/metrics")
    assert 'l4relay_active{relay="test",transport="tcp"} 10' in metrics
    for writer in kept:
        writer.close()
    await until(lambda: len(command.lines) == 30)

    # A worker that is killed leaves its counts behind no more than its place.
    worker = command.workers[0]
    os.kill(worker, signal.SIGKILL)
    await until(lambda: command.said.count("listens on") == 4)
    _, writer = await converse(port)
    writer.close()
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
async def test_standard_input_and_output_may_be_closed(
    tmp_path: Path, start_server: Any, free_port: int, until: Any, workers: int, closed: str
) -> None:
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port, process=f"workers = {workers}")
    relay = await asyncio.create_subprocess_shell(f"exec {sys.executable} -m l4relay {path} {closed}")

    def is_up_or_over() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", free_port)) == 0 or relay.returncode is not None

    try:
        await until(is_up_or_over)
    finally:
        with contextlib.suppress(ProcessLookupError):
            relay.terminate()
    assert await asyncio.wait_for(relay.wait(), 30) == 0


async def test_a_signal_to_all_processes_drains_and_does_not_end(
    start_workers: StartWorkers, free_port: int, until: Any
) -> None:
    """What a service manager sends to everybody would come to a worker twice, from it and the supervisor."""
    command = await start_workers(2, free_port)
    reader, writer = await converse(free_port)
    for worker in command.workers:
        os.kill(worker, signal.SIGTERM)
    command.process.send_signal(signal.SIGTERM)
    await until(lambda: "draining 1" in command.said)
    writer.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    writer.close()
    assert await command.wait() == 0
    assert [line["end"] for line in command.lines] == ["client_closed"]


async def test_workers_drain_when_the_supervisor_is_killed(
    start_workers: StartWorkers, free_port: int, until: Any
) -> None:
    command = await start_workers(2, free_port)
    reader, writer = await converse(free_port)
    command.process.kill()
    await until(lambda: "draining 1" in command.said)
    writer.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    writer.close()
    await command.wait()  # until nobody has its output any more
    assert [line["end"] for line in command.lines] == ["client_closed"]


async def test_workers_of_a_file_that_names_another_number_go_on_sharing(
    tmp_path: Path, start: Start, start_server: Any, free_ports: list[int], until: Any
) -> None:
    """`workers` is read at the start; a listener that a later reload adds is still bound by each of them."""
    path = tmp_path / "routes.toml"
    endpoint = await start_server()
    write_config(path, endpoint, free_ports[0], process="workers = 2")
    command = await start(path, says="listens on")
    await until(lambda: command.said.count("listens on") == 2)
    write_config(path, endpoint, free_ports[0], process="workers = 1")
    await until(lambda: command.said.count("reloaded") == 2)
    write_config(path, endpoint, free_ports[1], process="workers = 1")
    await until(lambda: command.said.count("reloaded") == 4)
    assert "not reloaded" not in command.said
    assert command.said.count("listens on") == 4


async def test_hangup_reloads_workers_that_have_just_started_at_once(
    tmp_path: Path, start: Start, start_server: Any, free_port: int, until: Any
) -> None:
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), free_port, process="workers = 2")
    command = await start(path, says="listens on")
    command.process.send_signal(signal.SIGHUP)
    await until(lambda: command.said.count("reloaded") == 2)  # though the file is what it was


async def test_signals_that_meet_workers_while_they_start(
    tmp_path: Path, start: Start, start_server: Any, free_ports: list[int], until: Any
) -> None:
    port, admin = free_ports
    path = tmp_path / "routes.toml"
    process = f'workers = 2\nadmin = "127.0.0.1:{admin}"'
    write_config(path, await start_server(), port, process=process)
    command = await start(path, says="metrics and status")  # said before the workers are there
    while command.said.count("listens on") < 2:
        command.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
    assert "starts again" not in command.said
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0
    command = await start(path, says="metrics and status")
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(
    start_workers: StartWorkers, free_ports: list[int]
) -> None:
    port, admin = free_ports
    command = await start_workers(2, port, admin=admin)
    worker = command.workers[0]
    os.kill(worker, signal.SIGSTOP)
    answers = await asyncio.gather(*[get(admin, "/status") for _ in range(4)])  # none waits for the others
    assert [json.loads(each)["workers"] for each in answers] == [1] * 4
    os.kill(worker, signal.SIGCONT)
    for _ in range(16):  # some of them to each worker
        _, writer = await converse(port)
        writer.close()
    [relay] = json.loads(await get(admin, "/status"))["relays"]
    assert relay["accepted"] == 16


async def test_a_stop_that_meets_the_death_of_a_worker_reaches_the_others(
    start_workers: StartWorkers, free_ports: list[int], until: Any
) -> None:
    port, admin = free_ports
    command = await start_workers(3, port, admin=admin)
    first = min(command.workers)
    os.kill(first, signal.SIGSTOP)
    assert json.loads(await get(admin, "/status"))["workers"] == 2  # the question to it is never read
    command.process.send_signal(signal.SIGSTOP)  # so that it finds both at once
    os.kill(first, signal.SIGKILL)
    await until(lambda: " Z " in Path(f"/proc/{first}/stat").read_text())
    command.process.send_signal(signal.SIGTERM)
    command.process.send_signal(signal.SIGCONT)
    assert await command.wait() in (0, 1)  # the stop comes first, or the death
    assert "Traceback" not in command.said


async def test_admin_clients_that_reset_leave_no_traceback(
    start_workers: StartWorkers, free_ports: list[int]
) -> None:
    port, admin = free_ports
    command = await start_workers(2, port, admin=admin)
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", admin)) as client:
            client.sendall(b"GET /status HTTP/1.1\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert json.loads(await get(admin, "/status"))["workers"] == 2
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0
    assert "Traceback" not in command.said


async def test_a_stop_starts_no_worker_that_waits_for_its_next_start(
    start_workers: StartWorkers, tmp_path: Path, free_port: int, until: Any
) -> None:
    command = await start_workers(2, free_port)
    (tmp_path / "routes.toml").write_text("no TOML")
    os.kill(command.workers[0], signal.SIGKILL)
    await until(lambda: "starts again" in command.said)
    command.process.send_signal(signal.SIGTERM)
    assert await command.wait() == 0


async def test_the_admin_address_can_be_asked_for_the_head_alone(
    tmp_path: Path, start: Start, start_server: Any, free_ports: list[int]
) -> None:
    port, admin = free_ports
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), port, process=f'admin = "127.0.0.1:{admin}"')
    await start(path, says="metrics and status")
    for method, status in (("HEAD", b"200 OK"), ("POST", b"405 Method Not Allowed")):
        reader, writer = await asyncio.open_connection("127.0.0.1", admin)
        writer.write(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 " + status)
        assert (method == "HEAD") == (not body)


async def test_messages_that_nobody_reads_hold_nothing_up(
    tmp_path: Path, start_server: Any, free_ports: list[int], until: Any
) -> None:
    port, admin = free_ports
    path = tmp_path / "routes.toml"
    write_config(path, await start_server(), port, process=f'admin = "127.0.0.1:{admin}"')
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x"):
            pass
    os.set_blocking(full, True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "l4relay", str(path)), stdout=asyncio.subprocess.DEVNULL, stderr=full
    )
    try:
        await until(lambda: accepts(admin))
        path.write_text("nonsense")  # which is said
        while json.loads(await get(admin, "/status"))["reloads"]["failed"] == 0:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
        _, writer = await converse(port)
        writer.close()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(unread)
        os.close(full)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
