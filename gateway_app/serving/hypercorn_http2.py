"""hypercorn's HTTP/2, but what becomes of one stream harms no other.

hypercorn reads no further while the application of one stream does not take its body, and so holds up all
others. Here a body waits in its stream, and the client may send as much more as the application has taken:
the window of a stream bounds what waits (RFC 9113 5.2), and that of the connection is wide enough for all.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from h2.exceptions import ProtocolError
from hypercorn.events import Closed
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h2.events import Event
    from hypercorn.events import Event as ConnectionEvent

_STREAM_WINDOW_BYTES: Final = 65_535
"""What a client may send of a body before any of it is taken; HTTP/2's default."""


@dataclass(frozen=True, slots=True)
class BodyTaken(StreamEvent):
    """So much of what a stream has received waits no more."""

    flow_controlled_length: int


class Http2Stream(HTTPStream):
    """One request and its answer; its body waits here until the application takes it."""

    def __init__(self, app: Any, *arguments: Any) -> None:
        super().__init__(self._run, *arguments)  # type: ignore[arg-type]  # has what is called of an AppWrapper
        self._app = app
        self._waiting = bytearray()
        self._flow_controlled_length = 0
        self._is_whole = False
        self._is_taken = False
        self._news = asyncio.Event()

    async def _run(self, scope: Any, _: Any, *arguments: Any) -> None:
        await self._app(scope, self._receive, *arguments)

    async def handle(self, event: StreamEvent) -> None:
        """Take what the client sends, without waiting for the application."""
        if isinstance(event, Body):
            self._waiting += event.data
        elif isinstance(event, EndBody):
            self._is_whole = True
        else:
            await super().handle(event)
            if self.closed:
                await self._let_more_come()  # to the others: the window of the connection is everybody's
        self._news.set()

    def count(self, flow_controlled_length: int) -> None:
        """Take note of how much of the windows the data have used that are handled next."""
        self._flow_controlled_length += flow_controlled_length

    async def _receive(self) -> dict[str, Any]:
        """Give the application all that has come."""
        while not self.closed:
            if self._waiting or (self._is_whole and not self._is_taken):
                body = bytes(self._waiting)
                self._waiting.clear()
                self._is_taken = self._is_whole
                await self._let_more_come()
                return {"type": "http.request", "body": body, "more_body": not self._is_taken}
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def _let_more_come(self) -> None:
        taken, self._flow_controlled_length = self._flow_controlled_length, 0
        if taken:
            await self.send(BodyTaken(self.stream_id, taken))


class Http2(H2Protocol):
    """hypercorn's HTTP/2, but a stream that stalls or ends before its time harms no other.

    An answer that is not whole ends with a reset of its stream (RFC 9113 8.1.1): hypercorn's own ends with
    nothing, and the client waits for the rest for as long as the connection lasts. What comes of a body after
    its answer is dropped (8.1), and a request that is none is refused: hypercorn would break off, with an
    exception, the connection of all streams.
    """

    async def initiate(self, *arguments: Any, **options: Any) -> None:
        """Begin, with a window for what all streams together may have waiting."""
        await super().initiate(*arguments, **options)
        others = self.config.h2_max_concurrent_streams - 1
        self.connection.increment_flow_control_window(others * _STREAM_WINDOW_BYTES)
        await self._flush()

    async def handle(self, event: ConnectionEvent) -> None:
        """Take what the connection receives; with its end, what streams have to say goes nowhere."""
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()  # or who fills it would wait for ever: the task that empties it ends

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream has to say; that it is over, too, where its answer is not whole."""
        if self.closed:  # the connection is idle no more, which hypercorn would say of it
            return
        if isinstance(event, BodyTaken):
            with suppress(ProtocolError):  # the client has ended the connection
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            await self._flush()
            return
        if isinstance(event, StreamClosed):
            left = self.stream_buffers.get(event.stream_id)
            if left is not None and not left.complete:
                with suppress(ProtocolError):  # the client has closed it
                    self.connection.reset_stream(event.stream_id, ErrorCodes.INTERNAL_ERROR)
                await self._flush()
                await self._window_updated(event.stream_id)  # the sending task sees the end, and clears up
        await super().stream_send(event)

    async def _handle_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                stream: Any = self.streams.get(event.stream_id)
                if stream is None:
                    await self.stream_send(BodyTaken(event.stream_id, event.flow_controlled_length))
                    continue
                if isinstance(stream, Http2Stream):
                    stream.count(event.flow_controlled_length)
                    await stream.handle(Body(stream_id=event.stream_id, data=event.data))
                    continue
            elif isinstance(event, RequestReceived) and not _is_request(event.headers):
                with suppress(ProtocolError):  # the client has closed it
                    self.connection.send_headers(event.stream_id, [(b":status", b"400")], end_stream=True)
                continue
            await super()._handle_events([event])
        await self._flush()


def _is_request(fields: Iterable[tuple[Any, Any]]) -> bool:
    """Say whether hypercorn can read the head. A CONNECT without :path it cannot, nor what is not ASCII."""
    path = b""
    for name, value in fields:
        if name == b":path":
            path = value
        elif name == b":method" and not value.isascii():
            return False
    return bool(path) and path.isascii()
