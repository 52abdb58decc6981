"""The innermost application of every pipeline: sends the request to its backend and brings the answer back.

    1. prepare   what goes upstream: target, Host, the body as far as it is at hand
    2. attempt   choose an endpoint, send, wait for the answer's head
    3. retry     where an attempt failed and the backend's policy, budget and the request allow it
    4. relay     the answer to the client, piece by piece; whoever is slower sets the pace

One task runs all four and closes what it opened. Timeouts and a vanished client reach it as a cancellation
whose cause stands in `Flight.cut`.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway_app.problem import Cause, GatewayError
from gateway_app.upstream.deadlines import NEVER, Deadlines, Flight
from gateway_app.upstream.outlier import FAILED_CAUSES, FAILED_STATUSES
from gateway_app.upstream.transport import FieldList, Sent, UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from gateway_app.exchange import Exchange
    from gateway_app.upstream.backend import Backend
    from gateway_app.upstream.endpoint import Endpoint
    from gateway_app.upstream.transport import UpstreamResponse

# Looking a member of an enum up costs as much as a function call; these stand in the way of every request.
_RESPONSE_TIMEOUT = Cause.RESPONSE_TIMEOUT
_CLIENT_STALLED = Cause.CLIENT_STALLED
_IDLE_TIMEOUT = Cause.IDLE_TIMEOUT

_ENDPOINT_AT_FAULT = frozenset((_RESPONSE_TIMEOUT, _IDLE_TIMEOUT))
"""The causes for which the sweep ends an exchange that are the endpoint's doing."""
_CLIENT_AT_FAULT = frozenset((Cause.CLIENT_CLOSED, _CLIENT_STALLED))
"""The causes that cut an answer which the endpoint was giving: streams often end in no other way."""
_NO_BODY_EXPECTED = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))
_PATH_SAFE = "/!$&'()*+,;=:@-._~"


