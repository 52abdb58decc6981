"""Moving bytes: two directions, each with its own end, over the loop or through kernel pipes.

A direction reads what is there and writes it on. What the sink does not take is kept, and nothing more is
read until it has gone: at most one read (or one pipe) waits in each direction, whatever the peers do. When a
direction has filled several reads in a row it is bulk, and moves to `splice`: socket → pipe → socket, without
the bytes ever entering this process. A pipe is borrowed only while bytes are in it, so that descriptors are
bounded by what is stuck, not by what is open.

    source ──recv──▶ kept ──send──▶ sink         small exchanges
    source ─splice─▶ pipe ─splice─▶ sink         bulk
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, Literal

from l4relay.pipes import HAS_SPLICE, Pipe
from l4relay.poller import READABLE, WRITABLE
from l4relay.relay import Engine

_READ_BYTES: Final = 65_536
_SMALL_READ_BYTES: Final = 512 - 33
"""Of a direction's reads until one is full: with a bytes object's own 33, what pymalloc has at hand."""

_read: Final = os.read
_write: Final = os.write
"""By descriptor: Python takes longer over a socket's own methods, which shows beside so short a way."""

_ROUNDS: Final = 16
"""Reads, or fills of a pipe, before others have their turn."""

_FULL_READS: Final = 4
"""In a row, they make a direction bulk."""

_LEAN_TURNS: Final = 9
"""Turns in a row in which the source gives less than a read: they end it, since there the loop is cheaper."""

_DATA_ALONE: Final = READABLE | WRITABLE
"""What a source reports that has bytes, has not ended, and is itself a sink with room."""

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: close() sends a reset
_TCP_CLOSE: Final = 7


