"""The request target in one form: what routes are matched on is what is forwarded.

A client can write the same path in many ways: ``/admin``, ``//admin``, ``/%61dmin``, ``/api/../admin``. Every
backend undoes some of them, so a rule that compared the bytes as they came could be walked around. Here each
target is brought into the normal form of RFC 3986 6.2.2 (or refused), and that form goes out. From it follow
two texts: the fully decoded path that ASGI applications expect, and the one that routes are compared with,
in which only escapes that would change the path's structure stay escaped.

The query is data of the backend's own: it is checked for bytes that no target may carry and never changed.
docs/routing.md says what becomes of every unusual target. Where the host comes from is RFC 9112 3.2.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway_app.problem import Cause, GatewayError

Treatment = Literal["refuse", "keep"]

MAX_TARGET_BYTES: Final = 8192
"""RFC 9112 3 asks for 8000 octets at least; longer is answered with 414."""

USUAL_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
"""Methods that need no `TargetReader.check`."""

_VISIBLE: Final = bytes(range(0x21, 0x7F))
_PLAIN: Final = bytes(byte for byte in _VISIBLE if byte not in b"%;\\#?")
"""Bytes that stand in a path for themselves and need no second look."""
_IN_PATH: Final = _PLAIN + b"%;"
_IN_QUERY: Final = bytes(byte for byte in _VISIBLE if byte != ord("#"))
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED_DATA: Final = re.compile(rb"(?:%(?!25|2F|5C)[0-9A-F]{2})+")
_DOTS_BEHIND_ESCAPED_SLASH: Final = re.compile(rb"%(?:2F|5C)\.\.?(?:[/;]|%2F|%5C|%3B|$)|/\.\.?%(?:2F|5C)")
_ABSOLUTE: Final = re.compile(rb"(?:https?|wss?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class TargetError(GatewayError):
    """The request target is none that the gateway forwards; the client is told why (400 or 414)."""


class Target(NamedTuple):
    r"""A request target in its normal form.

    Attributes:
        raw_path: the path that is forwarded, percent-encoded; ``*`` for ``OPTIONS *``.
        path: the same path as routes are matched on: escapes decoded, except those of ``% / \`` and, where
            path parameters are kept, without them.
        decoded: the same path fully percent-decoded, for ``scope["path"]``.
        authority: host and port of an absolute-form target, which take the place of the Host field
            (RFC 9112 3.2.2); None for any other form.

    """

    raw_path: bytes
    path: str
    decoded: str
    authority: bytes | None


class TargetReader:
    """Brings request targets into the normal form.

    Args:
        encoded_slashes: ``%2F`` and ``%5C`` in a path. "refuse": the request is answered with 400; "keep":
            they are data, never a separator, both in matching and in what is forwarded.
        path_parameters: ``;x`` in a segment. "refuse": 400, for ``%3B`` too, since some servers decode first
            and cut afterwards; "keep": parameters are forwarded and do not count in matching.

    """

    __slots__ = ("_escapes", "_path_parameters")

    def __init__(
        self, *, encoded_slashes: Treatment = "refuse", path_parameters: Treatment = "refuse"
    ) -> None:
        self._path_parameters = path_parameters
        self._escapes = _escape_table(encoded_slashes, path_parameters)

    def read(self, method: str, raw_path: bytes, query: bytes = b"") -> Target:
        """Return the normal form of a request's target, given without its query, and check the query.

        Raises:
            TargetError: the target is malformed, ambiguous, too long, or none for `method`.

        """
        self.check(method, raw_path, query)
        return self._read(method, raw_path, query)

    def check(self, method: str, raw_path: bytes, query: bytes) -> None:
        """Check the method and the query, which do not depend on the path's form. Raises TargetError."""
        if query:
            if query.translate(None, _IN_QUERY):
                raise _unusable("query", query, _IN_QUERY)
            if len(raw_path) + 1 + len(query) > MAX_TARGET_BYTES:
                raise _too_long()
        if method == "CONNECT":
            raise TargetError(Cause.MALFORMED, "CONNECT is not served here")
        if method != method.upper():  # to us "post" is another method than POST, to many backends it is not
            raise TargetError(Cause.MALFORMED, "a method is written in capitals")

    def normalise(self, raw_path: bytes) -> bytes:
        """Return an absolute path in its normal form.

        Raises:
            TargetError: it is malformed or ambiguous.

        """
        if raw_path.translate(None, _IN_PATH):
            raise _unusable("path", raw_path, _IN_PATH)
        if b"%" in raw_path:
            if _BROKEN_ESCAPE.search(raw_path):
                raise TargetError(
                    Cause.MALFORMED, "the path has a % that two hexadecimal digits do not follow"
                )
            raw_path = _ESCAPE.sub(self._replace_escape, raw_path)
        if b";" in raw_path or b"%3B" in raw_path:
            self._check_parameters(raw_path)
        if _DOTS_BEHIND_ESCAPED_SLASH.search(raw_path):
            raise TargetError(Cause.MALFORMED, "an encoded slash stands beside a dot segment")
        if b"//" in raw_path or b"/." in raw_path:
            raw_path = _resolve_segments(raw_path)
        return raw_path

    def _read(self, method: str, raw_path: bytes, query: bytes) -> Target:
        if len(raw_path) > MAX_TARGET_BYTES:
            raise _too_long()
        if (  # the common case: nothing escaped, no dot segment, no empty one
            raw_path.startswith(b"/")
            and not raw_path.translate(None, _PLAIN)
            and b"/." not in raw_path
            and b"//" not in raw_path
        ):
            path = raw_path.decode("ascii")
            return Target(raw_path, path, path, None)
        authority = None
        if not raw_path.startswith(b"/"):
            if raw_path != b"*":
                authority, raw_path = _split_absolute(raw_path)
            # An OPTIONS request for a URL without path and query is meant for the server (RFC 9112 3.2.4).
            if raw_path == b"*" or (not raw_path and not query and method == "OPTIONS"):
                return _asterisk(method, query, authority)
            raw_path = raw_path or b"/"
        raw_path = self.normalise(raw_path)
        return Target(raw_path, path_for_matching(raw_path), _decode(unquote_to_bytes(raw_path)), authority)

    def _replace_escape(self, escape: re.Match[bytes]) -> bytes:
        replacement = self._escapes[int(escape[1], 16)]
        if replacement is None:
            raise TargetError(Cause.MALFORMED, f"{escape[0].decode()} is not accepted in a path")
        return replacement

    def _check_parameters(self, raw_path: bytes) -> None:
        if self._path_parameters == "refuse":
            raise TargetError(Cause.MALFORMED, "path parameters (;) are not accepted")
        for segment in raw_path.split(b"/"):
            # A server that cuts parameters before it resolves dots reads "/..;x/" as "/../", and one that
            # decodes before both reads "/..%3Bx/" so.
            name, parameter, _ = segment.replace(b"%3B", b";").partition(b";")
            if parameter and name in (b"", b".", b".."):
                raise TargetError(Cause.MALFORMED, "a path parameter follows an empty or dot segment")


