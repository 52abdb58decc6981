"""What every request gets, in one place: identity, clean fields, limits, measurement, and errors as answers.

`Edge.admit` reads the request's fields once. It

1. makes the `Exchange`, with a request id and the peer's address, and puts it into the scope;
2. refuses what is ambiguous (framing, Host), too large, or has been here before (RFC 9110 7.6.3);
3. believes the forwarding fields of trusted proxies, and drops those of everyone else;
4. replaces the scope's fields: Host first, hop-by-hop fields gone, the forwarding fields, `Via` and
   `X-Request-ID` as the backend is to see them.

Routing uses Host; X-Forwarded-Host is only passed on. Nothing is repaired: what two parsers could read in two
ways is answered with 400.
"""

from __future__ import annotations

import functools
import logging
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway_app.client_address import (
    Peer,
    TrustedProxies,
    forwarded_element,
    forwarded_for_chain,
    parse_forwarded,
)
from gateway_app.date_field import DateField
from gateway_app.exchange import Exchange
from gateway_app.forwarding_fields import CLAIMS, SPECIAL
from gateway_app.header_fields import (
    Field,
    checked_nominations,
    list_members,
    without_hop_by_hop,
)
from gateway_app.problem import Cause, GatewayError, send_problem
from gateway_app.request_id import REQUEST_IDS, accepted_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from starlette.types import Message, Receive, Scope, Send

    from gateway_app.observe.access_log import AccessLog
    from gateway_app.observe.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_FIELDS: Final = 128
MAX_FIELDS_BYTES: Final = 64 * 1024
"""Names and values together. Servers bound it too, each in its own way; this holds under all of them."""

_MAX_LENGTH_DIGITS: Final = 18
_PROTO_FIELDS: Final = {
    "http": (b"x-forwarded-proto", b"http"),
    "https": (b"x-forwarded-proto", b"https"),
}
_HTTP_SCHEME: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_name_of: Final = itemgetter(0)
_date_field: Final = DateField()
_FRAMING_LOST: Final = frozenset(
    {
        Cause.MALFORMED,
        Cause.REQUEST_TIMEOUT,
        Cause.BODY_TOO_LARGE,
        Cause.FIELDS_TOO_LARGE,
        Cause.CLIENT_CLOSED,
    }
)


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
        host = found.pop(b"host", None)
        if host is None or b"," in host or b":authority" in found:
            host = _checked_host(host, found, http_version)
        via = self._via.get(http_version)
        if via is None:
            raise GatewayError(Cause.MALFORMED, f"HTTP/{http_version} is not spoken here")
        if found:
            fields = _checked_fields(found, fields, exchange, http_version)
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


def edge_send(exchange: Exchange, send: Send) -> Send:
    """Return the `send` that every answer goes through.

    It notes status and size, adds the request id, and drops the fields that end at this hop. The server
    frames the answer itself.
    """
    return functools.partial(_send, exchange, send)


def dated_send(exchange: Exchange, send: Send) -> Send:
    """Return what `edge_send` does, except that it adds Date to answers without one (RFC 9110 6.6.1)."""
    return functools.partial(_send_dated, exchange, send)


def bound_receive(exchange: Exchange, receive: Receive) -> Receive:
    """Return a `receive` that holds the request's body to its limit and to its declared length.

    It counts `exchange.bytes_in`, and obeys `max_body_bytes` as it is when the body is read: a middleware of
    the route may have raised it. Its callers see GatewayError(BODY_TOO_LARGE), before the first byte is read
    if the declared length tells; and GatewayError(MALFORMED) for a body that is longer or shorter than
    declared, which would otherwise end in the next request on the upstream connection.
    """

    async def receive_bounded() -> Message:
        declared = exchange.content_length
        if declared > exchange.max_body_bytes:
            raise GatewayError(Cause.BODY_TOO_LARGE, _body_limit(exchange))
        message = await receive()
        if message["type"] != "http.request":
            return message
        read = exchange.bytes_in = exchange.bytes_in + len(message.get("body", b""))
        if read > exchange.max_body_bytes:
            raise GatewayError(Cause.BODY_TOO_LARGE, _body_limit(exchange))
        if declared >= 0 and (read > declared or (read < declared and not message.get("more_body", False))):
            raise GatewayError(Cause.MALFORMED, f"{declared} bytes of body declared, {read} received")
        return message

    return receive_bounded


async def answer_error(exchange: Exchange, scope: Scope, send: Send, error: Exception) -> None:
    """Answer a request that failed with `error`, as a problem; `send` is what `edge_send` returned.

    An error that is no `GatewayError` is ours: 500, and its traceback goes to the log. Nothing is sent to a
    client that has gone.

    Raises:
        Exception: `error` itself, if an answer has begun. It can only be cut off, which the server does
            when the application raises.

    """
    if isinstance(error, GatewayError):
        failure = error
    else:
        logger.error("request %s failed", exchange.request_id, exc_info=error)
        failure = GatewayError(Cause.INTERNAL, f"{type(error).__name__}: {error}")
    exchange.error = failure.cause.token
    exchange.error_detail = failure.detail
    if exchange.status:
        raise error
    # Where the next request begins on this connection is not certain any more (RFC 9112 6.3, 9.6).
    exchange.ends_connection = failure.cause in _FRAMING_LOST and scope["http_version"][0] == "1"
    if failure.cause is Cause.CLIENT_CLOSED:
        # Some servers say so, too, of a body whose framing is broken; that client still waits for an answer.
        await send_problem(scope, send, Cause.MALFORMED, "the request's body did not arrive whole")
        exchange.status, exchange.error = failure.cause.status, failure.cause.token
    elif scope["type"] == "websocket":
        await _refuse_websocket(exchange, scope, send, failure)
    else:
        await send_problem(scope, send, failure.cause, failure.detail, failure.headers)


