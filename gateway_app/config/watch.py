"""When to read the configuration again: the file has changed, or SIGHUP says so.

An editor may write in place, write several times, or put a new file in the old one's place; Kubernetes
changes a link beside it. So the directory is watched, and what counts is whether the content is another now.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

logger = logging.getLogger("gateway")

_SETTLED_MS: Final = 50
"""So long nothing must change before a change is told: an editor's writes come closer together."""
_MOST_MS: Final = 400
_LOOK_EVERY_MS: Final = 3000
"""The file is looked at even if nothing was told: it may have changed while the watch was being set up."""


async def changes(path: Path, seen: bytes | None) -> AsyncGenerator[None, None]:
    """Yield each time the file at `path` has other content than before, and on each SIGHUP.

    `seen` is the `digest` of the file before it was last read: a change since then is told, too.
    Ends by cancellation. What comes while the consumer is busy is told once when it asks again. In a process
    whose event loop is not in the main thread, or where there is no SIGHUP, only the file counts.
    """
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        loop.add_signal_handler(signal.SIGHUP, wake.set)
    watcher = asyncio.create_task(_watch(path, seen, wake))
    try:
        while True:
            await wake.wait()
            wake.clear()
            yield
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
            loop.remove_signal_handler(signal.SIGHUP)
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


async def _watch(path: Path, known: bytes | None, wake: asyncio.Event) -> None:
    """Set `wake` whenever the content has changed. A file that is missing for a moment is not a change."""
    told = ""
    while True:
        try:
            async for found in _contents(path):
                told = ""
                if found is not None and found != known:
                    known = found
                    wake.set()
        except OSError as error:  # a directory has gone, or the system has no watches or descriptors left
            if str(error) != told:
                told = str(error)
                logger.warning("%s is looked at only every few seconds: %s", path, error)
            await asyncio.sleep(_LOOK_EVERY_MS / 1000)
            found = digest(path)
            if found is not None and found != known:
                known = found
                wake.set()


async def _contents(path: Path) -> AsyncIterator[bytes | None]:
    """Yield the file's digest whenever something may have changed, until a link leads elsewhere.

    Raises OSError if that cannot be watched.
    """
    directories = _directories(path)
    async for _ in awatch(
        *directories,
        watch_filter=None,
        step=_SETTLED_MS,
        debounce=_MOST_MS,
        rust_timeout=_LOOK_EVERY_MS,
        yield_on_timeout=True,
        recursive=False,
    ):
        yield digest(path)
        if _directories(path) != directories:
            return


def _directories(path: Path) -> set[Path]:
    """Return where a change can show: beside the file, and beside what it links to, by whatever link."""
    beside, target = path.absolute().parent, path.resolve().parent
    return {beside, target} if target.is_dir() else {beside}  # a link may lead nowhere for a moment


def digest(path: Path) -> bytes | None:
    """Return what tells the file's content from another; None if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
