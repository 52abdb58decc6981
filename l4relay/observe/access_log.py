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
from typing import Final

from l4relay.observe.messages import own_descriptor

_FLUSH_BYTES: Final = 32_768
_MAX_WAITING_BYTES: Final = 1 << 24
_LAST_WAIT_S: Final = 2.0
_encode: Final = json.JSONEncoder(check_circular=False).encode
_log = logging.getLogger(__name__)


class AccessLog:
    """Writes lines to a descriptor; `flush` is to be called every now and then.

    Args:
        fd: Where to; None writes nothing.

    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        is_pipe = fd is not None and stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._piece_bytes = select.PIPE_BUF if is_pipe else _FLUSH_BYTES
        own = own_descriptor(fd) if fd is not None else None
        self._fd = fd if own is None else own
        self._waiting = bytearray()
        self._lost = 0
        self._second = 0
        self._second_text = ""

    def write(self, **fields: str | float | None) -> None:
        """Add a line; `docs/relay.md` has the fields. Those that are None are left out."""
        if self.fd is None:
            return
        known: dict[str, str | float] = {"time": self._time()}
        for name, value in fields.items():
            if value is not None:
                known[name] = value
        line = f"{_encode(known)}\n".encode()
        if len(self._waiting) + len(line) > self._piece_bytes:
            self.flush()
            if len(self._waiting) > _MAX_WAITING_BYTES:
                self._lost += 1
                return
        self._waiting += line

    def flush(self) -> None:
        """Write what has been gathered, as far as it is taken.

        A reader that has gone away, or reads nothing, is no reason to stop relaying.
        """
        waiting = self._waiting
        while waiting and self._fd is not None:
            end = waiting.rfind(b"\n", 0, self._piece_bytes) + 1 or waiting.index(b"\n") + 1
            try:
                del waiting[: os.write(self._fd, waiting[:end])]
            except BlockingIOError:
                return
            except OSError:
                waiting.clear()
                return
        if self._lost:
            _log.warning("%d lines of the access log are lost, since nobody read them", self._lost)
            self._lost = 0

    def close(self) -> None:
        """Write the rest, and wait for its reader for a moment."""
        end_at = time.monotonic() + _LAST_WAIT_S
        self.flush()
        while self._waiting and self._fd is not None and time.monotonic() < end_at:
            select.select([], [self._fd], [], _LAST_WAIT_S)
            self.flush()
        if self._fd is not None and self._fd != self.fd:
            os.close(self._fd)
        self._fd = None

    def _time(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:  # `datetime.isoformat` would take three times as long for each line
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03}Z"
