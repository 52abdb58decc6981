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
from typing import Final

from l4relay.pipes import HAS_SPLICE, Pipe, PipePool, splice
from l4relay.poller import READABLE, WRITABLE, Poller

_READ_BYTES: Final = 65_536
_SMALL_READ_BYTES: Final = 512 - 33
"""Of a direction's reads until one is full: with a bytes object's own 33, what pymalloc has at hand."""

_read: Final = os.read
_write: Final = os.write
"""By descriptor: Python takes longer over a socket's own methods, which shows beside so short a way."""

_BULK: Final = 4
"""Full reads in a row that make a direction bulk."""

_MAX_BULK: Final = 12
"""So far the score rises: it falls by one each time that the source gives less than a read."""

_ROUNDS: Final = 16
"""Reads, or fills of a pipe, before others have their turn."""

_DATA_ALONE: Final = READABLE | WRITABLE
"""What a source reports that has bytes, has not ended, and is itself a sink with room."""

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: close() sends a reset
_TCP_CLOSE: Final = 7


class Direction:
    """One way of a flow, from `source` to `sink`.

    Attributes:
        moved: Bytes that the sink's kernel has taken.
        is_blocked: Bytes wait for the sink to become writable.
        ended: The source has ended, and the sink has been given everything.
        reverse: The other way; its sink is this one's source.

    """

    __slots__ = (
        *("_bulk_score", "_flow", "_is_plain", "_kept", "_pipe", "_read_bytes", "_sink_fd"),
        *("_source_fd", "ended", "is_blocked", "moved", "reverse", "sink", "source"),
    )

    reverse: "Direction"

    def __init__(self, flow: "Flow", source: socket.socket, sink: socket.socket, kept: bytes = b"") -> None:
        self._flow = flow
        self.source = source
        self.sink = sink
        self._source_fd = source.fileno()
        self._sink_fd = sink.fileno()
        self._kept: bytes | memoryview = kept
        self._pipe: Pipe | None = None
        self._bulk_score = 0
        self._read_bytes = _SMALL_READ_BYTES
        self._is_plain = False  # neither way is blocked, and this one is not bulk and has not ended
        self.moved = 0
        self.is_blocked = bool(kept)
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
            self._flow.fail(self, error)
            return
        self.moved += sent
        if not 0 < sent < self._read_bytes or sent != len(segment):
            self._read_bytes = _READ_BYTES
            self._keep(segment, sent)
            self.pump()

    def _on_other(self, events: int) -> None:
        if self.reverse.is_blocked:
            self.reverse.pump()
        if events != WRITABLE:
            self.pump()

    def pump(self) -> None:
        """Move bytes until the source has no more, or the sink takes no more."""
        if self.ended:
            return
        try:
            if not self._kept or self._flush():
                if self._bulk_score >= _BULK:
                    self._pump_pipe()
                else:
                    self._pump_loop()
        except BlockingIOError:
            pass
        except OSError as error:
            self._flow.fail(self, error)
        self.settle()

    def settle(self) -> None:
        """Note of both ways whether they may go straight from read to write."""
        if self._source_fd < 0:  # closed
            return
        free = not (self.is_blocked or self.reverse.is_blocked)
        for way in (self, self.reverse):
            way._is_plain = free and not way.ended and way._bulk_score < _BULK

    def close(self) -> None:
        """Let go of everything but the sockets."""
        self.ended, self.is_blocked, self._is_plain = True, False, False
        self._source_fd = self._sink_fd = -1
        self._kept = b""
        if self._pipe is not None:
            self._flow.pipes.give_back(self._pipe)
            self._pipe = None
        # No reference cycles: nothing is left for the collector.
        del self._flow, self.reverse

    def _pump_loop(self) -> None:
        self._bulk_score = 0
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
            if sent != len(segment):
                self._keep(segment, sent)
                return
            self._bulk_score = self._bulk_score + 1 if sent == _READ_BYTES else 0
            if self._bulk_score == _BULK and self._turn_to_bulk():
                break
        self._flow.poller.rearm(self.source)

    def _keep(self, segment: bytes, sent: int) -> None:
        """Keep what the sink has not taken, until it is writable."""
        if sent < len(segment):
            self._kept = memoryview(segment)[sent:]
            self.is_blocked = True

    def _flush(self) -> bool:
        """Write what is kept; true when all of it has gone."""
        sent = _write(self._sink_fd, self._kept)
        self.moved += sent
        if sent < len(self._kept):
            self._kept = memoryview(self._kept)[sent:]
            return False
        self._kept = b""
        self.is_blocked = False
        return True

    def _turn_to_bulk(self) -> bool:
        if not self._flow.splice:
            self._bulk_score = 0
            return False
        return True

    def _pump_pipe(self) -> None:
        source, sink, before = self._source_fd, self._sink_fd, self.moved
        for _ in range(_ROUNDS):
            pipe = self._pipe = self._pipe or self._flow.pipes.borrow()
            if pipe is None:  # no descriptors: go on over the loop
                self._bulk_score = 0
                break
            was_empty = not pipe.filled
            count = splice(source, pipe.write_end)
            pipe.filled += count or 0
            self.is_blocked = True
            while pipe.filled:
                written = splice(pipe.read_end, sink)
                if written is None:
                    return
                pipe.filled -= written
                self.moved += written
            self.is_blocked = False
            self._pipe = None
            self._flow.pipes.give_back(pipe)
            if count == 0:
                self._end()
                return
            if count is None and was_empty:  # otherwise it may have been the pipe that was full
                self._score(self.moved - before)
                return
        self._flow.poller.rearm(self.source)

    def _score(self, count: int) -> None:
        """Return to the loop when the source has given little for several times: there it is cheaper."""
        if count >= _READ_BYTES:
            self._bulk_score = _MAX_BULK
            return
        self._bulk_score -= 1
        if self._bulk_score < _BULK:
            self._bulk_score = 0

    def _end(self) -> None:
        self.ended = True
        self._flow.direction_ended(self)


