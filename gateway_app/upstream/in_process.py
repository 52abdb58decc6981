"""`asgi:module:app` and `wsgi:module:app`: the endpoint is an application in this process.

The application runs in a task of its own, since the forwarder must be able to look at its answer's head, to
send the answer at the client's pace, and to give up on it. It sees the scope that the backend of a network
request would see, and its lifespan is run: startup with the backend's, before the first request in any case,
and shutdown when the backend closes.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING

from hypercorn.middleware import AsyncioWSGIMiddleware

from gateway_app.header_fields import check_answer, without_hop_by_hop
from gateway_app.problem import Cause, GatewayError
from gateway_app.upstream.deadlines import BodyWatch
from gateway_app.upstream.lifespan import Lifespan
from gateway_app.upstream.transport import FieldList, Sent, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from starlette.types import ASGIApp, Message, Scope

    from gateway_app.upstream.deadlines import Flight
    from gateway_app.upstream.transport import UpstreamRequest

logger = logging.getLogger(__name__)

HIGH_WATER_BYTES = 256 * 1024
"""Unread body bytes at which the application's `send` waits."""
_WSGI_MAX_BODY_BYTES = 2**40
"""No bound of its own: the edge bounds every body already."""


def load_application(path: str) -> object:
    """Import "module:name". Raises ImportError or AttributeError where there is none."""
    module_name, _, name = path.partition(":")
    application: object = importlib.import_module(module_name)
    for attribute in name.split("."):
        application = getattr(application, attribute)
    return application


class InProcessTransport:
    """Runs requests through an ASGI application. `idle_timeout_s` is the backend's `timeout.idle`."""

    def __init__(self, app: ASGIApp, *, idle_timeout_s: float) -> None:
        self._app = app
        self._idle_timeout_s = idle_timeout_s
        self._lifespan = Lifespan(app)
        self._active = 0

    @classmethod
    def from_wsgi(cls, app: object, *, idle_timeout_s: float) -> InProcessTransport:
        """Run requests through a WSGI application (PEP 3333), in threads."""
        never_empty = _never_empty(app)  # type: ignore[arg-type]  # a WSGI application, as the file says
        asgi = AsyncioWSGIMiddleware(never_empty, max_body_size=_WSGI_MAX_BODY_BYTES)
        return cls(asgi, idle_timeout_s=idle_timeout_s)  # type: ignore[arg-type]

    def status(self) -> dict[str, int]:
        """Count the requests that run."""
        return {"open": self._active, "idle": 0, "waiting": 0}

    async def startup(self) -> None:
        """Run the application's startup. Raises what it failed with, as every request then does."""
        await self._lifespan.started()

    async def send(self, request: UpstreamRequest, flight: Flight) -> InProcessResponse:
        """Start the application and wait for the head of its answer. Raises UpstreamError if it fails."""
        try:
            state = await self._lifespan.started()
        except Exception as error:
            raise UpstreamError(
                Cause.CONNECTION_REFUSED, f"startup failed: {error!r}", Sent.NOTHING
            ) from error
        response = InProcessResponse(request, flight, self._idle_timeout_s, self._ended)
        self._active += 1
        response.run(self._app, _scope_of(request, state))
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def aclose(self) -> None:
        """Run the application's shutdown."""
        await self._lifespan.stop()

    def _ended(self) -> None:
        self._active -= 1


