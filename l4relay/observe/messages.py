"""What a process says about itself on standard error, without waiting for who reads it.

A pipe or a socket that nobody reads is full after some 64 KiB. Python's own handler then waits for a
reader, in the event loop, and everything else with it: clients, timers, SIGTERM. Here a message that finds no
place is lost, and the next one that does says how many were. There is no thread and no queue, so that a
process may fork or be killed at any moment; to a file or a terminal this writes as Python's handler does.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
from contextlib import suppress
from time import monotonic
from typing import Final

_PATIENCE_S: Final = 0.05
"""So long a reader that is only slow may take; then there is no waiting until a message has found a place."""


class MessageHandler(logging.Handler):
    """Writes messages to `descriptor`, by default standard error; never waits long.

    Attributes:
        lost: messages that found no place since the last one that did.

    """

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self.lost = 0
        self._own = own_descriptor(descriptor)
        self._descriptor = descriptor if self._own is None else self._own
        self._write_some = _send if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else os.write
        self._is_mid_line = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as a line, or several if it has a traceback."""
        try:
            line = self.format(record)
        except Exception:  # as the library's own handlers do
            self.handleError(record)
            return
        before = "\n" if self._is_mid_line else ""
        if self.lost:
            before += f"(messages that found no place here: {self.lost})\n"
        data = f"{before}{line}\n".encode(errors="backslashreplace")
        written = self._write(data)
        if written == len(data):
            self.lost, self._is_mid_line = 0, False
        else:
            self.lost += 1
            self._is_mid_line = self._is_mid_line or written > 0

    def _write(self, data: bytes) -> int:
        """Write what finds a place, and return how much that was."""
        until = monotonic() + (0.0 if self.lost else _PATIENCE_S)
        written = 0
        while written < len(data):
            try:
                written += self._write_some(self._descriptor, data[written:])
            except BlockingIOError:
                wait_ms = (until - monotonic()) * 1000
                if wait_ms <= 0:
                    break
                place = select.poll()
                place.register(self._descriptor, select.POLLOUT)
                place.poll(wait_ms)
            except OSError:  # the reader has gone, or the disk is full
                break
        return written

    def close(self) -> None:
        """Give back what the handler has opened; the descriptor that it was given stays."""
        if self._own is not None:
            os.close(self._own)
            self._own = None
        super().close()


def own_descriptor(descriptor: int) -> int | None:
    """Open a pipe once more (proc(5)): ours does not block, and that of other processes stays as it is.

    None for what is no pipe, for one whose reader has gone, and where there is no /proc.
    """
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _send(descriptor: int, data: bytes) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT)