async def _refuse_websocket(exchange: Exchange, scope: Scope, send: Send, failure: GatewayError) -> None:
    """Answer the handshake with a problem, where the server can; else close, which it turns into 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        exchange.status = 403
        await send({"type": "websocket.close", "code": 1008})
        return

    def send_handshake(message: Message) -> Awaitable[None]:
        return send({**message, "type": f"websocket.{message['type']}"})

    request = {**scope, "method": "GET"}  # a handshake is one; its scope does not say so
    await send_problem(request, send_handshake, failure.cause, failure.detail, failure.headers)


def _send(exchange: Exchange, send: Send, message: Message) -> Awaitable[None]:
    kind = message["type"]
    if kind == "http.response.body" or kind == "websocket.http.response.body":
        exchange.bytes_out += len(message.get("body", b""))
    elif kind == "http.response.start" or kind == "websocket.http.response.start":
        exchange.status = message["status"]
        fields = message.get("headers", ())
        withheld = exchange.withheld_fields
        if not withheld.isdisjoint(map(_name_of, fields)):
            if b"connection" in map(_name_of, fields):  # which may name others
                fields = without_hop_by_hop(fields)
            fields = [field for field in fields if field[0] not in withheld]
        own = (b"x-request-id", exchange.request_id.encode())
        fields = [*fields, *exchange.answer_fields, own]
        if exchange.ends_connection:
            fields.append((b"connection", b"close"))
        # A copy: an in-process backend may send the same message object for every request.
        message = {**message, "headers": fields}
    return send(message)


def _send_dated(exchange: Exchange, send: Send, message: Message) -> Awaitable[None]:
    if message["type"] in _STARTS:
        fields = message.get("headers", ())
        if b"date" not in map(_name_of, fields):
            message = {**message, "headers": [*fields, _date_field()]}
    return _send(exchange, send, message)


def _checked_host(host: bytes | None, found: dict[bytes, bytes], http_version: str) -> bytes:
    """Return the request's only host; `found` loses :authority. RFC 9112 3.2, RFC 9113 8.3.1."""
    authority = found.pop(b":authority", None)
    if host is None:
        if authority is None and http_version == "1.1":
            raise GatewayError(Cause.MALFORMED, "there is no Host field")
        host = authority or b""
    elif authority is not None and authority.lower() != host.lower():
        raise GatewayError(Cause.MALFORMED, "Host and :authority differ")
    if b"," in host:
        raise GatewayError(Cause.MALFORMED, "there is more than one host")
    return host


def _checked_fields(
    found: dict[bytes, bytes], passed: list[Field], exchange: Exchange, http_version: str
) -> list[Field]:
    """Return the fields to pass on, now with those of `found` that needed a check; note the framing."""
    length = found.get(b"content-length")
    coding = found.get(b"transfer-encoding")
    if length is not None:
        if coding is not None:
            raise GatewayError(Cause.MALFORMED, "both Content-Length and Transfer-Encoding")
        exchange.content_length = _checked_length(length)
        exchange.has_body = exchange.content_length > 0
        passed.append((b"content-length", length))
    elif coding is not None:
        if http_version != "1.1" or coding.lower() != b"chunked":
            raise GatewayError(Cause.MALFORMED, "a Transfer-Encoding other than HTTP/1.1's chunked")
        exchange.content_length, exchange.has_body = -1, True
    elif http_version[0] != "1":
        exchange.content_length, exchange.has_body = -1, True
    expectation = found.get(b"expect")
    if expectation is not None and http_version != "1.0":  # RFC 9110 10.1.1: ignored in HTTP/1.0
        if expectation.lower() != b"100-continue":
            raise GatewayError(Cause.EXPECTATION, "an expectation other than 100-continue")
        exchange.expects_continue = True
        passed.append((b"expect", expectation))
    cookie = found.get(b"cookie")
    if cookie is not None:
        passed.append((b"cookie", cookie))
    connection = found.get(b"connection")
    if connection is not None and (nominated := checked_nominations(connection)):
        return [field for field in passed if field[0] not in nominated]
    return passed


def _checked_length(value: bytes) -> int:
    """Return Content-Length, 1*DIGIT (RFC 9110 8.6); a list, even of equal values, is refused."""
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise GatewayError(Cause.MALFORMED, "Content-Length is no number, or there are several")
    return int(value)


def _body_limit(exchange: Exchange) -> str:
    return f"a body may have {exchange.max_body_bytes} bytes"
