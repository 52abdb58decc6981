from __future__ import annotations

import asyncio
import logging

import pytest

from gateway_app.upstream.background import Background


async def test_cancel_waits_for_the_end() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    background = Background()
    background.spawn(work(), "work")
    await asyncio.sleep(0)

    await background.cancel()

    assert ended == [True]


async def test_a_crash_is_heard_of(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise RuntimeError("lost the thread")

    background = Background()
    with caplog.at_level(logging.ERROR, "gateway.upstream"):
        background.spawn(work(), "probing of x")
        await background.join()
        await asyncio.sleep(0)

    assert "probing of x ended unexpectedly" in caplog.text
    assert "lost the thread" in caplog.text
