"""Timeouts and vanished clients, for all exchanges of a worker, from one timer.

A timer and a task per request would cost more than the request itself. So each exchange only notes its
next deadline, and one sweep every 100 ms ends those that are past it; timeouts are therefore up to 100 ms
late. The sweep also starts to listen for the client's disconnect once a request has lasted longer than one
interval: only slow requests pay for that, and a disconnect is noticed within 200 ms.

Ending an exchange means cancelling its task after its cause is noted in `Flight.cut`; the forwarder turns the
cancellation back into that cause.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from gateway_app.problem import Cause, GatewayError

if TYPE_CHECKING:
    from starlette.types import Message, Receive

SWEEP_INTERVAL_S = 0.1
NEVER = float("inf")
_TOTAL_TIMEOUT = Cause.TOTAL_TIMEOUT


class Flight:
    """One exchange under way upstream, as the sweep sees it.

    Attributes:
        deadline: loop time at which `cause` ends the exchange.
        cause: what to report when `deadline` passes.
        total_deadline: loop time at which the whole exchange must have ended.
        cut: why the exchange was ended from outside, None while it was not.
        task: runs the exchange; None once that has ended.
        owns_receive: the sweep may call `receive` to listen for the disconnect; False while the body is read.
    """

    __slots__ = (
        "cause",
        "cut",
        "deadline",
        "owns_receive",
        "receive",
        "started",
        "task",
        "total_deadline",
        "watcher",
    )

    def __init__(
        self, receive: Receive, started: float, total_deadline: float, task: asyncio.Task[object] | None
    ) -> None:
        self.receive = receive
        self.started = started
        self.deadline = NEVER
        self.cause = _TOTAL_TIMEOUT
        self.total_deadline = total_deadline
        self.cut: Cause | None = None
        self.owns_receive = True
        self.task = task
        self.watcher: asyncio.Task[None] | None = None

    def end(self, cause: Cause) -> None:
        """Cancel the exchange's task because of `cause`. Does nothing the second time."""
        if self.cut is None and self.task is not None:
            self.cut = cause
            self.task.cancel()


class BodyWatch:
    """Tells the sweep whom a request's body waits for, where a transport reads it piece by piece.

    While a piece is awaited the client has `idle_s` for it; then the endpoint has as long to ask for more.
    Once the body is whole the endpoint has the time that it was given for its answer.
    """

    __slots__ = ("_answer_s", "_cause", "_flight", "_idle_s", "_receive")

    def __init__(self, flight: Flight, receive: Receive, idle_s: float) -> None:
        self._flight = flight
        self._receive = receive
        self._idle_s = idle_s
        self._cause = flight.cause
        self._answer_s = flight.deadline - monotonic()

    async def receive(self, *, has_head: bool) -> Message:
        """Give the next message. With `has_head` the answer is being read, and its reader tells the cause."""
        flight = self._flight
        flight.owns_receive = False
        flight.deadline = monotonic() + self._idle_s
        if not has_head:
            flight.cause = Cause.REQUEST_TIMEOUT
        is_last = True
        try:
            message = await self._receive()
            is_last = not message.get("more_body", False)
        finally:  # also where the application gives up on it
            if flight.cause is Cause.REQUEST_TIMEOUT:  # else the answer has begun meanwhile
                flight.cause = self._cause if is_last else Cause.IDLE_TIMEOUT
                flight.deadline = monotonic() + (self._answer_s if is_last else self._idle_s)
        flight.owns_receive = is_last and message["type"] == "http.request"
        return message


class Deadlines:
    """Holds the flights of one event loop and ends those that are late or whose client has left.

    Attributes:
        loop: the event loop; None before the start.
    """

    def __init__(self) -> None:
        self._flights: set[Flight] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.add = self._flights.add

    def __len__(self) -> int:
        """Count the flights under way."""
        return len(self._flights)

    def remove(self, flight: Flight) -> None:
        """Forget a flight that has ended; nothing cancels its task from then on."""
        flight.task = None
        self._flights.discard(flight)
        if flight.watcher is not None:
            flight.watcher.cancel()

    def start(self) -> None:
        """Begin to sweep on the running loop."""
        self.loop = loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)

    async def aclose(self) -> None:
        """Stop sweeping and wait for the watchers of flights that have ended."""
        if self._timer is not None:
            self._timer.cancel()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for flight in tuple(self._flights):
            if now >= flight.deadline:
                flight.end(flight.cause)
            elif now >= flight.total_deadline:
                flight.end(Cause.TOTAL_TIMEOUT)
            elif flight.watcher is None and flight.owns_receive and now - flight.started > SWEEP_INTERVAL_S:
                self._watch(flight, loop)
        self._timer = loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)

    def _watch(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        watcher = loop.create_task(_end_on_disconnect(flight))
        flight.watcher = watcher
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)


async def _end_on_disconnect(flight: Flight) -> None:
    """Wait for the client to leave. Its body was read, or nobody wants it: what comes of it is dropped."""
    receive = flight.receive
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except GatewayError as error:  # the body that nobody wants is malformed, or too large
        flight.end(error.cause)
    else:
        flight.end(Cause.CLIENT_CLOSED)
