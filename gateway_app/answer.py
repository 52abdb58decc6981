"""The answer on its way to the client: the fields that the edge adds and drops, and errors as answers.

Where an answer has begun, an error can only cut it off: it is never ended as if it were whole.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from gateway_app.date_field import DateField
from gateway_app.header_fields import without_hop_by_hop
from gateway_app.problem import Cause, GatewayError, send_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Message, Scope, Send

    from gateway_app.exchange import Exchange

logger = logging.getLogger(__name__)

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
        Cause.DRAINING,
    }
)

_LAST_ANSWER_S: Final = 1.0
"""How long the answer to a cancelled request may take; less than the supervisor waits before it kills."""


def edge_send(exchange: Exchange, send: Send) -> Send:
    """Return the `send` that every answer goes through.

    It notes status and size, adds the request id, and drops the fields that end at this hop. The server
    frames the answer itself.
    """
    return functools.partial(_send, exchange, send)


def dated_send(exchange: Exchange, send: Send) -> Send:
    """Return what `edge_send` does, except that it adds Date to answers without one (RFC 9110 6.6.1)."""
    return functools.partial(_send_dated, exchange, send)


def _send(exchange: Exchange, send: Send, message: Message) -> Awaitable[None]:
    kind = message["type"]
    if kind == "http.response.body" or kind == "websocket.http.response.body":
        exchange.bytes_out += len(message.get("body", b""))
    elif kind == "http.response.start" or kind == "websocket.http.response.start":
        status = message["status"]
        if not 200 <= status <= 999:  # a worker of granian ends where it cannot write the status line
            raise ValueError(f"an answer's status is from 200 to 999, not {status}")
        exchange.status = status
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
        exchange.error_detail = failure.detail  # most clients had no body, and have just left
    elif scope["type"] == "websocket":
        await _refuse_websocket(exchange, scope, send, failure)
    else:
        await send_problem(scope, send, failure.cause, failure.detail, failure.headers)


async def answer_cancelled(exchange: Exchange, scope: Scope, send: Send) -> None:
    """Answer a request that the server cancels, which it does when the time to drain is over.

    Nothing is raised, so that the cancellation can go on; an answer that has begun stays cut off. Nor is it
    waited for long: a client may take nothing, and over HTTP/2 hypercorn's task that sends bodies ends by the
    same cancellation, so that only the head goes out.
    """
    cut = GatewayError(Cause.DRAINING, "not finished when the server stopped")
    with suppress(Exception):  # the cut itself, a client that has gone, or the time
        async with asyncio.timeout(_LAST_ANSWER_S):
            await answer_error(exchange, scope, send, cut)


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
