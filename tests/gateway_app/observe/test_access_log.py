import asyncio
import fcntl
import json
import os
import re
import select
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from gateway_app.exchange import Exchange
from gateway_app.observe import access_log, families
from gateway_app.observe.access_log import AccessLog
from gateway_app.observe.access_log_format import Entry, JsonFormatter, TextFormatter
from gateway_app.observe.log_writer import MAX_QUEUED_BYTES, LogWriter, _pieces
from gateway_app.observe.metrics import Cell, Metrics

Finished = tuple[Exchange, Scope]


@pytest.fixture
def dropped(metrics: Metrics) -> Cell:
    return metrics.cell(families.LOG_DROPPED)


async def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 10.0
    while not condition():
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------- lines


def test_a_line_of_json(finished: Finished) -> None:
    exchange, scope = finished
    exchange.route = SimpleNamespace(name="users")  # type: ignore[assignment]  # only its name is asked for
    exchange.backend, exchange.endpoint, exchange.attempts = "b", "http://127.0.0.1:9001", 2
    exchange.upstream_started, exchange.upstream_first_byte = 100.001, 100.0125
    exchange.log = {"variant": "a"}
    line = JsonFormatter()(Entry(1_700_000_000.1234, 0.0205, exchange, scope))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "request_id": "id-1",
        "client": "192.0.2.1",
        "method": "GET",
        "scheme": "https",
        "host": "example.com",
        "path": "/a",
        "query_bytes": 12,
        "protocol": "HTTP/1.1",
        "status": 200,
        "route": "users",
        "backend": "b",
        "endpoint": "http://127.0.0.1:9001",
        "attempts": 2,
        "upstream_started_ms": 1.0,
        "upstream_first_byte_ms": 12.5,
        "duration_ms": 20.5,
        "bytes_in": 0,
        "bytes_out": 5,
        "user_agent": "curl/8",
        "worker": os.getpid(),
        "variant": "a",
    }


def test_a_refused_request_tells_why(finished: Finished) -> None:
    exchange, scope = finished
    exchange.error, exchange.error_detail, exchange.refused_by = "blocked", "x" * 10_000, "baseline"
    exchange.path = ""
    entry = Entry(0.0, 0.0, exchange, {**scope, "path": "//raw"})
    logged = json.loads(JsonFormatter()(entry))
    assert (logged["error"], logged["refused_by"], logged["path"]) == ("blocked", "baseline", "//raw")
    assert len(logged["detail"]) == 512
    assert "error=blocked" in TextFormatter()(entry)


def test_a_line_of_text(finished: Finished) -> None:
    line = TextFormatter()(Entry(0.0, 0.0205, *finished))
    assert line == "1970-01-01T00:00:00.000Z 192.0.2.1 GET https://example.com/a 200 5B 20.5ms id=id-1\n"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@given(st.text(), st.binary(), st.text())
def test_nothing_that_a_client_sends_breaks_a_line(
    formatter: JsonFormatter | TextFormatter, path: str, agent: bytes, host: str
) -> None:
    exchange = Exchange("id", "", "http", 0.0, 1)
    exchange.host, exchange.error, exchange.error_detail = host, "blocked", path
    exchange.log = {host: path}
    scope = {"type": "websocket", "http_version": path, "path": path, "headers": [(b"user-agent", agent)]}
    line = formatter(Entry(0.0, 0.0, exchange, scope))
    assert re.fullmatch(r"[ -~]*\n", line)
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["path"] == path[:1024]


@given(st.lists(st.integers(1, 50).map(lambda size: b"x" * (size - 1) + b"\n")), st.integers(1, 100))
def test_pieces_hold_whole_lines(lines: list[bytes], limit: int) -> None:
    pieces = _pieces(lines, limit)
    assert b"".join(piece for piece, _ in pieces) == b"".join(lines)
    assert sum(count for _, count in pieces) == len(lines)
    for piece, count in pieces:
        assert len(piece) <= limit or count == 1


# ---------------------------------------------------------------- writing


async def test_lines_arrive_in_order_and_all_at_the_end(
    tmp_path: Path, finished: Finished, dropped: Cell
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog("json", LogWriter(path), dropped)
    exchange, scope = finished
    log.write(exchange, scope, 0.0)
    await until(lambda: path.stat().st_size > 0)
    for number in range(1, 1000):
        later = Exchange(f"id-{number}", "", "http", 0.0, 1)
        log.write(later, scope, 0.0)
    await log.aclose()
    ids = [json.loads(line)["request_id"] for line in path.read_text().splitlines()]
    assert ids[1:] == [f"id-{number}" for number in range(1, 1000)]
    assert dropped.value == 0


async def test_a_pipe_that_nobody_reads_loses_lines_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Finished, dropped: Cell
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    log = AccessLog("json", LogWriter(path), dropped)
    started = monotonic()
    total = 40_000
    for number in range(total):
        log.write(*finished, 0.0)
        if number % 10_000 == 9_999:
            await until(lambda: not log._entries)
    assert monotonic() - started < 30.0
    monkeypatch.setattr(access_log, "_CLOSE_TIMEOUT_S", 0.1)
    await log.aclose()
    assert dropped.value > 0
    size = len(JsonFormatter()(Entry(0.0, 0.0, *finished)))
    assert dropped.value >= total - (MAX_QUEUED_BYTES + 65536) / (size - 20)
    while chunk := os.read(reader, 65536):  # what did get through is whole lines
        assert chunk.count(b"\n") == chunk.count(b"{")
        if not await_writer(reader):
            break
    os.close(reader)


def await_writer(reader: int) -> bool:
    """Whether the writing thread, now free, puts more into the pipe."""
    return bool(select.select([reader], [], [], 0.2)[0])


async def test_more_than_the_memory_for_entries_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Finished, dropped: Cell
) -> None:
    monkeypatch.setattr(access_log, "MAX_ENTRIES", 10)
    log = AccessLog("text", LogWriter(tmp_path / "log"), dropped)
    for _ in range(25):
        log.write(*finished, 0.0)
    await log.aclose()
    assert len((tmp_path / "log").read_text().splitlines()) == 10
    assert dropped.value == 15


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_counted_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    writer = LogWriter(Path("/dev/full"))
    for _ in range(3):
        writer.put([b"a\n", b"b\n"])
    writer.close(5.0)
    assert writer.dropped == 6
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_a_file_that_was_moved_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_app.observe.log_writer._REOPEN_EVERY_S", 0.0)
    path = tmp_path / "log"
    writer = LogWriter(path)
    writer.put([b"1\n"])
    while not path.read_bytes():
        threading.Event().wait(0.005)
    path.rename(tmp_path / "log.1")
    writer.put([b"2\n"])
    writer.close(5.0)
    assert (tmp_path / "log.1").read_bytes() == b"1\n"
    assert path.read_bytes() == b"2\n"


def test_standard_output_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter()
    writer.put([b"a line\n"])
    writer.close(5.0)
    assert capfd.readouterr().out == "a line\n"


async def test_the_format_can_change(tmp_path: Path, finished: Finished, dropped: Cell) -> None:
    log = AccessLog("json", LogWriter(tmp_path / "log"), dropped)
    log.use_format("text")
    log.write(*finished, 0.0)
    await log.aclose()
    assert (tmp_path / "log").read_text().endswith("id=id-1\n")
