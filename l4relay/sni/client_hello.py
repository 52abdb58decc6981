"""The server name in a TLS ClientHello, read without terminating anything.

RFC 8446 5.1 (records) and 4.1.2 (ClientHello), which older versions of TLS share in form, and RFC 6066 3
(server_name). Pure: bytes in, answer out. With Encrypted Client Hello the outer, public name is what is seen.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_BYTES: Final = 16 * 1024
"""The bound on what is read, records and all. Hellos with post-quantum key shares take about 2 KiB."""

_RECORD_START: Final = b"\x16\x03"
"""A handshake record (22) of any TLS version: the first byte has been 3 since SSL 3.0."""

_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_MAX_RECORD: Final = 1 << 14
_NAME: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}")


class Verdict(Enum):
    """An answer other than a name."""

    NEED_MORE = "need more"
    NO_NAME = "TLS without a name"
    NOT_TLS = "not TLS"


@dataclass(frozen=True, slots=True)
class Found:
    """The name that the client asks for, in lower case, without a trailing dot."""

    name: str


Answer = Found | Verdict


class ClientHelloReader:
    """Reads one connection's first bytes, however they are split into segments and TLS records.

    Each byte is looked at once, so a client gains nothing by sending them one at a time. Keeping the bytes
    for the endpoint is left to the caller.

    Args:
        max_bytes: A hello that is not complete after so many bytes counts as one without a name.

    """

    __slots__ = ("_max_bytes", "_message", "_pending", "_seen")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._seen = 0
        self._pending = bytearray()  # a record that is not complete yet
        self._message = bytearray()  # the handshake message gathered from the records before it

    def feed(self, segment: bytes | bytearray | memoryview) -> Answer:
        """Take the next bytes; anything but NEED_MORE is final.

        NOT_TLS stands for a malformed hello, too: there is no name either way, and the endpoint will answer.
        """
        self._seen += len(segment)
        self._pending += segment
        if not self._take_records():
            return Verdict.NOT_TLS
        length = self._message_length()
        if length is not None and len(self._message) >= length:
            return _read_hello(bytes(self._message[_MESSAGE_HEADER:length]))
        if self._seen >= self._max_bytes or (length or 0) > self._max_bytes:
            return Verdict.NO_NAME
        return Verdict.NEED_MORE

    def _message_length(self) -> int | None:
        if len(self._message) < _MESSAGE_HEADER:
            return None
        return _MESSAGE_HEADER + int.from_bytes(self._message[1:_MESSAGE_HEADER], "big")

    def _take_records(self) -> bool:
        """Move whole records' contents to the message; False if they cannot be a ClientHello's."""
        pending, position = self._pending, 0
        while position < len(pending):
            if not pending.startswith(_RECORD_START[: len(pending) - position], position):
                return False
            start = position + _RECORD_HEADER
            if start > len(pending):
                break
            length = int.from_bytes(pending[start - 2 : start], "big")
            if not 0 < length <= _MAX_RECORD:  # 5.1: a handshake record is never empty
                return False
            if not self._message and len(pending) > start and pending[start] != _CLIENT_HELLO:
                return False
            if start + length > len(pending):
                break
            self._message += pending[start : start + length]
            position = start + length
            message_length = self._message_length()
            if message_length is not None and len(self._message) >= message_length:
                break  # what follows the hello, early data for instance, is not ours to judge
        del pending[:position]
        return True


class _TruncatedError(Exception):
    """A length inside the hello reaches over the end of what holds it."""


class _Cursor:
    """Takes fields off the front of a byte string."""

    __slots__ = ("_end", "_octets", "_position")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0
        self._end = len(octets)

    def __bool__(self) -> bool:
        return self._position < self._end

    def take(self, count: int) -> bytes:
        start = self._position
        self._position = start + count
        if self._position > self._end:
            raise _TruncatedError
        return self._octets[start : self._position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        """Take a vector: its length in `length_size` bytes, then its content (RFC 8446 3.4)."""
        return self.take(self.number(length_size))


def _read_hello(body: bytes) -> Answer:
    try:
        hello = _Cursor(body)
        hello.take(2 + 32)  # legacy_version, random
        hello.vector(1)  # legacy_session_id
        hello.vector(2)  # cipher_suites
        hello.vector(1)  # legacy_compression_methods
        if not hello:
            return Verdict.NO_NAME  # before TLS 1.3 the extensions may be missing
        extensions = _Cursor(hello.vector(2))
        while extensions:
            kind, content = extensions.number(2), extensions.vector(2)
            if kind == _SERVER_NAME:
                return _read_name_list(content)
    except _TruncatedError:
        return Verdict.NOT_TLS
    return Verdict.NO_NAME


def _read_name_list(content: bytes) -> Answer:
    names = _Cursor(_Cursor(content).vector(2))
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            if not _NAME.fullmatch(name):  # RFC 6066 3: ASCII, internationalised names as A-labels
                return Verdict.NO_NAME
            return Found(name.decode("ascii").lower().rstrip("."))
    return Verdict.NO_NAME
