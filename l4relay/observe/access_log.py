"""One line of JSON for each connection or session that has ended.

Lines are gathered and written together: a write for each would cost as much as relaying a small exchange.
Workers share standard output, so no write into a pipe is longer than what the kernel keeps in one piece, and
none waits: lines that nobody reads are kept for a while, and lost when there are too many.
"""

import json
import logging
import os
import select
import stat
import time
from collections import deque
from typing import Final

_FLUSH_BYTES: Final = 32_768
_MAX_WAITING_BYTES: Final = 1 << 24
_LAST_WAIT_S: Final = 2.0
_log = logging.getLogger(__name__)


class AccessLog:
    """Writes lines to a descriptor; `flush` is to be called every now and then.

    Args:
        fd: Where to; None writes nothing.

    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        is_pipe = fd is not None and stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._flush_bytes = select.PIPE_BUF if is_pipe else _FLUSH_BYTES
        self._fd = _without_waiting(fd) if fd is not None and is_pipe else fd
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._second = 0
        self._second_text = ""

    def write(
        self,
        *,
        kind: str,
        relay: str,
        id: str,
        client: str,
        endpoint: str,
        sent: int,
        received: int,
        duration_s: float,
        end: str,
        **more: str | float | None,
    ) -> None:
        """Add a line; `docs/relay.md` has the fields. Those of `more` that are None are left out."""
        if self.fd is None:
            return
        extra = "".join(
            [f', "{name}": {json.dumps(value)}' for name, value in more.items() if value is not None]
        )
        line = (
            f'{{"time": "{self._time()}", "type": "{kind}", "relay": {json.dumps(relay)}, "id": "{id}", '
            f'"client": {json.dumps(client)}, "endpoint": {json.dumps(endpoint)}, "sent": {sent}, '
            f'"received": {received}, "duration_ms": {duration_s * 1000:.1f}{extra}, "end": "{end}"}}\n'
        )
        encoded = line.encode("utf-8", "backslashreplace")
        if self._size + len(encoded) > self._flush_bytes:
            self.flush()
            if self._size > _MAX_WAITING_BYTES:
                self._lost += 1
                return
        self._lines.append(encoded)
        self._size += len(encoded)

    def flush(self) -> None:
        """Write what has been gathered, as far as it is taken.

        A reader that has gone away, or reads nothing, is no reason to stop relaying.
        """
        while self._lines and self._fd is not None:
            pending = memoryview(self._next_piece())
            self._size -= len(pending)
            try:
                while pending:
                    pending = pending[os.write(self._fd, pending) :]
            except BlockingIOError:
                self._lines.appendleft(bytes(pending))
                self._size += len(pending)
                return
            except OSError:
                self._lines.clear()
                self._size = 0
                return
        if self._lost:
            _log.warning("%d lines of the access log are lost, since nobody read them", self._lost)
            self._lost = 0

    def close(self) -> None:
        """Write the rest, and wait for its reader for a moment."""
        end_at = time.monotonic() + _LAST_WAIT_S
        self.flush()
        while self._lines and self._fd is not None and time.monotonic() < end_at:
            select.select([], [self._fd], [], _LAST_WAIT_S)
            self.flush()
        if self._fd is not None and self._fd != self.fd:
            os.close(self._fd)
        self._fd = None

    def _next_piece(self) -> bytes:
        piece = [self._lines.popleft()]
        size = len(piece[0])
        while self._lines and size + len(self._lines[0]) <= self._flush_bytes:
            piece.append(self._lines.popleft())
            size += len(piece[-1])
        return b"".join(piece)

    def _time(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03}Z"


def _without_waiting(pipe: int) -> int:
    """Return a descriptor of our own for a pipe: the flag would reach everybody who shares the given one."""
    try:
        return os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or another user's pipe
        return pipe
