"""Attempts that fail and are made again, with the pauses between them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_app.config.backends import RetryConfig
from gateway_app.upstream.retry import RetryPolicy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_the_timeout_of_an_attempt_does_not_end_the_pause_after_it(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only endpoint is asked again after a pause, in which the failed attempt's deadline is long over."""
    longer_than_a_sweep = staticmethod(lambda attempts, chance: 0.25)
    monkeypatch.setattr(RetryPolicy, "backoff_s", longer_than_a_sweep)
    asked = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked > 1:
            writer.write(OK)
        await reader.read()

    retry = RetryConfig(on=("timeout",))
    async with asyncio.timeout(5), line(speak, retry=retry, timeout={"response": 1.0}) as made:
        answer = await made.ask()

    assert (answer.cause, answer.body, asked) == (None, b"ok", 2)
