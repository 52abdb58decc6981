from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

from gateway_app.config.watch import changes, digest


class Watching:
    """Counts what `changes` tells."""

    def __init__(self, path: Path) -> None:
        self.told: asyncio.Queue[None] = asyncio.Queue()
        self.seen = digest(path)
        self._task = asyncio.create_task(self._run(path))

    async def _run(self, path: Path) -> None:
        async for _ in changes(path, self.seen):
            self.told.put_nowait(None)

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self.told.get()

    async def started(self, path: Path) -> None:
        """Wait until a change is seen, since there is no telling when the watching has begun."""
        for number in range(200):
            await asyncio.to_thread(path.write_text, f"# {number}")
            if await self._is_told_within(0.5):
                # What was seen late may not have been the last of several.
                while number and await self._is_told_within(4.0):
                    pass
                return
        raise AssertionError("no change is seen")

    async def _is_told_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.told.get()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def write_at_once(path: Path, text: str) -> None:
    """Write over what is there, which is no longer: the file is never seen empty."""
    with path.open("r+") as file:
        file.write(text)


async def test_what_is_told_and_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text("")
    watching = Watching(path)
    await watching.started(path)
    try:
        write_at_once(path, "in place")
        await watching.next()

        new = tmp_path / "routes.toml.new"
        new.write_text("put in its place")
        new.replace(path)
        await watching.next()

        os.kill(os.getpid(), signal.SIGHUP)
        await watching.next()

        write_at_once(path, "put in its place")  # the same content
        (tmp_path / "other.toml").write_text("another file")
        path.unlink()
        path.write_text("there again")
        await watching.next()
        assert watching.told.empty()
    finally:
        await watching.stop()


async def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: the link stays, what it leads to changes."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "routes.toml").write_text(f"# {version}")
    (tmp_path / "current").symlink_to("v1")
    path = tmp_path / "routes.toml"
    path.symlink_to("current/routes.toml")
    watching = Watching(path)
    await watching.started(tmp_path / "v1" / "routes.toml")
    try:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "current")
        await watching.next()
        await watching.started(tmp_path / "v2" / "routes.toml")
    finally:
        await watching.stop()


async def test_a_change_between_the_first_reading_and_the_watch_is_told(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text("# read")
    seen = digest(path)
    path.write_text("# changed before anybody watched")
    watch = changes(path, seen)
    async with asyncio.timeout(10):
        await anext(watch)
    await watch.aclose()


async def test_a_link_that_leads_nowhere_for_a_moment(tmp_path: Path) -> None:
    first, second = tmp_path / "v1", tmp_path / "v2"
    first.mkdir()
    (first / "routes.toml").write_text("one")
    path = tmp_path / "routes.toml"
    path.symlink_to(first / "routes.toml")
    watching = Watching(path)
    await watching.started(path)
    try:
        path.unlink()
        path.symlink_to(second / "routes.toml")
        await asyncio.sleep(4)  # longer than until it is looked at: there is nothing to await
        second.mkdir()
        (second / "routes.toml").write_text("two")
        await watching.next()
        write_at_once(second / "routes.toml", "three")
        await watching.next()
    finally:
        await watching.stop()


class Warned(logging.Handler):
    """Keeps what is logged, to be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.put_nowait(record.getMessage())


async def test_what_cannot_be_watched_is_looked_at(tmp_path: Path) -> None:
    directory = tmp_path / "late"
    path = directory / "routes.toml"
    warned = Warned()
    logger = logging.getLogger("gateway")
    logger.addHandler(warned)
    watching = Watching(path)
    try:
        async with asyncio.timeout(10):
            assert "is looked at only every few seconds" in await warned.messages.get()
        directory.mkdir()
        path.write_text("here")
        await watching.next()
        write_at_once(path, "there")
        await watching.next()
    finally:
        await watching.stop()
        logger.removeHandler(warned)
    assert warned.messages.empty()