class Direction:
    """One way of a connection, from `source` to `sink`, which are non-blocking and closed by the caller.

    Args:
        side: Who sends here, with which the reasons for an end begin.
        kept: What the sink gets before anything else.
        splice: Whether bulk may move to kernel pipes.
        on_end: Called with the reason when both have ended or one has failed; it is to `close` both.

    Attributes:
        moved: Bytes that the sink's kernel has taken.
        ended: The source has ended, and the sink has been given everything.
        reverse: The other way, whose sink is this one's source; to be set before anything moves.

    """

    __slots__ = (
        *("_engine", "_is_plain", "_kept", "_lean_turns_left", "_on_end", "_read_bytes", "_side", "_sink"),
        *("_sink_fd", "_source_fd", "_splice", "ended", "moved", "reverse"),
    )

    reverse: "Direction"

    def __init__(
        self,
        engine: Engine,
        side: Literal["client", "endpoint"],
        source: socket.socket,
        sink: socket.socket,
        kept: bytes = b"",
        *,
        splice: bool,
        on_end: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._side = side
        self._sink = sink
        self._source_fd = source.fileno()
        self._sink_fd = sink.fileno()
        self._splice = splice and HAS_SPLICE
        self._on_end = on_end
        self._kept: bytes | memoryview | Pipe = kept
        self._lean_turns_left = 0  # above 0: bulk
        self._read_bytes = _SMALL_READ_BYTES
        self._is_plain = False  # nothing is kept either way, and this one is not bulk and has not ended
        self.moved = 0
        self.ended = False

    def on_source(self, events: int) -> None:
        """Take the events of `source`.

        A small exchange is written out here, since calls would be a good part of its cost: one read, and a
        sink that takes it. A read that was not full has emptied the socket, and whatever comes later is a new
        edge (epoll(7), question 9); not so when the end has come with it.
        """
        if events != _DATA_ALONE or not self._is_plain:
            self._on_other(events)
            return
        segment = b""
        try:
            segment = _read(self._source_fd, self._read_bytes)
            sent = _write(self._sink_fd, segment)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self.moved += sent
        if not 0 < sent < self._read_bytes or sent != len(segment):
            self._read_bytes = _READ_BYTES
            if sent < len(segment):
                self._kept = memoryview(segment)[sent:]
            self.pump()

    def _on_other(self, events: int) -> None:
        if self.reverse._kept:
            self.reverse.pump()
        if events != WRITABLE:
            self.pump()

    def pump(self) -> None:
        """Move bytes until the source has no more, or the sink takes no more."""
        if self.ended:
            return
        try:
            if self._kept:
                self._flush()
            if not self._kept:
                if self._lean_turns_left:
                    self._pump_pipe()
                else:
                    self._pump_loop()
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
        self.settle()

    def settle(self) -> None:
        """Note of both ways whether they may go straight from read to write."""
        if self._source_fd < 0:  # closed
            return
        free = not (self._kept or self.reverse._kept)
        for way in (self, self.reverse):
            way._is_plain = free and not way.ended and not way._lean_turns_left

    def close(self) -> None:
        """Let go of everything but the sockets."""
        self.ended = True
        self._source_fd = -1
        if isinstance(self._kept, Pipe):
            self._engine.pipes.give_back(self._kept)
        # No reference cycles: nothing is left for the collector.
        del self._on_end, self.reverse

    def _pump_loop(self) -> None:
        full_reads = 0
        for _ in range(_ROUNDS):
            segment = _read(self._source_fd, _READ_BYTES)
            if not segment:
                self._end()
                return
            try:
                sent = _write(self._sink_fd, segment)
            except BlockingIOError:
                sent = 0
            self.moved += sent
            if sent < len(segment):
                self._kept = memoryview(segment)[sent:]
                return
            full_reads = full_reads + 1 if sent == _READ_BYTES else 0
            if full_reads == _FULL_READS and self._splice:
                self._lean_turns_left = 1
                break
        self._engine.poller.rearm(self._source_fd)

    def _pump_pipe(self) -> None:
        before = self.moved
        for _ in range(_ROUNDS):
            pipe = self._engine.pipes.borrow()
            if pipe is None:  # no descriptors: go on over the loop
                self._lean_turns_left = 0
                break
            self._kept = pipe
            count = pipe.fill(self._source_fd)
            self._drain(pipe)
            if count == 0:
                self._end()
                return
            if count is None:
                is_lean = self.moved - before < _READ_BYTES
                self._lean_turns_left = self._lean_turns_left - 1 if is_lean else _LEAN_TURNS
                return
        self._engine.poller.rearm(self._source_fd)

    def _flush(self) -> None:
        """Write what is kept, as far as the sink takes it."""
        kept = self._kept
        if isinstance(kept, Pipe):
            self._drain(kept)
            return
        sent = _write(self._sink_fd, kept)
        self.moved += sent
        self._kept = memoryview(kept)[sent:] if sent < len(kept) else b""

    def _drain(self, pipe: Pipe) -> None:
        while pipe.filled:
            self.moved += pipe.drain(self._sink_fd)
        self._kept = b""
        self._engine.pipes.give_back(pipe)

    def _end(self) -> None:
        """Pass the end on, as a half-close; the second one ends the connection."""
        self.ended = True
        if self.reverse.ended:
            self._on_end(f"{self.reverse._side}_closed")
            return
        with contextlib.suppress(OSError):  # reset meanwhile: the other direction will find out
            self._sink.shutdown(socket.SHUT_WR)

    def _fail(self, error: OSError) -> None:
        """End the connection because of a socket's error; the other side is reset, not ended as if whole."""
        # Only writing gives EPIPE; and of a Unix socket the kernel does not tell what TCP_INFO does.
        sink_failed = error.errno == errno.EPIPE or _has_failed(self._sink)
        way = self.reverse if sink_failed else self
        abort_on_close(way._sink)
        self._on_end(f"{way._side}_timed_out" if error.errno == errno.ETIMEDOUT else f"{way._side}_reset")


def abort_on_close(sock: socket.socket) -> None:
    """Have `close` send a reset, and drop what was not sent yet."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


def _has_failed(sock: socket.socket) -> bool:
    """Say whether the kernel has given this TCP connection up (tcp(7), TCP_INFO)."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError:  # not TCP
        return False
