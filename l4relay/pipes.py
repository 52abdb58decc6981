"""Kernel pipes, through which bytes go from socket to socket without entering this process (splice(2))."""

import contextlib
import fcntl
import os
from typing import Final

HAS_SPLICE: Final = hasattr(os, "splice")
_PIPE_BYTES: Final = 1 << 20
_MAX_IDLE_PIPES: Final = 64
_SPLICE_FLAGS: Final = 0x01 | 0x02  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK; named in os since 3.12


class Pipe:
    """A kernel pipe and how many bytes are in it."""

    __slots__ = ("_read_end", "_write_end", "filled")

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.filled = 0
        with contextlib.suppress(OSError):  # above this user's share of pipe memory the default has to do
            fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def fill(self, source: int) -> int | None:
        """Take what the source has, and return how much that was: 0 at its end, None if nothing is there."""
        try:
            count = os.splice(source, self._write_end, _PIPE_BYTES, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return None
        self.filled += count
        return count

    def drain(self, sink: int) -> int:
        """Give the sink what it takes now, and return how much that was."""
        count = os.splice(self._read_end, sink, _PIPE_BYTES, flags=_SPLICE_FLAGS)
        self.filled -= count
        return count

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read_end)
        os.close(self._write_end)


class PipePool:
    """Empty pipes, kept for the next bulk transfer; the last one returned is the first one lent."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def borrow(self) -> Pipe | None:
        """Return an empty pipe; None when no descriptors are left."""
        try:
            return self._idle.pop() if self._idle else Pipe()
        except OSError:
            return None

    def give_back(self, pipe: Pipe) -> None:
        """Take a pipe back; with bytes left in it, or when there are plenty, it is closed."""
        if pipe.filled or len(self._idle) >= _MAX_IDLE_PIPES:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close the pipes that nobody uses."""
        while self._idle:
            self._idle.pop().close()
