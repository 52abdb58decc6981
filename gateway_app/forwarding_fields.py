"""The fields with which proxies tell where a request came from, and which of them a client may not set.

`SPECIAL` is the edge's table: one look-up tells whether a request's field needs a second look.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from gateway_app.client_address import host_parameter
from gateway_app.header_fields import HOP_BY_HOP

if TYPE_CHECKING:
    from gateway_app.header_fields import Field

REPLACED: Final = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id"}
)
"""Written by the edge, from what a trusted proxy said or from the connection."""

CLAIMS: Final = frozenset(
    {
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"front-end-https",
        b"true-client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-forwarded",
        b"x-forwarded-by",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-original-forwarded-for",
        b"x-real-ip",
        b"x-remote-addr",
        b"x-remote-ip",
        b"x-url-scheme",
    }
)
"""What backends are known to believe about the client: passed on from trusted proxies only."""


def _spelled_with_underscores(name: bytes) -> set[bytes]:
    """Return the spellings that a CGI-like interface (RFC 3875 4.1.18) takes for the same field."""
    parts = name.split(b"-")
    spellings = set()
    for separators in itertools.product((b"-", b"_"), repeat=len(parts) - 1):
        spelling = parts[0]
        for separator, part in zip(separators, parts[1:], strict=True):
            spelling += separator + part
        spellings.add(spelling)
    return spellings - {name}


ALIASES: Final = frozenset(
    itertools.chain.from_iterable(
        _spelled_with_underscores(name) for name in HOP_BY_HOP | REPLACED | CLAIMS | {b"content-length"}
    )
)
"""`X_Forwarded_For` and the like, which a WSGI or CGI backend takes for the real one: always dropped."""

SPECIAL: Final[dict[bytes, bytes]] = dict.fromkeys(
    HOP_BY_HOP | REPLACED | CLAIMS | ALIASES | {b"host", b":authority", b"content-length", b"expect", b"via"},
    b", ",
) | {b"cookie": b"; "}
"""Fields that the edge looks at, with what joins the values of several (RFC 9110 5.2; RFC 9113 8.2.3)."""


def with_host(fields: list[Field], host: bytes) -> list[Field]:
    """Return the edge's fields for a request whose target has a host, which replaces Host (RFC 9112 3.2.2).

    What the edge has said of the former host, the first of `fields`, is said of this one. What a proxy said
    before us stays.
    """
    former = fields[0][1]
    renamed = [(b"host", host)]
    forwarded_host = (b"x-forwarded-host", host)
    for name, value in fields[1:]:
        if name == b"x-forwarded-host" and value == former:
            renamed.append(forwarded_host)
        elif name == b"forwarded":  # our element is the last, and the host its end
            renamed.append((name, value.removesuffix(host_parameter(former)) + host_parameter(host)))
        else:
            renamed.append((name, value))
    if not former and forwarded_host[0] not in dict(renamed):
        renamed.append(forwarded_host)
    return renamed
