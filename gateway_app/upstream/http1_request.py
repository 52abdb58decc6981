"""Writing a request onto an HTTP/1.1 connection: the head's bytes, and a body that is still arriving.

What a middleware or a client put into fields and target is checked once more here, where it becomes bytes: a
line break or a space in the wrong place would be a second request (RFC 9112 11.2).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_app.problem import Cause, GatewayError

if TYPE_CHECKING:
    from gateway_app.upstream.deadlines import Flight
    from gateway_app.upstream.http1 import Http1Connection
    from gateway_app.upstream.transport import UpstreamRequest

CONTINUE_WAIT_S = 1.0
"""How long the endpoint may take to say 100 (Continue) before the body is sent anyway (RFC 9110 10.1.1)."""

_METHODS = {
    name: f"{name} ".encode() for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_TOKEN_MARKS = "!#$%&'*+-.^_`|~"  # noqa: S105  # RFC 9110 5.6.2


def head_of(request: UpstreamRequest, *framing: tuple[bytes, bytes]) -> bytes:
    """Compose the request's head, `framing` fields last.

    Raises:
        GatewayError: a field, the target or the method holds what would break the message apart.

    """
    method = _METHODS.get(request.method) or _checked_method(request.method)
    lines = [method + request.target + b" HTTP/1.1", *map(b": ".join, request.headers)]
    if framing:
        lines += map(b": ".join, framing)
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    # Of the three bytes there are as many as the lines need only if none is in a field or the target.
    breaks = 2 * len(lines) - 2
    if len(head) - len(head.translate(None, b"\r\n\0")) != breaks or b" " in request.target:
        raise GatewayError(Cause.MALFORMED, "a field or the target holds a line break, NUL or space")
    return head


def _checked_method(method: str) -> bytes:
    if not method or not all(c.isascii() and (c.isalnum() or c in _TOKEN_MARKS) for c in method):
        raise GatewayError(Cause.MALFORMED, "the method is not a token")
    return f"{method} ".encode()


async def start_upload(
    connection: Http1Connection, request: UpstreamRequest, flight: Flight, idle_s: float
) -> None:
    """Write the head, then leave the body to a task of its own, so that an early answer can come back.

    The connection owns that task and ends it when the exchange is closed.
    """
    if request.content_length is None:
        framing = (b"transfer-encoding", b"chunked")
    else:
        framing = (b"content-length", b"%d" % request.content_length)
    if request.expects_continue:
        head = head_of(request, framing, (b"expect", b"100-continue"))
        connection.start(head, request.method, is_whole=False)
        if not await _may_send_body(connection):
            flight.owns_receive = True  # the body stays unread, but a client that leaves must be noticed
            return
        request.expects_continue = False
    else:
        connection.start(head_of(request, framing), request.method, is_whole=False)
    upload = _upload(connection, request, flight, idle_s)
    connection.upload = asyncio.get_running_loop().create_task(upload)


async def _may_send_body(connection: Http1Connection) -> bool:
    try:
        async with asyncio.timeout(CONTINUE_WAIT_S):
            return await connection.continued()
    except TimeoutError:
        return True


async def _upload(
    connection: Http1Connection, request: UpstreamRequest, flight: Flight, idle_s: float
) -> None:
    """Move the body from the client to the endpoint, then give `receive` back to the flight's watch."""
    loop = asyncio.get_running_loop()
    response_cause, response_timeout_s = flight.cause, flight.deadline - loop.time()
    flight.owns_receive = False
    try:
        if await _write_body(connection, request, flight, idle_s):
            connection.finish_request()
            flight.owns_receive = True
            if not connection.has_head:
                flight.cause = response_cause
                flight.deadline = loop.time() + response_timeout_s
        else:
            flight.end(Cause.CLIENT_CLOSED)
    except Exception as error:  # also what a middleware's `receive` raises: the request must raise it
        connection.fail(error)


async def _write_body(
    connection: Http1Connection, request: UpstreamRequest, flight: Flight, idle_s: float
) -> bool:
    """Write the body as it arrives, framed as the head said; False if the client left before its end."""
    receive = request.receive
    assert receive is not None
    loop = asyncio.get_running_loop()
    left = request.content_length
    piece, more = request.body, True
    while True:
        if left is not None:
            left -= len(piece)
            if left < 0 or (left and not more):
                raise GatewayError(Cause.MALFORMED, "the body is not as long as its Content-Length")
            connection.write(piece)
        elif piece:
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if not more or left == 0:
            break
        if connection.is_write_paused:
            if not connection.has_head:
                flight.cause = Cause.IDLE_TIMEOUT
            flight.deadline = loop.time() + idle_s
            await connection.drained()
        if not connection.has_head:  # else the cause is what the answer waits for
            flight.cause = Cause.REQUEST_TIMEOUT
        flight.deadline = loop.time() + idle_s
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        piece, more = message.get("body", b""), message.get("more_body", False)
    if left is None:
        connection.write(b"0\r\n\r\n")
    return True