class InProcessResponse:
    """The answer of an application that may still be running."""

    def __init__(
        self, request: UpstreamRequest, flight: Flight, idle_s: float, on_end: Callable[[], None]
    ) -> None:
        self.status = 0
        self.headers: FieldList = []
        self._request = request
        self._first_piece = request.body  # the request keeps it, for another attempt
        self._rest = None if request.receive is None else BodyWatch(flight, request.receive, idle_s)
        self._flight = flight
        self._on_end = on_end
        self._chunks: list[bytes] = []
        self._unread = 0
        self._is_started = False
        self._is_head_taken = False
        self._is_whole = False
        self._has_no_body = request.method == "HEAD"
        self._left_bytes: int | None = None  # of the length that the head has declared
        self._body_given = False
        self._error: GatewayError | None = None
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def run(self, app: ASGIApp, scope: Scope) -> None:
        """Start the application in a task that `close` ends."""
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def head(self) -> None:
        """Wait for the head. Raises UpstreamError if the application fails before."""
        while not self._is_started:
            if self._error is not None:
                raise self._error
            await self._wait()
        if self._error is not None and not self._chunks:  # it failed before its answer's first byte
            raise self._error
        self._is_head_taken = True

    def take(self) -> bytes:
        """Give what has been sent of the body."""
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        self._taken.set()
        return body

    @property
    def is_complete(self) -> bool:
        """Say whether the body has been sent whole and taken."""
        return self._is_whole and not self._chunks

    async def read(self) -> bytes:
        """Give the next piece, b"" at the end. Raises UpstreamError if the application fails on the way."""
        while not self._chunks:
            if self._is_whole:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.take()

    def close(self) -> None:
        """Let an application that has answered finish; end one that has not."""
        self._gone.set()
        self._taken.set()
        if self._task is not None and not self._is_whole:
            self._task.cancel()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        cause = Cause.ANSWER_INCOMPLETE
        try:
            await app(scope, self._receive, self._send)
            detail = "the application ended before its answer did"
            cause = Cause.ANSWER_INCOMPLETE if self._is_started else Cause.BAD_ANSWER
        except GatewayError as error:  # from `receive`: the client's body is at fault
            self._error = error
            return
        except asyncio.CancelledError:
            detail = "the application was cancelled"
            raise
        except Exception as error:
            if self._is_whole:
                logger.exception("an in-process application failed after its answer")
            else:
                logger.exception("an in-process application failed")
            detail = f"the application raised {error!r}"
            cause = Cause.ANSWER_INCOMPLETE if self._is_started else Cause.BAD_ANSWER
        finally:
            if not self._is_whole and self._error is None:
                self._error = UpstreamError(cause, detail, Sent.MAYBE)
            self._changed.set()
            self._on_end()

    async def _receive(self) -> Message:
        rest = self._rest
        if self._gone.is_set():  # nor is the client's body ours to read any more
            return {"type": "http.disconnect"}
        if not self._body_given:
            self._body_given = rest is None
            body, self._first_piece = self._first_piece, b""
            if body or rest is None:
                return {"type": "http.request", "body": body, "more_body": rest is not None}
        if self._body_given or rest is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await rest.receive(has_head=self._is_head_taken)
        if message["type"] == "http.disconnect":
            self._flight.end(Cause.CLIENT_CLOSED)
        elif not message.get("more_body", False):
            self._body_given = True
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._is_started:
                raise RuntimeError("the answer has been started already")
            self.status = message["status"]
            self.headers = without_hop_by_hop(
                (bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())
            )
            check_answer(self.status, self.headers)
            self._has_no_body = self._has_no_body or self.status in (204, 304)
            self._left_bytes = None if self._has_no_body else _declared_length(self.headers)
            self._is_started = True
            return
        if message["type"] != "http.response.body" or not self._is_started:
            raise RuntimeError(f"unexpected message {message['type']!r}")
        if self._is_whole or self._gone.is_set():
            return
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if self._left_bytes is not None:
            self._left_bytes -= len(body)
            if self._left_bytes < 0 or (self._left_bytes and not more):
                raise RuntimeError("the answer's body is not as long as its Content-Length")
        if body and not self._has_no_body:
            self._chunks.append(body)
            self._unread += len(body)
        self._is_whole = not more
        self._changed.set()
        while self._unread > HIGH_WATER_BYTES and not self._gone.is_set():
            self._taken.clear()
            await self._taken.wait()


def _declared_length(headers: FieldList) -> int | None:
    """Return Content-Length, None if there is none. Raises ValueError for several, or no number."""
    values = [value for name, value in headers if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit():
        raise ValueError(f"the answer's Content-Length is {values!r}")
    return int(values[0])


def _never_empty(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterator[bytes]]:
    """Give each answer of a WSGI application at least one piece: hypercorn sends the head with the first."""

    def answer(environ: dict[str, object], start_response: Callable[..., object]) -> Iterator[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()
        yield b""

    return answer


def _scope_of(request: UpstreamRequest, state: dict[str, object]) -> Scope:
    """Return the scope for the application: a copy, so that what it changes stays its own."""
    raw_path, _, query = request.target.partition(b"?")
    scope = {**request.scope, "headers": request.headers, "raw_path": raw_path, "query_string": query}
    scope["client"] = (scope["gateway"].client, 0)
    scope["state"] = dict(state)
    scope["root_path"] = ""
    del scope["gateway"]
    return scope
