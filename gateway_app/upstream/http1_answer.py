"""An HTTP/1.1 answer as it arrives: bytes in, state out; no socket, no clock (RFC 9112).

httptools parses the head and chunked bodies; a body of known length goes past it, since the parser would copy
each piece once more. States, each ending the one before: waiting → head → body → complete; `_error` ends all.
"""

from __future__ import annotations

import httptools

from gateway_app.header_fields import HOP_BY_HOP, NOT_NOMINABLE, nominated_by
from gateway_app.problem import Cause
from gateway_app.upstream.transport import FieldList, Sent, UpstreamError

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 256
MAX_INFORMATIONAL = 16
"""Interim (1xx) answers taken for one request before the endpoint is held to be broken."""

_NOTED = HOP_BY_HOP | {b"content-length"}
_NOTHING: frozenset[bytes] = frozenset()


class Http1Answer:
    """The answers of one connection, one after the other.

    Attributes:
        has_head: the final answer's head has arrived.
        status: valid from then on.
        headers: the end-to-end fields, lower-case names, in order; valid likewise.
        keep_alive_s: what the endpoint's `Keep-Alive: timeout` said, None if nothing.
    """

    __slots__ = (
        "_bypass_left",
        "_chunked",
        "_chunks",
        "_complete",
        "_continue",
        "_error",
        "_expects_no_body",
        "_fields",
        "_head_bytes",
        "_informational",
        "_is_spoiled",
        "_length",
        "_nominated",
        "_parser",
        "_unread",
        "has_head",
        "headers",
        "keep_alive_s",
        "status",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_spoiled = False  # nothing may be asked on the connection after this answer
        self._error: Exception | None = None
        self._bypass_left = 0  # what is still to come of a body of known length
        self.keep_alive_s: float | None = None
        self.status = 0
        self.expect("GET")

    def expect(self, method: str) -> None:
        """Begin with the answer to a request of this method; the one before was complete and not spoiled."""
        fields: FieldList = []
        self.headers = self._fields = fields
        self._chunks: list[bytes] = []
        self._unread = 0
        self._head_bytes = 0  # of the head, and then of what comes between two pieces of the body
        self.has_head = False
        self._complete = False
        self._chunked = False
        self._length: int | None = None
        self._informational = 0
        self._continue = False
        self._nominated = _NOTHING
        self._expects_no_body = method == "HEAD"

    def feed(self, data: bytes) -> None:
        """Take bytes of an answer that is not complete; what is wrong with them is in `_error` afterwards."""
        if self._bypass_left:
            self._pass_through(data)
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._take_parser_error(error)
        if not self._complete and self._error is None:
            self._after_part()

    def end_of_connection(self) -> bool:
        """Take the end of the connection for the end of the answer; False if it is none (RFC 9112 6.3)."""
        if self.has_head and self._length is None and not self._chunked:
            self._complete = True
        return self._complete

    def _take_parser_error(self, error: Exception) -> None:
        if isinstance(error, httptools.HttpParserUpgrade):
            self._error = _bad_answer("it switched protocols though nobody asked it to")
        elif isinstance(error, httptools.HttpParserCallbackError):
            cause = error.__context__
            self._error = cause if isinstance(cause, UpstreamError) else _bad_answer(str(cause or error))
        elif self._complete:
            self._is_spoiled = True  # bytes behind a complete answer are not its fault
        else:
            self._error = _bad_answer(str(error))

    def _after_part(self) -> None:
        """Bound what is not body; leave the parser out of the rest of a body of known length."""
        if self._head_bytes > MAX_HEAD_BYTES:
            part = "line of a chunk, or the trailer section," if self.has_head else "head"
            detail = f"the answer's {part} is larger than {MAX_HEAD_BYTES} bytes"
            self._error = UpstreamError(Cause.ANSWER_FIELDS_TOO_LARGE, detail, Sent.MAYBE)
        elif self.has_head and self._length is not None and not self._chunked:
            self._bypass_left = self._length - self._unread
            self._parser = httptools.HttpResponseParser(self)

    def _pass_through(self, data: bytes) -> None:
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

    # ------------------------------------------------------------ called by httptools

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
        self.has_head = True
        self._head_bytes = 0
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
        self._head_bytes = 0
        self._chunks.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """Take note that an answer has ended, an interim one perhaps."""
        if self.has_head:
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
        if self.has_head:
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
