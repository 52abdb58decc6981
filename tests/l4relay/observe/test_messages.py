"""Messages on standard error, where nobody may read them."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from l4relay.observe.messages import MessageHandler

Ends = tuple[int, MessageHandler]


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """The reading end of something that a reader may leave full, and what writes to the other one."""
    if request.param == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    os.set_blocking(reading, False)
    handler = MessageHandler(writing)
    yield reading, handler
    handler.close()
    assert os.get_blocking(writing)  # it belongs to other processes, too
    os.close(reading)
    os.close(writing)


def message(text: str) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, __file__, 1, text, None, None)


def read_all(reading: int) -> bytes:
    received = b""
    while True:
        try:
            received += os.read(reading, 65536)
        except BlockingIOError:
            return received


def fill(handler: MessageHandler) -> None:
    for number in range(1_000_000):
        handler.emit(message(f"filling {number} " + 100 * "."))
        if handler.lost:
            return


def test_a_message_is_a_line(ends: Ends) -> None:
    reading, handler = ends
    handler.emit(message("somebody \udcff came"))
    assert read_all(reading) == b"somebody \\udcff came\n"


def test_who_reads_nothing_holds_nobody_up(ends: Ends) -> None:
    _, handler = ends
    fill(handler)
    began = monotonic()
    for _ in range(1000):
        handler.emit(message("lost"))
    assert monotonic() - began < 5  # with a wait for each it would be a minute
    assert handler.lost == 1001


def test_the_next_message_that_finds_a_place_tells_what_is_missing(ends: Ends) -> None:
    reading, handler = ends
    fill(handler)
    handler.emit(message("lost"))
    read_all(reading)
    handler.emit(message("here again"))
    handler.emit(message("and again"))
    lines = read_all(reading).splitlines()
    assert lines[-3:] == [b"(messages that found no place here: 2)", b"here again", b"and again"]


def test_a_long_message_is_whole_where_there_is_a_place_for_it(ends: Ends) -> None:
    reading, handler = ends
    handler.emit(message("y" * 50_000))
    assert read_all(reading) == b"y" * 50_000 + b"\n"


def test_a_message_that_was_cut_off_stays_a_line_of_its_own() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    handler = MessageHandler(writing)
    handler.emit(message("x" * 10_000))
    assert os.read(reading, 65536) == b"x" * 4096
    handler.emit(message("next"))
    assert os.read(reading, 65536) == b"\n(messages that found no place here: 1)\nnext\n"
    handler.close()
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = MessageHandler(writing)
    handler.emit(message("to nobody"))
    assert handler.lost == 1
    handler.close()
    os.close(writing)


def test_a_file_takes_messages_too(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        handler = MessageHandler(file.fileno())
        handler.emit(message("here"))
        handler.close()
    assert (tmp_path / "log").read_bytes() == b"here\n"
