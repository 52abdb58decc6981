"""HTTP/1.1 towards an endpoint: one connection, one exchange at a time (RFC 9112).

httptools parses, this protocol moves bytes and keeps the exchange's state; `http1_pool.py` decides which
connection carries which request. The owner of an exchange calls, in this order:

    start(data, method)          writes the request's head, and its body where it is at hand
    write(piece)…                only for a streamed body, obeying `drained()`; then `finish_request()`
    await head()                 waits for the final answer's head; `status` and `headers` are set
    take() / await read()…
    close()                      hands the connection back or drops it

States of the answer, each ending the one before: waiting → head → body → complete; `_error` ends all of them.
Whether a connection carries another exchange is decided in one place, `close`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from gateway_app.header_fields import HOP_BY_HOP, NOT_NOMINABLE, nominated_by
from gateway_app.problem import Cause
from gateway_app.upstream.transport import FieldList, Sent, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 256
MAX_INFORMATIONAL = 16
"""Interim (1xx) answers taken for one request before the endpoint is held to be broken."""
HIGH_WATER_BYTES = 64 * 1024
"""Unread body bytes at which the socket is read no further."""

_NOTED = HOP_BY_HOP | {b"content-length"}
_NOTHING: frozenset[bytes] = frozenset()


class Http1Connection(asyncio.Protocol):
    """One connection to an endpoint and the exchange on it.

    Attributes:
        status: the answer's status, valid once `head()` has returned.
        headers: the answer's end-to-end fields, lower-case names, in order.
        idle_until: loop time after which an idle connection must not be used again; the pool sets it.
        is_write_paused: the socket takes no more for now.
        upload: the task that still sends the request's body, if there is one; ended with the exchange.
        loop: the event loop that the connection lives on.
        keep_alive_s: what the endpoint's `Keep-Alive: timeout` said, None if nothing.
    """

    __slots__ = (
        "_bypass_left",
        "_chunked",
        "_chunks",
        "_complete",
        "_continue",
        "_drained",
        "_error",
        "_exchanges",
        "_expects_no_body",
        "_fields",
        "_head_bytes",
        "_head_done",
        "_informational",
        "_is_closed",
        "_is_open",
        "_is_spoiled",
        "_length",
        "_nominated",
        "_on_closed",
        "_on_free",
        "_parser",
        "_paused",
        "_request_done",
        "_transport",
        "_unread",
        "_waiter",
        "headers",
        "idle_until",
        "is_write_paused",
        "keep_alive_s",
        "loop",
        "status",
        "upload",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[Http1Connection], None],
        on_closed: Callable[[Http1Connection], None],
    ) -> None:
        self.loop = loop
        self._on_free = on_free
        self._on_closed = on_closed
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any use
        self._parser = httptools.HttpResponseParser(self)
        self._exchanges = 0
        self._is_open = False  # an exchange is under way
        self._is_closed = False  # the socket is gone or about to be
        self._is_spoiled = False  # this exchange is the connection's last
        self.is_write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_until = 0.0
        self.keep_alive_s: float | None = None
        self.upload: asyncio.Task[None] | None = None
        self.status = 0
        # A connection that carries another exchange has these as they are here: see `close`.
        self._error: Exception | None = None
        self._paused = False
        self._bypass_left = 0
        self._reset("GET")

    def _reset(self, method: str) -> None:
        fields: FieldList = []
        self.headers = self._fields = fields
        self._chunks: list[bytes] = []
        self._unread = 0
        self._head_bytes = 0
        self._head_done = False
        self._complete = False
        self._chunked = False
        self._length: int | None = None
        self._informational = 0
        self._continue = False
        self._nominated = _NOTHING
        self._expects_no_body = method == "HEAD"

    # ------------------------------------------------------------ the exchange, called by its owner

    @property
    def is_usable(self) -> bool:
        """Say whether a new exchange may start here."""
        return not (self._is_closed or self._is_open)

    @property
    def has_head(self) -> bool:
        """Say whether the final answer's head has arrived."""
        return self._head_done

    def start(self, data: bytes, method: str, *, is_whole: bool = True) -> None:
        """Begin an exchange by writing `data`: the head, and the body if `is_whole`."""
        self._reset(method)
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

    async def head(self) -> None:
        """Wait for the final answer's head. Raises UpstreamError."""
        while not self._head_done:
            if self._error is not None:
                raise self._error
            self._waiter = self.loop.create_future()
            await self._waiter

    async def continued(self) -> bool:
        """Wait for 100 (Continue) or the final head; True if the body may be sent (RFC 9110 10.1.1)."""
        while not (self._continue or self._head_done):
            if self._error is not None:
                raise self._error
            self._waiter = self.loop.create_future()
            await self._waiter
        return not self._head_done

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
            if self._error is not None:
                raise self._error
            self._waiter = self.loop.create_future()
            await self._waiter
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
        if self._bypass_left:
            self._pass_through(data)
        else:
            if not self._head_done:
                self._head_bytes += len(data)
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._take_parser_error(error)
        if not self._complete:
            self._after_part()
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self._head_done or self._continue):
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
        if self._is_open and not self._complete and self._error is None:
            if self._head_done and self._length is None and not self._chunked and exc is None:
                self._complete = True
            else:
                self._error = self._lost(exc)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._wake()
        if not was_closed:
            self._on_closed(self)

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
        if self._head_done:
            return UpstreamError(Cause.ANSWER_INCOMPLETE, f"the answer's body was cut: {how}", Sent.MAYBE)
        if self._head_bytes == 0:
            sent = Sent.REUSED if self._exchanges > 1 else Sent.MAYBE
            return UpstreamError(Cause.CONNECTION_RESET, f"{how} before the answer's first byte", sent)
        return UpstreamError(Cause.ANSWER_INCOMPLETE, f"the answer's head was cut: {how}", Sent.MAYBE)

    # ------------------------------------------------------------ parsing

    def _take_parser_error(self, error: Exception) -> None:
        if isinstance(error, httptools.HttpParserUpgrade):
            self.fail(_bad_answer("it switched protocols though nobody asked it to"))
        elif isinstance(error, httptools.HttpParserCallbackError):
            cause = error.__context__
            self.fail(cause if isinstance(cause, UpstreamError) else _bad_answer(str(cause or error)))
        elif self._complete:
            self._is_spoiled = True  # bytes behind a complete answer are not its fault
        else:
            self.fail(_bad_answer(str(error)))

    def _after_part(self) -> None:
        """Bound what has come of an answer that goes on: a head by its size, a body by not reading further.

        The parser is left out of the rest of a body of known length.
        """
        if self._is_closed:
            return
        if not self._head_done:
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"the answer's head is larger than {MAX_HEAD_BYTES} bytes"
                self.fail(UpstreamError(Cause.ANSWER_FIELDS_TOO_LARGE, detail, Sent.MAYBE))
            return
        if self._length is not None and not self._chunked and not self._bypass_left:
            self._bypass_left = self._length - self._unread
            self._parser = httptools.HttpResponseParser(self)
        if self._unread > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _pass_through(self, data: bytes) -> None:
        """Take body bytes of known length as they are: the parser would copy each piece once more."""
        left = self._bypass_left - len(data)
        if left < 0:
            data = data[:left]
            self._is_spoiled = True
            left = 0
        self._bypass_left = left
        self._chunks.append(data)
        self._unread += len(data)
        if left == 0:
            self._complete = True

    def on_message_begin(self) -> None:
        """Take note that an answer begins (httptools calls this)."""
        if self._complete:
            self._is_spoiled = True
            self._fields = []  # an answer that nobody asked for must leave nothing in the one before

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one field (httptools calls this)."""
        name = name.lower()
        if name in _NOTED:
            self._note(name, value)
        else:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide how the body is framed (RFC 9112 6.3), once the head is whole."""
        if self._complete:
            return
        parser = self._parser
        status = parser.get_status_code()
        if status < 100:
            raise _bad_answer(f"{status} is no status")
        if status < 200:
            self._take_interim(status)
            return
        headers = self._fields
        if len(headers) > MAX_FIELDS:
            detail = f"the answer has more than {MAX_FIELDS} fields"
            raise UpstreamError(Cause.ANSWER_FIELDS_TOO_LARGE, detail, Sent.MAYBE)
        self.status = status
        if self._nominated:
            self.headers = [field for field in headers if field[0] not in self._nominated]
        if self._chunked:
            self._fields = []  # what comes now are trailers (RFC 9110 6.5), which are none of the head's
        self._head_done = True
        if not parser.should_keep_alive():
            self._is_spoiled = True
        if self._expects_no_body:
            # The parser does not know that this answers a HEAD and would wait for the body.
            self._complete = True
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._complete:
            self._is_spoiled = True
            return
        self._chunks.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """Take note that an answer has ended, an interim one perhaps."""
        if self._head_done:
            self._complete = True

    def _take_interim(self, status: int) -> None:
        if status == 101:
            raise _bad_answer("it switched protocols though nobody asked it to")
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            raise _bad_answer(f"more than {MAX_INFORMATIONAL} interim answers")
        if status == 100:
            self._continue = True
        self.headers = self._fields = []
        self._nominated = _NOTHING
        self._length = None
        self._chunked = False
        self._head_bytes = 1  # something has arrived, and the bound counts anew

    def _note(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return
        if name == b"content-length":
            self._length = int(value)
            self._fields.append((name, value))
        elif name == b"transfer-encoding":
            if self._chunked or value.strip().lower() != b"chunked":
                raise _bad_answer(f"transfer coding {value[:40]!r} is not supported")
            self._chunked = True
        elif name == b"keep-alive":
            self.keep_alive_s = _keep_alive_timeout(value)
        elif name == b"connection":
            self._nominated |= nominated_by(value) - NOT_NOMINABLE


def _keep_alive_timeout(value: bytes) -> float | None:
    """Read `timeout=N` of a Keep-Alive field; None if there is none."""
    for parameter in value.split(b","):
        key, _, number = parameter.strip().partition(b"=")
        if key.lower() == b"timeout" and number.isdigit():
            return float(number[:6])
    return None


def _bad_answer(why: str) -> UpstreamError:
    return UpstreamError(Cause.BAD_ANSWER, f"the endpoint's answer is malformed: {why}", Sent.MAYBE)
