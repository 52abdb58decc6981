"""Writes to a file that may be full, slow or gone, from a thread, so that nobody else ever waits for it.

What does not fit in the queue is dropped and counted: a gateway that stops because its log does is worse than
a log with gaps. A pipe gets whole lines at a time in pieces that the system writes in one go (PIPE_BUF,
POSIX write()), so that the lines of several workers do not mix.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024

_PIPE_BUF: Final = select.PIPE_BUF
_FILE_PIECE_BYTES: Final = 256 * 1024
_COMPLAIN_EVERY_S: Final = 60.0
_REOPEN_EVERY_S: Final = 1.0


class LogWriter:
    """Appends lines to `path`, or to standard output if it is None.

    A file that was moved away (logrotate) is opened anew under its name within a second.

    Args:
        path: the file to append to, made if need be; None writes to standard output.

    Raises:
        OSError: `path` cannot be opened.

    Attributes:
        dropped: lines that were not written, so far.

    """

    def __init__(self, path: Path | None = None) -> None:
        self.dropped = 0
        self._path = path
        self._fd = _open(path) if path is not None else os.dup(1)
        self._checked = monotonic()
        self._queue: deque[list[bytes]] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._is_closing = False
        self._is_mid_line = False
        self._complained: float | None = None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> None:
        """Have `lines` written, each with its newline; never waits."""
        size = sum(map(len, lines))
        with self._wake:
            if self._queued_bytes + size > MAX_QUEUED_BYTES:
                self.dropped += len(lines)
                return
            self._queued_bytes += size
            self._queue.append(list(lines))
            self._wake.notify()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, for `timeout_s` at most; what is left then is lost."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        with self._wake:
            self.dropped += sum(map(len, self._queue))
            self._queue.clear()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._is_closing:
                    self._wake.wait()
                if not self._queue:
                    break
                lines = self._queue.popleft()
            self._write_lines(lines)
            with self._wake:
                self._queued_bytes -= sum(map(len, lines))
        os.close(self._fd)

    def _write_lines(self, lines: list[bytes]) -> None:
        written = 0
        try:
            self._reopen_if_moved()
            limit = _PIPE_BUF if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else _FILE_PIECE_BYTES
            for piece, count in _pieces(lines, limit):
                self._write(piece)
                written += count
        except OSError as error:
            self.dropped += len(lines) - written
            self._complain(error)

    def _write(self, piece: bytes) -> None:
        if self._is_mid_line:  # what was cut off when the disk was full stays a line of its own
            piece = b"\n" + piece
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody else made our standard output non-blocking
                select.select([], [self._fd], [])
            except OSError:
                self._is_mid_line = 0 < len(rest) < len(piece) or self._is_mid_line
                raise
        self._is_mid_line = False

    def _reopen_if_moved(self) -> None:
        now = monotonic()
        if self._path is None or now - self._checked < _REOPEN_EVERY_S:
            return
        self._checked = now
        try:
            is_same = os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            fd = _open(self._path)
            os.close(self._fd)
            self._fd = fd

    def _complain(self, error: OSError) -> None:
        now = monotonic()
        if self._complained is None or now - self._complained > _COMPLAIN_EVERY_S:
            self._complained = now
            logger.error("access log lines are lost: %s", error)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _pieces(lines: Sequence[bytes], limit: int) -> list[tuple[bytes, int]]:
    """Return `lines` joined to pieces of at most `limit` bytes (a longer line alone), with the count."""
    pieces: list[tuple[bytes, int]] = []
    start = size = 0
    for index, line in enumerate(lines):
        if size and size + len(line) > limit:
            pieces.append((b"".join(lines[start:index]), index - start))
            start, size = index, 0
        size += len(line)
    if size:
        pieces.append((b"".join(lines[start:]), len(lines) - start))
    return pieces
