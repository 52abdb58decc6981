"""What every request gets, in one place: identity, clean fields, limits, and measurement.

`Edge.admit` reads the request's fields once. It

1. makes the `Exchange`, with a request id and the peer's address, and puts it into the scope;
2. refuses what is ambiguous (framing, Host), too large, or has been here before (RFC 9110 7.6.3);
3. believes the forwarding fields of trusted proxies, and drops those of everyone else;
4. replaces the scope's fields: Host first, hop-by-hop fields gone, the forwarding fields, `Via` and
   `X-Request-ID` as the backend is to see them.

Routing uses Host; X-Forwarded-Host is only passed on. Nothing is repaired: what two parsers could read in two
ways is answered with 400 (`request_framing`). What every answer gets is in `answer`.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway_app.client_address import (
    Peer,
    TrustedProxies,
    forwarded_element,
    forwarded_for_chain,
    parse_forwarded,
)
from gateway_app.exchange import Exchange
from gateway_app.forwarding_fields import CLAIMS, SPECIAL
from gateway_app.header_fields import (
    Field,
    list_members,
)
from gateway_app.problem import Cause, GatewayError
from gateway_app.request_framing import checked_fields, checked_host
from gateway_app.request_id import REQUEST_IDS, accepted_request_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Scope

    from gateway_app.observe.access_log import AccessLog
    from gateway_app.observe.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_FIELDS: Final = 128
MAX_FIELDS_BYTES: Final = 64 * 1024
"""Names and values together. Servers bound it too, each in its own way; this holds under all of them."""

_PROTO_FIELDS: Final = {
    "http": (b"x-forwarded-proto", b"http"),
    "https": (b"x-forwarded-proto", b"https"),
}
_HTTP_SCHEME: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Edge:
    """The first and the last to see each request; made once per snapshot.

    Whoever calls `admit` calls `finish` once for the same scope, also when `admit` has refused it.

    Args:
        trusted_proxies: whose forwarding fields are believed; see `TrustedProxies`.
        max_body_bytes: the largest request body, unless a middleware of the route allows more.
        pseudonym: our name in `Via`, a token (RFC 9110 5.6.2); a request that carries it has looped.
        metrics: this worker's.
        access_log: None writes none.

    Raises:
        ValueError: an entry of `trusted_proxies` is no address or network.

    """

    __slots__ = (
        "_access_log",
        "_max_body_bytes",
        "_metrics",
        "_proxies",
        "_pseudonym",
        "_via",
    )

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str],
        max_body_bytes: int,
        pseudonym: str,
        metrics: Metrics,
        access_log: AccessLog | None,
    ) -> None:
        self._proxies = TrustedProxies(trusted_proxies)
        self._max_body_bytes = max_body_bytes
        self._pseudonym = pseudonym
        self._via = {
            version: (b"via", f"{version} {pseudonym}".encode()) for version in ("1.0", "1.1", "2", "3")
        }
        self._metrics = metrics
        self._access_log = access_log

    def trusts(self, peer: Sequence[object] | None) -> bool:
        """Say whether the peer with this address, None for a Unix socket's, is a trusted proxy."""
        return self._proxies.peer(peer).is_trusted

    def admit(self, scope: Scope) -> Exchange:
        """Give the request its `Exchange` and replace its fields by what the backend may see.

        Raises:
            GatewayError: the request is refused; `scope["gateway"]` is set.

        """
        peer = self._proxies.peer(scope.get("client"))
        scheme = _HTTP_SCHEME.get(scope.get("scheme", "http"), "http")
        exchange = Exchange(REQUEST_IDS.make(), peer.address, scheme, monotonic(), self._max_body_bytes)
        scope["gateway"] = exchange
        self._metrics.in_flight += 1

        received = scope["headers"]
        if len(received) > MAX_FIELDS:
            raise GatewayError(Cause.FIELDS_TOO_LARGE, f"more than {MAX_FIELDS} fields")
        fields: list[Field] = []
        found: dict[bytes, bytes] = {}
        size = 0
        for field in received:
            name, value = field
            size += len(name) + len(value)
            if name not in SPECIAL:
                fields.append(field)
            elif name in found:
                found[name] += SPECIAL[name] + value
            else:
                found[name] = value
        if size > MAX_FIELDS_BYTES:
            raise GatewayError(Cause.FIELDS_TOO_LARGE, f"more than {MAX_FIELDS_BYTES} bytes of fields")

        http_version: str = scope["http_version"]
        via = self._via.get(http_version)
        if via is None:
            if http_version != "1":
                raise GatewayError(Cause.MALFORMED, f"HTTP/{http_version} is not spoken here")
            scope["http_version"] = http_version = "1.0"  # granian's name for it
            via = self._via[http_version]
        host = found.pop(b"host", None)
        if not host or b"," in host or b":authority" in found:
            host = checked_host(host, found, http_version)
        if found:
            fields = checked_fields(found, fields, exchange, http_version)
            if b"via" in found:
                via = self._appended_via(found[b"via"], via)
        elif http_version[0] != "1" and scope["type"] == "http":
            exchange.content_length, exchange.has_body = -1, True

        if peer.is_trusted:
            fields += self._forwarding_of_proxy(exchange, peer, found, host)
        else:
            fields.append(_PROTO_FIELDS[scheme])
            if host:
                fields.append((b"x-forwarded-host", host))
            if peer.field is not None:
                fields.append(peer.field)
        scope["headers"] = [(b"host", host), *fields, via, (b"x-request-id", exchange.request_id.encode())]
        return exchange

    def finish(self, exchange: Exchange, scope: Scope) -> None:
        """Count and log a request that is over, whatever became of it."""
        duration_s = monotonic() - exchange.started
        metrics = self._metrics
        metrics.in_flight -= 1
        route = exchange.route
        (metrics.unrouted if route is None else route.metrics).observe(
            exchange.backend, exchange.status, duration_s, exchange.bytes_in, exchange.bytes_out
        )
        if exchange.attempts > 1:
            metrics.count_retries(exchange.backend, exchange.attempts - 1)
        if exchange.error:
            metrics.count_error("" if route is None else route.name, exchange.error)
            if exchange.refused_by:
                metrics.refusals(exchange.refused_by, exchange.error).add()
        if self._access_log is not None:
            self._access_log.write(exchange, scope, duration_s)

    def _forwarding_of_proxy(
        self, exchange: Exchange, peer: Peer, found: dict[bytes, bytes], host: bytes
    ) -> list[Field]:
        """Take over what a trusted proxy says about the request, and add what it looks like from here."""
        chain = found.get(b"x-forwarded-for")
        forwarded = found.get(b"forwarded")
        elements = parse_forwarded(forwarded) if forwarded else None
        scheme_seen = exchange.scheme
        proto = b""
        if chain is not None:
            exchange.client = self._proxies.client(forwarded_for_chain(chain), peer)
        elif elements:
            exchange.client, element = self._proxies.client_element(elements, peer)
            chain = exchange.client.encode() if exchange.client != peer.address else None
            proto = element.proto.encode("latin-1")
        if b"x-forwarded-proto" in found:  # several: what the nearest proxy said
            proto = found[b"x-forwarded-proto"].rpartition(b",")[2].strip()
        exchange.scheme = _HTTP_SCHEME.get(proto.decode("latin-1").lower(), exchange.scheme)
        exchange.request_id = accepted_request_id(found.get(b"x-request-id")) or exchange.request_id

        fields = [_PROTO_FIELDS[exchange.scheme]]
        fields.extend(field for field in found.items() if field[0] in CLAIMS)
        if forwarded_host := found.get(b"x-forwarded-host", host):
            fields.append((b"x-forwarded-host", forwarded_host))
        if chain:
            address = peer.address.encode()
            fields.append((b"x-forwarded-for", chain + b", " + address if address else chain))
        elif peer.field is not None:
            fields.append(peer.field)
        if forwarded and elements is not None:
            own = forwarded_element(peer, scheme_seen, host, self._pseudonym)
            fields.append((b"forwarded", forwarded + b", " + own))
        return fields

    def _appended_via(self, via: bytes, own: Field) -> Field:
        pseudonym = self._pseudonym.encode()
        if pseudonym in via and any(pseudonym in hop.split()[1:2] for hop in list_members(via)):
            raise GatewayError(Cause.LOOP, f"Via holds {self._pseudonym}: the request was here before")
        return (b"via", via + b", " + own[1]) if via else own
