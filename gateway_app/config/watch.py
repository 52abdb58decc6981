"""When to read the configuration again: the file has changed, or SIGHUP says so.

An editor may write in place, write several times, or put a new file in the old one's place; Kubernetes
changes a link beside it. So the directory is watched, and what counts is whether the content is another now.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_SETTLED_MS: Final = 50
"""So long nothing must change before a change is told: an editor's writes come closer together."""
_MOST_MS: Final = 400
_LOOK_EVERY_MS: Final = 3000
"""The file is looked at even if nothing was told: it may have changed while the watch was being set up."""


async def changes(path: Path) -> AsyncIterator[None]:
    """Yield each time the file at `path` has other content than before, and on each SIGHUP.

    Ends by cancellation. What comes while the consumer is busy is told once when it asks again. In a process
    whose event loop is not in the main thread, or where there is no SIGHUP, only the file counts.
    """
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        loop.add_signal_handler(signal.SIGHUP, wake.set)
    watcher = asyncio.create_task(_watch(path, wake))
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


async def _watch(path: Path, wake: asyncio.Event) -> None:
    """Set `wake` whenever the content has changed. A file that is missing for a moment is not a change."""
    known = _digest(path)
    while True:
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
            digest = _digest(path)
            if digest is not None and digest != known:
                known = digest
                wake.set()
            if _directories(path) != directories:
                break  # a link leads elsewhere now


def _directories(path: Path) -> set[Path]:
    """Return where a change can show: beside the file, and beside what it links to, by whatever link."""
    return {path.absolute().parent, path.resolve().parent}


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
