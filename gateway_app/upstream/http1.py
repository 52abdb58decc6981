"""HTTP/1.1 towards an endpoint: one connection, one exchange at a time (RFC 9112).

`http1_answer.py` reads what the endpoint says, this protocol moves bytes, and `http1_pool.py` decides which
connection carries which request. The owner of an exchange calls, in this order:

    start(data, method)          writes the request's head, and its body where it is at hand
    write(piece)…                only for a streamed body, obeying `drained()`; then `finish_request()`
    await news()…                until `has_head`: `status` and `headers` are set
    take() / await read()…
    close()                      hands the connection back or drops it

Whether a connection carries another exchange is decided in one place, `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from typing import TYPE_CHECKING

from gateway_app.problem import Cause
from gateway_app.upstream.http1_answer import Http1Answer
from gateway_app.upstream.transport import Sent, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

HIGH_WATER_BYTES = 64 * 1024
"""Unread body bytes at which the socket is read no further."""


class Http1Connection(Http1Answer, asyncio.Protocol):
    """One connection to an endpoint and the exchange on it.

    Attributes:
        idle_until: loop time after which an idle connection must not be used again; the pool sets it.
        is_write_paused: the socket takes no more for now.
        upload: the task that still sends the request's body, if there is one; ended with the exchange.
        loop: the event loop that the connection lives on.
    """

    __slots__ = (
        "_drained",
        "_exchanges",
        "_is_closed",
        "_is_open",
        "_on_closed",
        "_on_free",
        "_paused",
        "_request_done",
        "_transport",
        "_waiter",
        "idle_until",
        "is_write_paused",
        "loop",
        "upload",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[Http1Connection], None],
        on_closed: Callable[[Http1Connection], None],
    ) -> None:
        super().__init__()
        self.loop = loop
        self._on_free = on_free
        self._on_closed = on_closed
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any use
        self._exchanges = 0
        self._is_open = False  # an exchange is under way
        self._is_closed = False  # the socket is gone or about to be
        self._paused = False  # reading
        self.is_write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_until = 0.0
        self.upload: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ the exchange, called by its owner

    @property
    def is_usable(self) -> bool:
        """Say whether a new exchange may start here."""
        return not (self._is_closed or self._is_open)

    def start(self, data: bytes, method: str, *, is_whole: bool = True) -> None:
        """Begin an exchange by writing `data`: the head, and the body if `is_whole`."""
        self.expect(method)
        self._exchanges += 1
        self._is_open = True
        self._request_done = is_whole
        self._transport.write(data)

    def write(self, data: bytes) -> None:
        """Write a piece of the body, framed already. Await `drained()` while `is_write_paused`."""
        if not self._is_closed:
            self._transport.write(data)

    def finish_request(self) -> None:
        """Note that the request has been written whole; without it the connection is not used again."""
        self._request_done = True

    async def drained(self) -> None:
        """Wait until the socket takes bytes again, or the connection is gone."""
        while self.is_write_paused and not self._is_closed:
            self._drained = self.loop.create_future()
            await self._drained

    def news(self) -> asyncio.Future[None]:
        """Return what is done when something has arrived; a coroutine would cost more than the rest of it.

        Raises:
            UpstreamError: nothing will arrive any more.

        """
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self.loop.create_future()
        return waiter

    async def continued(self) -> bool:
        """Wait for 100 (Continue) or the final head; True if the body may be sent (RFC 9110 10.1.1)."""
        while not (self._continue or self.has_head):
            await self.news()
        return not self.has_head

    def take(self) -> bytes:
        """Give the body bytes received so far, b"" if there are none."""
        chunks = self._chunks
        if not chunks:
            return b""
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._unread = 0
        if self._paused and not self._is_closed:
            self._paused = False
            self._transport.resume_reading()
        return body

    @property
    def is_complete(self) -> bool:
        """Say whether the whole answer has been received and taken."""
        return self._complete and not self._chunks

    async def read(self) -> bytes:
        """Give the next piece of the body, b"" at its end. Raises UpstreamError when it is cut short."""
        while not self._chunks:
            if self._complete:
                return b""
            await self.news()
        return self.take()

    def close(self) -> None:
        """End the exchange: hand the connection back if it can carry another, else drop it."""
        if not self._is_open:
            return
        if (
            self._complete
            and self._request_done
            and not self._is_spoiled
            and not self._is_closed
            and not self.is_write_paused
            and not self._paused
        ):
            self._is_open = False
            self._on_free(self)
        else:
            self.drop()

    def drop(self) -> None:
        """Close the connection at once, whatever runs on it."""
        self._is_open = False
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None
        self._close_socket()

    def fail(self, error: Exception) -> None:
        """Break the exchange off: the owner sees `error` at its next wait, and the socket is closed."""
        if self._error is None:
            self._error = error
        self._close_socket()
        self._wake()

    def _close_socket(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._transport.abort()
            self._on_closed(self)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------ asyncio.Protocol: bytes in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the pool starts exchanges from here on."""
        self._transport = transport  # type: ignore[assignment]  # a stream connection gives a Transport

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and wake the owner when there is something for it."""
        if not self._is_open or self._complete:
            # Nothing was asked: a late 408, or bytes meant to be taken for the next answer.
            self._spoil()
            return
        self.feed(data)
        if self._error is not None:
            self.fail(self._error)
            return
        if self._unread > HIGH_WATER_BYTES and not self._paused and not self._complete:
            self._paused = True
            self._transport.pause_reading()
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.has_head or self._continue):
            waiter.set_result(None)

    def _spoil(self) -> None:
        """Close the socket because the endpoint broke the rules, but leave a complete answer to its owner."""
        self._is_spoiled = True
        self._close_socket()

    def eof_received(self) -> None:
        """Take the endpoint's end for ours: the transport would first write what nobody may read."""
        self._transport.abort()
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Decide whether the end of the connection is the end of the body, a cut answer or an idle close."""
        was_closed = self._is_closed
        self._is_closed = True
        is_under_way = self._is_open and not self._complete and self._error is None
        if is_under_way and exc is not None and not was_closed:
            self._take_what_has_arrived()
            is_under_way = not self._complete and self._error is None
        if is_under_way and (exc is not None or not self._is_proper_end() or not self.end_of_connection()):
            self._error = self._lost(exc)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._wake()
        if not was_closed:
            self._on_closed(self)

    def _take_what_has_arrived(self) -> None:
        """Read on after a write has failed: an endpoint may refuse a body, close, and reset what still comes.

        Its answer then waits in the socket, which the transport closes after this. Over TLS it is lost.
        """
        if self._transport.get_extra_info("ssl_object") is not None:
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):  # it would block: that was all; or the reset itself
            while not self._complete and self._error is None and (data := os.read(descriptor, 65536)):
                self.feed(data)

    def _is_proper_end(self) -> bool:
        """Say whether the endpoint has ended it: over TLS, anyone on the way can (RFC 9112 9.8)."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)  # b"" is what close_notify gives
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def pause_writing(self) -> None:
        """Note that the socket's buffer is full."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """Note that the socket takes bytes again."""
        self.is_write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _lost(self, exc: Exception | None) -> UpstreamError:
        how = f"closed by the endpoint ({exc})" if exc else "closed by the endpoint"
        if self.has_head:
            return UpstreamError(Cause.ANSWER_INCOMPLETE, f"the answer's body was cut: {how}", Sent.MAYBE)
        if self._head_bytes == 0:
            sent = Sent.REUSED if self._exchanges > 1 else Sent.MAYBE
            return UpstreamError(Cause.CONNECTION_RESET, f"{how} before the answer's first byte", sent)
        return UpstreamError(Cause.ANSWER_INCOMPLETE, f"the answer's head was cut: {how}", Sent.MAYBE)