def path_for_matching(raw_path: bytes) -> str:
    r"""Return the text that routes are compared with, for a path in its normal form.

    Two paths that a backend could take for the same one give the same text: ``/a%3Ab`` and ``/a:b`` do,
    though RFC 3986 2.2 keeps them apart and both are forwarded as they are. Escapes of ``% / \`` stay, so
    that no text stands for two different paths.

    Raises:
        TargetError: an escape sequence is not UTF-8.

    """
    if b";" in raw_path:
        raw_path = b"/".join([segment.partition(b";")[0] for segment in raw_path.split(b"/")])
    if b"%" in raw_path:
        raw_path = _ESCAPED_DATA.sub(lambda escapes: unquote_to_bytes(escapes[0]), raw_path)
    return _decode(raw_path)


def _escape_table(encoded_slashes: Treatment, path_parameters: Treatment) -> tuple[bytes | None, ...]:
    """Return what each of the 256 escapes becomes, None where it is refused."""
    table: list[bytes | None] = []
    for byte in range(256):
        refused = (
            byte < 0x20  # a line break among them: it would end what "." of a regular expression matches
            or byte == 0x7F
            or (byte in b"/\\" and encoded_slashes == "refuse")
            or (byte in b";" and path_parameters == "refuse")
        )
        replacement = bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte
        table.append(None if refused else replacement)
    return tuple(table)


def _resolve_segments(raw_path: bytes) -> bytes:
    """Drop empty segments, then resolve ``.`` and ``..`` (RFC 3986 5.2.4); above the root is the root."""
    kept: list[bytes] = []
    segments = raw_path.split(b"/")
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    if kept and segments[-1] in (b"", b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """Return authority and path of an absolute-form target (RFC 9112 3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise TargetError(Cause.MALFORMED, "the target is neither a path nor an http URL")
    if not absolute[1]:
        raise TargetError(Cause.MALFORMED, "the target is a URL without a host")
    return absolute[1], absolute[2]


def _asterisk(method: str, query: bytes, authority: bytes | None) -> Target:
    if method != "OPTIONS" or query:
        raise TargetError(Cause.MALFORMED, 'the target "*" is for OPTIONS alone')
    return Target(b"*", "*", "*", authority)


def _decode(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(Cause.MALFORMED, "the path's percent-escapes are not UTF-8") from error


def _too_long() -> TargetError:
    return TargetError(Cause.TARGET_TOO_LONG, f"a target has at most {MAX_TARGET_BYTES} bytes")


def _unusable(part: str, text: bytes, usable: bytes) -> TargetError:
    byte = text.translate(None, usable)[0]
    return TargetError(Cause.MALFORMED, f"the {part} has the byte 0x{byte:02X}, which is not accepted there")