class Flow:
    """A client's and an endpoint's socket, and the two directions between them.

    Args:
        client: Not watched yet; from now on non-blocking.
        upstream: Connected and non-blocking, watched already.
        to_upstream: Bytes that the endpoint gets before anything else.
        not_counted: How many of them are not the client's.
        splice: Whether bulk may move to kernel pipes.
        on_end: Called once, with the reason, when the flow is over by itself; it is to call `close`.

    """

    __slots__ = ("_first_to_end", "_on_end", "client", "down", "pipes", "poller", "splice", "up", "upstream")

    def __init__(
        self,
        poller: Poller,
        pipes: PipePool,
        client: socket.socket,
        upstream: socket.socket,
        *,
        to_upstream: bytes,
        not_counted: int,
        splice: bool,
        on_end: Callable[[str], None],
    ) -> None:
        self.poller = poller
        self.pipes = pipes
        self.splice = splice and HAS_SPLICE
        self.client = client
        self.upstream = upstream
        self._on_end = on_end
        self._first_to_end = ""
        self.up = Direction(self, client, upstream, to_upstream)
        self.up.moved = -not_counted
        self.down = Direction(self, upstream, client)
        self.up.reverse, self.down.reverse = self.down, self.up
        self.up.settle()

    def start(self, upstream_events: int) -> None:
        """Begin to relay; `upstream_events` is what the endpoint's socket reported as it connected."""
        os.set_blocking(self.client.fileno(), False)  # the flag alone: nobody calls the object's methods now
        self.poller.replace(self.upstream, self.down.on_source)
        self.poller.watch(self.client, self.up.on_source)
        self.down.on_source(upstream_events)

    def direction_ended(self, direction: Direction) -> None:
        """Pass one direction's end on, as a half-close; the second one ends the flow."""
        if self._first_to_end:
            self._on_end(self._first_to_end)
            return
        self._first_to_end = "client_closed" if direction is self.up else "endpoint_closed"
        with contextlib.suppress(OSError):  # reset meanwhile: the other direction will find out
            direction.sink.shutdown(socket.SHUT_WR)

    def fail(self, direction: Direction, error: OSError) -> None:
        """End the flow because of a socket's error; the other side is reset, not ended as if whole."""
        # Only writing gives EPIPE; and of a Unix socket the kernel does not tell what TCP_INFO does.
        sink_failed = error.errno == errno.EPIPE or _has_failed(direction.sink)
        failed = direction.sink if sink_failed else direction.source
        side, other = ("client", self.upstream) if failed is self.client else ("endpoint", self.client)
        abort_on_close(other)
        self._on_end(f"{side}_timed_out" if error.errno == errno.ETIMEDOUT else f"{side}_reset")

    def close(self) -> None:
        """Close both sockets; `up.moved` and `down.moved` stay."""
        self.poller.close(self.client)
        self.poller.close(self.upstream)
        self.up.close()
        self.down.close()
        del self._on_end


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
