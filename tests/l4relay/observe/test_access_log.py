"""The log's lines arrive whole, whoever else writes to the same place."""

import json
import os
import threading

import pytest

from l4relay.observe import access_log
from l4relay.observe.access_log import AccessLog

LINES = 2_000


def write_lines(fd: int, relay: str, count: int = LINES) -> AccessLog:
    log = AccessLog(fd)
    for number in range(count):
        log.write(
            type="tcp",
            relay=relay,
            id=f"{number:x}",
            client="192.0.2.7:4711",
            endpoint="127.0.0.1:5432",
            sent=number,
            received=0,
            duration_ms=500.0,
            end="client_closed",
        )
    return log


def write_and_close(fd: int, relay: str) -> None:
    write_lines(fd, relay).close()


def test_nobody_who_reads_stops_nothing_and_is_told_what_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_LAST_WAIT_S", 30.0)  # this reader takes all, however slow the machine
    reading, writing = os.pipe()
    log = write_lines(writing, "one", count=100_000)
    written: list[bytes] = []

    def read_all() -> None:
        while segment := os.read(reading, 1 << 16):
            written.append(segment)

    reader = threading.Thread(target=read_all)
    reader.start()
    log.close()
    os.close(writing)
    reader.join()
    os.close(reading)
    lines = [json.loads(line) for line in b"".join(written).splitlines()]
    assert 10_000 < len(lines) < 100_000
    assert [line["sent"] for line in lines] == list(range(len(lines)))
    assert f"{100_000 - len(lines)} lines of the access log are lost" in caplog.text


def test_lines_of_several_workers_in_one_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    workers = [
        threading.Thread(target=write_and_close, args=(writing, name)) for name in ("one", "two", "three")
    ]
    for worker in workers:
        worker.start()
    read: list[bytes] = []

    def read_slowly() -> None:
        while segment := os.read(reading, 1000):
            read.append(segment)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    for worker in workers:
        worker.join()
    os.close(writing)
    reader.join()
    os.close(reading)
    lines = [json.loads(line) for line in b"".join(read).splitlines()]
    for name in ("one", "two", "three"):
        assert [line["sent"] for line in lines if line["relay"] == name] == list(range(LINES))