class Forwarder:
    """Forwards to the backend that `exchange.backend` names."""

    def __init__(self, backends: Mapping[str, Backend], deadlines: Deadlines) -> None:
        self._backends = backends
        self._deadlines = deadlines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request. Raises GatewayError where there is no answer to bring back."""
        exchange: Exchange = scope["gateway"]
        backend = self._backends[exchange.backend]
        total_s = backend.config.timeout.total
        deadlines = self._deadlines
        task = asyncio.current_task(deadlines.loop)  # finding the loop would cost twice as much again
        flight = Flight(receive, exchange.started, exchange.started + total_s if total_s else NEVER, task)
        deadlines.add(flight)
        try:
            request = UpstreamRequest(scope, upstream_target(scope, exchange), scope["headers"])
            if exchange.has_body or exchange.expects_continue:
                await _begin_body(request, exchange, flight, backend.config.timeout.idle)
            backend.retry_budget.requests += 1
            endpoint = backend.choose(exchange, scope)
            tried: tuple[Endpoint, ...] = ()
            while not await _attempt(backend, endpoint, tried, request, exchange, flight, send):
                assert endpoint is not None, "no attempt succeeds in asking nobody"
                tried += (endpoint,)
                endpoint = backend.choose(exchange, scope, tried)
                if endpoint in tried:
                    flight.deadline = NEVER  # the failed attempt's, which may be over
                    pause_s = backend.retry.backoff_s(exchange.attempts, random.random())  # noqa: S311
                    await asyncio.sleep(pause_s)
        except asyncio.CancelledError:
            raise _why_cut(flight) from None
        finally:
            deadlines.remove(flight)


async def _attempt(
    backend: Backend,
    endpoint: Endpoint | None,
    tried: tuple[Endpoint, ...],
    request: UpstreamRequest,
    exchange: Exchange,
    flight: Flight,
    send: Send,
) -> bool:
    """Ask `endpoint` and bring its answer to the client; False if another attempt should be made.

    Raises GatewayError if the attempt failed for good.
    """
    if endpoint is None:
        raise GatewayError(Cause.NO_ENDPOINT, f"no endpoint of backend {backend.name} is available")
    config = backend.config
    if config.host != "pass":
        host = endpoint.authority if config.host == "endpoint" else config.host
        request.headers = [(b"host", host.encode()), *(f for f in request.headers if f[0] != b"host")]
    exchange.endpoint = endpoint.key
    exchange.attempts += 1
    exchange.upstream_started = flight.started = began = monotonic()
    flight.cause = _RESPONSE_TIMEOUT
    flight.deadline = began + config.timeout.response
    endpoint.active += 1
    is_sound = ok = False
    try:
        response = await endpoint.transport.send(request, flight)
        try:
            exchange.upstream_first_byte = now = monotonic()
            endpoint.answers += 1
            endpoint.answer_wait_s += now - began
            status = response.status
            is_sound = status not in FAILED_STATUSES
            backend.report(endpoint, is_sound, now - began)
            if status in backend.retry.statuses and _may_retry(
                backend, request, (*tried, endpoint), status, Sent.MAYBE
            ):
                return False
            flight.cause = _CLIENT_STALLED
            flight.deadline = now + config.timeout.idle
            headers = response.headers if status != 204 else _without_length(response.headers)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            body = response.take()
            if not response.is_complete:
                body = await _relay(response, body, flight, config.timeout.idle, send)
            await send({"type": "http.response.body", "body": body})
            ok = is_sound
            return True
        finally:
            response.close()
    except (GatewayError, asyncio.CancelledError) as failure:
        error = failure if isinstance(failure, GatewayError) else _why_cut(flight)
        if error.cause in FAILED_CAUSES:
            backend.report(endpoint, False, monotonic() - began)
        ok = is_sound and error.cause in _CLIENT_AT_FAULT
        sent = error.sent if isinstance(error, UpstreamError) else Sent.MAYBE
        if exchange.status or not _may_retry(backend, request, (*tried, endpoint), error.cause, sent):
            raise error from failure
        return False
    finally:
        endpoint.finish(ok)


def _may_retry(
    backend: Backend, request: UpstreamRequest, tried: tuple[Endpoint, ...], reason: Cause | int, sent: Sent
) -> bool:
    replayable = request.receive is None
    return backend.may_retry(request.method, reason, sent, tried, body_replayable=replayable)


async def _relay(
    response: UpstreamResponse, piece: bytes, flight: Flight, idle_s: float, send: Send
) -> bytes:
    """Send a body to the client as it arrives, and no faster than the client takes it; give its last piece.

    `piece` is what has arrived already. If that is nothing it is sent, too: granian keeps the head back until
    there is a piece, and for a body that is cut before its first it would make a 500 of its own.
    """
    if not piece:
        await asyncio.sleep(0)  # the body is often right behind its head, and need not be a piece more then
        piece = response.take()
    while not response.is_complete:
        flight.cause = _CLIENT_STALLED
        flight.deadline = monotonic() + idle_s
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        flight.cause = _IDLE_TIMEOUT
        flight.deadline = monotonic() + idle_s
        piece = await response.read()
    flight.cause = _CLIENT_STALLED
    flight.deadline = monotonic() + idle_s
    return piece


async def _begin_body(request: UpstreamRequest, exchange: Exchange, flight: Flight, idle_s: float) -> None:
    """Take what is at hand of the body: often all of it, and then the request is as good as one without."""
    request.headers = headers = []
    for field in request.scope["headers"]:
        if field[0] == b"content-length":
            request.content_length = int(field[1])
        elif field[0] != b"expect":
            headers.append(field)
    if not exchange.has_body:
        if request.content_length is not None:
            headers.append((b"content-length", b"0"))
        return
    if exchange.expects_continue:
        # The client sends its body once it is read: not before the endpoint wants it.
        request.expects_continue = True
        request.receive = flight.receive
        flight.owns_receive = False
        return
    flight.cause = Cause.REQUEST_TIMEOUT
    flight.deadline = monotonic() + idle_s
    flight.owns_receive = False
    message = await flight.receive()
    if message["type"] == "http.disconnect":
        raise GatewayError(Cause.CLIENT_CLOSED)
    request.body = body = message.get("body", b"")
    if message.get("more_body", False) and len(body) != request.content_length:
        request.receive = flight.receive
        return
    flight.owns_receive = True
    if body or request.content_length is not None or request.method not in _NO_BODY_EXPECTED:
        headers.append((b"content-length", b"%d" % len(body)))


def upstream_target(scope: Scope, exchange: Exchange) -> bytes:
    """Compose the target from the scope, as the middlewares left it: changed raw, or only as text."""
    raw_path: bytes = scope["raw_path"]
    if scope["path"] is not exchange.decoded_path and raw_path is exchange.raw_path:
        raw_path = quote(scope["path"], _PATH_SAFE).encode()
    query: bytes = scope["query_string"]
    return raw_path + b"?" + query if query else raw_path


def _without_length(headers: FieldList) -> FieldList:
    """Drop the Content-Length that some endpoints give a 204 (RFC 9110 8.6 forbids it)."""
    return [field for field in headers if field[0] != b"content-length"]


def _why_cut(flight: Flight) -> GatewayError:
    """Turn the cancellation of an exchange back into its cause. Raises CancelledError if it was not ours."""
    cause, flight.cut = flight.cut, None
    if cause is None or flight.task is None:
        raise asyncio.CancelledError
    flight.task.uncancel()
    if cause in _ENDPOINT_AT_FAULT:
        return UpstreamError(cause, "the endpoint took too long", Sent.MAYBE)
    return GatewayError(cause)
