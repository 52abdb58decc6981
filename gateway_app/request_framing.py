"""How a request is framed, and for which host it is: checked, and never repaired (RFC 9112 3.2, 6.3).

What two parsers could read in two ways is answered with 400. The body is held to what its head has declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.header_fields import checked_nominations
from gateway_app.problem import Cause, GatewayError

if TYPE_CHECKING:
    from starlette.types import Message, Receive

    from gateway_app.exchange import Exchange
    from gateway_app.header_fields import Field

_MAX_LENGTH_DIGITS: Final = 18

NO_LIMIT: Final = 1 << 62
"""As `Exchange.max_body_bytes`: bodies of any length."""


def checked_host(host: bytes | None, found: dict[bytes, bytes], http_version: str) -> bytes:
    """Return the request's only host; `found` loses :authority. RFC 9112 3.2, RFC 9113 8.3.1.

    An empty one is none: no http URL has it (RFC 9110 4.2.1), and granian says so of a request without Host.

    Raises:
        GatewayError: there is none, or more than one.

    """
    authority = found.pop(b":authority", None)
    if host is None:
        host = authority or b""
    elif authority is not None and authority.lower() != host.lower():
        raise GatewayError(Cause.MALFORMED, "Host and :authority differ")
    if not host and http_version != "1.0":
        raise GatewayError(Cause.MALFORMED, "there is no Host or :authority, or nothing in it")
    if b"," in host:
        raise GatewayError(Cause.MALFORMED, "there is more than one host")
    return host


def checked_fields(
    found: dict[bytes, bytes], passed: list[Field], exchange: Exchange, http_version: str
) -> list[Field]:
    """Return the fields to pass on, now with those of `found` that needed a check; note the framing.

    Raises:
        GatewayError: the framing or the expectation is none that we serve.

    """
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


def bound_replay(exchange: Exchange, receive: Receive) -> Receive:
    """Return a `receive` for a body whose beginning was read before its limit was known.

    Its callers see GatewayError(BODY_TOO_LARGE) in place of the first message that comes when the limit is
    passed. What was not read yet is `bound_receive`'s to hold.
    """

    async def receive_bounded() -> Message:
        if exchange.bytes_in > exchange.max_body_bytes:
            raise GatewayError(Cause.BODY_TOO_LARGE, _body_limit(exchange))
        return await receive()

    return receive_bounded


def _body_limit(exchange: Exchange) -> str:
    return f"a body may have {exchange.max_body_bytes} bytes"
