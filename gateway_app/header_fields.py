"""Header fields: which end at this hop, and how list-valued ones are read (RFC 9110 5.6.1, 7.6.1).

Fields are ASGI's: a sequence of (lower-case name, value) byte pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.problem import Cause, GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterable

Field = tuple[bytes, bytes]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Never passed on, in either direction: each side of the gateway has its own connection and framing."""

NOT_NOMINABLE: Final = frozenset(
    {
        b"accept",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"origin",
        b"pragma",
        b"range",
        b"referer",
        b"set-cookie",
        b"user-agent",
        b"vary",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
"""End-to-end fields that `Connection` must not name (RFC 9110 7.6.1: "intended for all recipients").

Naming one is an attempt to have a proxy remove what the backend decides by.
"""

_PLAIN_CONNECTION: Final = frozenset({b"", b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"Upgrade"})


_IN_NAME: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_IN_VALUE: Final = bytes({*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)})


def check_answer(status: int, fields: list[Field]) -> None:
    """Check a head that no parser has read: servers answer 500 for what is in none, or even stop.

    Raises:
        ValueError: the status is none of a final answer, or a field is malformed (RFC 9110 5.1, 5.5).

    """
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is no status of a final answer")
    names, values = zip(*fields, strict=True) if fields else ((), ())
    if (
        b"" in names
        or b"".join(names).translate(None, _IN_NAME)
        or b"".join(values).translate(None, _IN_VALUE)
    ):
        raise ValueError("the answer has a malformed field")


def list_members(value: bytes) -> list[bytes]:
    """Return the members of a comma-separated value, without surrounding white space and empty ones.

    For values whose members hold no quoted strings (RFC 9110 5.6.1.2).
    """
    return [member for part in value.split(b",") if (member := part.strip(b" \t"))]


def nominated_by(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case names of the fields that a `Connection` value declares hop-by-hop."""
    if connection in _PLAIN_CONNECTION:
        return frozenset()
    return frozenset(option.lower() for option in list_members(connection))


def checked_nominations(connection: bytes) -> frozenset[bytes]:
    """Return what a client's `Connection` value names.

    Raises:
        GatewayError: it names a field that is never hop-by-hop (`NOT_NOMINABLE`).

    """
    nominated = nominated_by(connection)
    if refused := nominated & NOT_NOMINABLE:
        names = ", ".join(sorted(name.decode("latin-1") for name in refused))
        raise GatewayError(Cause.MALFORMED, f"Connection names {names}, which is for all recipients")
    return nominated


def without_hop_by_hop(fields: Iterable[Field]) -> list[Field]:
    """Return an answer's fields without those that end at this hop, the ones `Connection` names among them.

    A nomination of an end-to-end field is ignored: the field is kept.
    """
    kept: list[Field] = []
    nominated: frozenset[bytes] = frozenset()
    for field in fields:
        name = field[0]
        if name not in HOP_BY_HOP:
            kept.append(field)
        elif name == b"connection":
            nominated |= nominated_by(field[1])
    nominated -= NOT_NOMINABLE
    return [field for field in kept if field[0] not in nominated] if nominated else kept
