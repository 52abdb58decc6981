"""Kernel pipes, through which bytes go from socket to socket without entering this process (splice(2))."""

import contextlib
import fcntl
import os
import sys
from typing import Final

HAS_SPLICE: Final = sys.platform == "linux" and hasattr(os, "splice")
_PIPE_BYTES: Final = 1 << 20
_MAX_IDLE_PIPES: Final = 64
_SPLICE_FLAGS: Final = 0x01 | 0x02  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK; named in os since 3.12


class Pipe:
    """A kernel pipe and how many bytes are in it."""

    __slots__ = ("filled", "read_end", "write_end")

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.filled = 0
        with contextlib.suppress(OSError):  # above this user's share of pipe memory the default has to do
            fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_end)
        os.close(self.write_end)


class PipePool:
    """Empty pipes, kept for the next bulk transfer; the last one returned is the first one lent."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def borrow(self) -> Pipe | None:
        """Return an empty pipe; None when no descriptors are left."""
        if self._idle:
            return self._idle.pop()
        try:
            return Pipe()
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


def splice(source: int, sink: int) -> int | None:
    """Move up to a pipe's worth; 0 at the end of the stream, None when it would block.

    Raises:
        OSError: either side has failed.

    """
    try:
        return os.splice(source, sink, _PIPE_BYTES, flags=_SPLICE_FLAGS)
    except BlockingIOError:
        return None
