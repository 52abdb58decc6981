"""Programs that cannot be started now."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from gateway_app.serving.supervisor import Program, Supervisor


class Told(logging.Handler):
    """Says when something is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.something = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.something.set()


async def test_what_cannot_be_started_now_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, began = tmp_path / "script", tmp_path / "began"
    os.mkfifo(began)
    told = Told()
    monkeypatch.setattr("gateway_app.serving.supervisor.logger.handlers", [told])
    supervisor = Supervisor(
        [Program("late", (str(script),))], environment={}, drain_s=5.0, on_stop=lambda: None
    )
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(20):
        await told.something.wait()
        script.write_text(f"#!/bin/sh\necho here > {began}\nexec /bin/sleep 60\n")
        script.chmod(0o700)
        assert await asyncio.to_thread(began.read_text) == "here\n"
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
