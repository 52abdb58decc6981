"""Exchanges cancelled at random points: nothing of any of them may stay behind.

25,000 of them on each of the two event loops, 64 at a time over 16 places, so that many wait for one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from gateway_app.problem import Cause

CANCELLED = 25_000
AT_ONCE = 64
PLACES = 16
OK = b"HTTP/1.1 200 OK\r\n"
PIECE = bytes(4096)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Eventually = Callable[[Callable[[], bool]], Any]


async def endpoint(reader: Reader, writer: Writer) -> None:
    """Does what the path says, a few steps of the loop apart."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if b"\r\nexpect:" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if path == b"/drop":
            return
        if path == b"/early":
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        if b"\r\ncontent-length:" in head:  # all of the body was at hand
            await reader.readexactly(len(PIECE))
        elif b"\r\ntransfer-encoding:" in head:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        if path == b"/early":
            continue
        if path != b"/download":
            await asyncio.sleep(0)
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")
            continue
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0)
            writer.write(b"1000\r\n" + PIECE + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")


class Client:
    """Takes its time, now and then leaves by itself, and cancels the exchange at the end of its patience."""

    def __init__(self, rng: random.Random) -> None:
        self.began = False
        self.task: asyncio.Task[Any] | None = None
        self._pieces = rng.randrange(1, 6)
        self._leaves = rng.random() < 0.1
        self._patience = rng.randrange(1, 6)

    async def receive(self) -> Message:
        self._pieces -= 1
        await self._take_a_step()
        if self._pieces < 0 or (self._leaves and not self._pieces):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": PIECE, "more_body": self._pieces > 0}

    async def send(self, message: Message) -> None:
        self.began = True
        await self._take_a_step()

    async def _take_a_step(self) -> None:
        self._patience -= 1
        if not self._patience and self.task is not None:
            self.task.cancel()
        await asyncio.sleep(0)


async def exchange(made: Any, rng: random.Random) -> str:
    """Start one and cancel it: after some steps of the loop, some time, or where its client has enough.

    Says where it ended.
    """
    client = Client(rng)
    path = rng.choice(("/get", "/get", "/download", "/download", "/upload", "/early", "/drop"))
    if path in ("/upload", "/early"):
        expect = path == "/upload" and rng.random() < 0.3
        asking = made.ask("POST", path, receive=client.receive, expect=expect, on_send=client.send)
    else:
        asking = made.ask(path=path, on_send=client.send)
    task = asyncio.create_task(asking)
    how = rng.choice(("steps", "time", "client"))
    if how == "steps":
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(0)
        task.cancel()
    elif how == "time":
        asyncio.get_running_loop().call_later(rng.uniform(0, 0.015), task.cancel)
    else:
        client.task = task
    try:
        outcome = await task
    except asyncio.CancelledError:
        return "within the answer" if client.began else "before the answer"
    assert outcome.cause in (None, Cause.CLIENT_CLOSED, Cause.CONNECTION_RESET)
    return "failed" if outcome.cause else "by itself"


@pytest.mark.timeout(120)
async def test_exchanges_cancelled_at_any_point_leave_nothing_behind(
    line: Any, eventually: Eventually
) -> None:
    rng = random.Random(20)
    ends: Counter[str] = Counter()

    async def one_after_the_other() -> None:
        while ends["before the answer"] + ends["within the answer"] < CANCELLED:
            ends[await exchange(made, rng)] += 1

    async with line(endpoint, max_connections=PLACES) as made:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())

        assert ends.keys() == {"before the answer", "within the answer", "by itself", "failed"}
        assert min(ends.values()) > CANCELLED / 100, ends
        assert made.flights == made.pool["waiting"] == made.backend.endpoints[0].active == 0
        assert made.pool["open"] == made.pool["idle"]
        await eventually(lambda: made.open_at_endpoint == made.pool["open"])
        again = await asyncio.gather(*(made.ask(path="/download") for _ in range(PLACES)))
        assert all(outcome.is_whole for outcome in again)
        assert made.pool == {"open": PLACES, "idle": PLACES, "waiting": 0}, "every place is there"
