"""Request fields that are known to be abused: what each preset of `header_filter` looks for.

Pure functions over ASGI fields, (lower-case name, value) byte pairs. `may_be_suspicious_names` and
`may_be_suspicious` tell quickly that a request has nothing of all this; only else the rules look closely.

The edge refuses or removes some of it before a middleware runs (framing, Host, what `Connection` names); the
rules hold without it too, so that the filter means the same in any pipeline.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway_app.header_fields import checked_nominations
from gateway_app.problem import GatewayError

Field = tuple[bytes, bytes]
Rule = Callable[[Sequence[Field]], str]
"""Returns what is wrong with a request's fields, "" if nothing is."""

MAX_FIELDS: Final = 100
MAX_FIELD_BYTES: Final = 8192
"""For a name and its value each. What common servers accept in one field: more is refused by the next hop."""

URL_OVERRIDES: Final = frozenset(
    {
        b"x-middleware-subrequest",  # Next.js skipped its middleware, CVE-2025-29927
        b"x-original-uri",
        b"x-original-url",  # Symfony, Zend, ASP.NET: another path than the one that routes and rules saw
        b"x-override-url",
        b"x-rewrite-url",
    }
)

SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"if-modified-since",
        b"max-forwards",
        b"range",
        b"transfer-encoding",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)
"""Fields of which a second makes two readers see two different requests (RFC 9110 5.3)."""

GUARDED: Final = SINGLE | {
    b"connection",
    b"cookie",
    b"forwarded",
    b"proxy",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-port",
    b"x-real-ip",
    b"x-request-id",
}
"""What servers of the CGI manner (WSGI, PHP) cannot tell from the name with "_" for "-"."""

_WATCHED: Final = URL_OVERRIDES | {b"", b"proxy", b"connection", b"transfer-encoding"}
_TOKEN_BYTES: Final = b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyz"  # "_" is looked at closely
_HARMLESS_BYTES: Final = bytes({*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)} - {*b"{"})
"""What a value may hold, but for the brace of "${" and "() {"."""
_NOT_TEXT: Final = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_NOT_TOKEN: Final = re.compile(rb"[^!#$%&'*+.^_`|~0-9a-zA-Z-]")

_FUNCTION: Final = re.compile(rb"\(\s*\)\s*\{")
_JNDI: Final = re.compile(r"\$\{\s*JNDI\s*:")
_LOOKUP: Final = re.compile(r"\$\{([^${}]*)\}")
_MAX_LOOKUPS: Final = 16
"""Rounds of nested look-ups that are undone; deeper nesting has no other purpose than to hide something."""


def may_be_suspicious_names(names: Sequence[bytes]) -> bool:
    """Return False only if no rule below has anything to say about fields for their names."""
    text = b"".join(names)
    return (
        len(set(names)) < len(names)
        or not _WATCHED.isdisjoint(names)
        or len(names) > MAX_FIELDS
        or len(text) > MAX_FIELD_BYTES
        or text.translate(None, _TOKEN_BYTES) != b""
    )


def may_be_suspicious(values: Sequence[bytes]) -> bool:
    """Return False only if no rule below has anything to say about fields for their values."""
    text = b" ".join(values)
    return len(text) > MAX_FIELD_BYTES or text.translate(None, _HARMLESS_BYTES) != b""


def _httpoxy(fields: Sequence[Field]) -> str:
    """CGI programs take `Proxy` for the variable HTTP_PROXY (CVE-2016-5385 and others)."""
    return "the field Proxy (httpoxy)" if any(name == b"proxy" for name, _ in fields) else ""


def _url_override(fields: Sequence[Field]) -> str:
    """Fields that make some frameworks serve another path than the one that was routed and filtered."""
    found = [name for name, _ in fields if name.replace(b"_", b"-") in URL_OVERRIDES]
    return f"the field {_text(found[0])}, which overrides the path" if found else ""


def _framing(fields: Sequence[Field]) -> str:
    """Two lengths, a length and a coding, two hosts: what two readers cut or route in different ways."""
    counts = Counter(name for name, _ in fields)
    for name in SINGLE:
        if counts[name] > 1:
            return f"{counts[name]} fields {_text(name)}"
    if counts[b"content-length"] and counts[b"transfer-encoding"]:
        return "both Content-Length and Transfer-Encoding"
    for name, value in fields:
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return f"the Transfer-Encoding {_text(value)}"
        if b"_" in name and name.replace(b"_", b"-") in GUARDED:
            return f"the field {_text(name)}, which servers take for the one with hyphens"
    return ""


def _control_characters(fields: Sequence[Field]) -> str:
    """Line breaks, NUL and the like in a value, and what no token has in a name (RFC 9110 5.1, 5.5)."""
    for name, value in fields:
        if not name or _NOT_TOKEN.search(name):
            return f"the name {_text(name)}"
        if _NOT_TEXT.search(value):
            return f"a control character in {_text(name)}"
    return ""


def _connection(fields: Sequence[Field]) -> str:
    """Find a `Connection` that names an end-to-end field: a proxy would remove what the backend needs."""
    for name, value in fields:
        if name == b"connection":
            try:
                checked_nominations(value)
            except GatewayError as error:
                return error.detail
    return ""


def _jndi(fields: Sequence[Field]) -> str:
    """`${jndi:` in any disguise that Log4j 2 undoes (CVE-2021-44228)."""
    for name, value in fields:
        if b"${" in value and _is_jndi_lookup(value):
            return f"a JNDI look-up in {_text(name)}"
    return ""


def _shellshock(fields: Sequence[Field]) -> str:
    """`() {`, which old shells take for a function to define (CVE-2014-6271)."""
    for name, value in fields:
        if _FUNCTION.search(value):
            return f"a shell function in {_text(name)}"
    return ""


def _oversized(fields: Sequence[Field]) -> str:
    """More or larger fields than any client sends that means well."""
    if len(fields) > MAX_FIELDS:
        return f"{len(fields)} fields; accepted are {MAX_FIELDS}"
    for name, value in fields:
        if len(name) > MAX_FIELD_BYTES or len(value) > MAX_FIELD_BYTES:
            return f"the field {_text(name)} of {len(value)} bytes; accepted are {MAX_FIELD_BYTES}"
    return ""


PRESETS: Final[Mapping[str, tuple[Rule, ...]]] = {
    "httpoxy": (_httpoxy,),
    "url_override": (_url_override,),
    "framing": (_framing,),
    "control_characters": (_control_characters,),
    "connection": (_connection,),
    "jndi": (_jndi,),
    "shellshock": (_shellshock,),
    "oversized": (_oversized,),
}


def _is_jndi_lookup(value: bytes) -> bool:
    """Undo nested look-ups from the inside out, as Log4j does, until `${jndi:` shows or nothing is left.

    `${lower:x}` and `${upper:x}` give x; `${anything:-x}`, as `${::-x}` or `${env:NONE:-x}`, gives its
    default x. Compared in upper case, since Log4j's conversion turns a dotless i into the I of JNDI.
    """
    text = value.decode("utf-8", "replace").upper()
    for _ in range(_MAX_LOOKUPS):
        if _JNDI.search(text):
            return True
        text, replaced = _LOOKUP.subn(_looked_up, text)
        if not replaced:
            return False
    return "${" in text


def _looked_up(lookup: re.Match[str]) -> str:
    _, separator, default = lookup[1].partition(":-")
    if separator:
        return default
    kind, _, argument = lookup[1].partition(":")
    return argument if kind.strip() in ("LOWER", "UPPER") else ""


def _text(data: bytes) -> str:
    """Return `data` for a log line."""
    return ascii(data[:64].decode("latin-1"))
