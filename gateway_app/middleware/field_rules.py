"""Which header fields a configuration may name and set, checked once when it is compiled.

Names are tokens (RFC 9110 5.6.2) and stored in lower case, as ASGI has them. Values are printable ASCII, so
that no value can end its line. Fields that frame a message or belong to one connection are the gateway's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[ -~\t]*")

OWN_FIELDS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Framing, the host and hop-by-hop fields: `backends.NAME.host` sets the host, nothing sets the others."""


def field_name(option: str, name: str) -> bytes:
    """Return `name` in lower case.

    Raises:
        ValueError: it is no field name; the message begins with `option`.

    """
    if not TOKEN.fullmatch(name):
        raise ValueError(f'{option}: {name!r} is no field name; accepted are letters, digits and "-"')
    return name.lower().encode()


def own_name_refused(option: str, name: str) -> bytes:
    """Return `name` in lower case, where a configuration may change that field.

    Raises:
        ValueError: it is no field name, or one of `OWN_FIELDS`.

    """
    encoded = field_name(option, name)
    if encoded in OWN_FIELDS:
        hint = "set it with the backend's host key" if encoded == b"host" else "the gateway sets it itself"
        raise ValueError(f"{option}: {name!r} frames the message or belongs to the connection; {hint}")
    return encoded


def changeable_names(option: str, names: Iterable[str]) -> frozenset[bytes]:
    """Return `names` in lower case; raises ValueError as `own_name_refused` does."""
    return frozenset(own_name_refused(option, name) for name in names)


def field_value(option: str, name: str, value: str) -> bytes:
    """Return `value` encoded.

    Raises:
        ValueError: it has characters other than printable ASCII.

    """
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{option}: the value of {name}, {value!r}, must be printable ASCII on one line")
    return value.strip().encode()


def encoded_field(option: str, name: str, value: str) -> tuple[bytes, bytes]:
    """Return a field as ASGI has it; raises ValueError as `own_name_refused` and `field_value` do."""
    return own_name_refused(option, name), field_value(option, name, value)
