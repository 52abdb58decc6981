"""`transport = "package.module:factory"`: requests travel on an `httpx.AsyncBaseTransport` of the user's.

The seam for what the gateway's own transport does not do. It is slower by more than an order of magnitude.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httpx

from gateway_app.header_fields import check_answer, without_hop_by_hop
from gateway_app.problem import Cause, GatewayError
from gateway_app.upstream.deadlines import BodyWatch
from gateway_app.upstream.exhaustion import is_exhaustion
from gateway_app.upstream.transport import FieldList, Sent, UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway_app.config.backends import TimeoutConfig
    from gateway_app.upstream.deadlines import Flight
    from gateway_app.upstream.transport import UpstreamRequest


class HttpxTransport:
    """Sends requests to `base_url` ("http://host:port") over `transport`, which it closes in the end."""

    def __init__(self, transport: httpx.AsyncBaseTransport, base_url: str, timeout: TimeoutConfig) -> None:
        self._transport = transport
        self._base_url = base_url.encode()
        self._timeout = {
            "connect": timeout.connect,
            "read": max(timeout.response, timeout.idle),
            "write": timeout.idle,
            "pool": timeout.connect,
        }
        self._active = 0
        self._closing: set[asyncio.Task[None]] = set()

    def status(self) -> dict[str, int]:
        """Count the requests that run; connections are the transport's own business."""
        return {"open": self._active, "idle": 0, "waiting": 0}

    async def send(self, request: UpstreamRequest, flight: Flight) -> HttpxResponse:
        """Send `request` and wait for the answer's head. Raises UpstreamError."""
        self._active += 1
        response: httpx.Response | None = None
        try:
            response = await self._transport.handle_async_request(self._as_httpx(request, flight))
        except httpx.TransportError as error:
            raise _translated(error) from error
        finally:
            if response is None:
                self._active -= 1
        answer = HttpxResponse(request.method, response, self._ended)
        try:
            check_answer(answer.status, answer.headers)
        except ValueError as error:
            answer.close()
            raise UpstreamError(Cause.BAD_ANSWER, str(error), Sent.MAYBE) from error
        return answer

    async def aclose(self) -> None:
        """Close the user's transport, after the answers that are being given up."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._transport.aclose()

    def _ended(self, stream: httpx.AsyncByteStream) -> None:
        """Close an answer's stream in a task: httpx can only wait for that, the forwarder cannot."""
        self._active -= 1
        task = asyncio.get_running_loop().create_task(stream.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _as_httpx(self, request: UpstreamRequest, flight: Flight) -> httpx.Request:
        headers = list(request.headers)
        content: bytes | AsyncIterator[bytes]
        if request.receive is None:
            content = request.body
        else:
            body = BodyWatch(flight, request.receive, self._timeout["write"])
            content = _pieces(request.body, body)
            if request.content_length is not None:
                headers.append((b"content-length", b"%d" % request.content_length))
        url = httpx.URL((self._base_url + request.target).decode("ascii"))
        extensions = {"timeout": self._timeout, "target": request.target}
        return httpx.Request(request.method, url, headers=headers, content=content, extensions=extensions)


class HttpxResponse:
    """An answer of an httpx transport, its body undecoded."""

    def __init__(
        self, method: str, response: httpx.Response, on_end: Callable[[httpx.AsyncByteStream], None]
    ) -> None:
        self.status = response.status_code
        self.headers: FieldList = without_hop_by_hop((n.lower(), v) for n, v in response.headers.raw)
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._iterator = self._stream.__aiter__()
        self._is_complete = method == "HEAD" or self.status in (204, 304)  # RFC 9110 6.4.1
        self._on_end = on_end

    def take(self) -> bytes:
        """Give nothing: httpx tells what has arrived only by waiting."""
        return b""

    @property
    def is_complete(self) -> bool:
        """Say whether the body has been read to its end."""
        return self._is_complete

    async def read(self) -> bytes:
        """Give the next piece, b"" at the end. Raises UpstreamError if it is cut short."""
        try:
            async for piece in self._iterator:
                if piece:
                    return piece
        except httpx.TransportError as error:
            raise UpstreamError(Cause.ANSWER_INCOMPLETE, str(error), Sent.MAYBE) from error
        self._is_complete = True
        return b""

    def close(self) -> None:
        """Have the transport take its connection back."""
        self._on_end(self._stream)


async def _pieces(first_piece: bytes, rest: BodyWatch) -> AsyncIterator[bytes]:
    """Give the request's body as it arrives from the client."""
    if first_piece:
        yield first_piece
    more = True
    while more:
        message = await rest.receive(has_head=False)  # httpx asks for the answer once the body is sent
        if message["type"] == "http.disconnect":
            raise GatewayError(Cause.CLIENT_CLOSED)
        more = message.get("more_body", False)
        if body := message.get("body", b""):
            yield body


def _translated(error: httpx.TransportError) -> UpstreamError:
    detail = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return UpstreamError(Cause.CONNECT_TIMEOUT, detail, Sent.NOTHING)
    if isinstance(error, httpx.ConnectError) and is_exhaustion(error):
        return UpstreamError(Cause.OVERLOADED, f"no connection can be opened here: {detail}", Sent.NOTHING)
    if isinstance(error, httpx.ConnectError):
        return UpstreamError(Cause.CONNECTION_REFUSED, detail, Sent.NOTHING)
    if isinstance(error, httpx.PoolTimeout):
        return UpstreamError(Cause.OVERLOADED, detail, Sent.NOTHING)
    if isinstance(error, httpx.TimeoutException):
        return UpstreamError(Cause.RESPONSE_TIMEOUT, detail, Sent.MAYBE)
    if isinstance(error, httpx.ProtocolError):
        return UpstreamError(Cause.BAD_ANSWER, detail, Sent.MAYBE)
    return UpstreamError(Cause.CONNECTION_RESET, detail, Sent.MAYBE)
