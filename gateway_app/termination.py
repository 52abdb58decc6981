"""Hearing of a stop when it begins.

Servers tell the application that they stop (ASGI lifespan) only once the last request has ended. What has to
be known before, so that load balancers look elsewhere during the drain, is heard from the signal itself.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def on_termination(notify: Callable[[], None]) -> Callable[[], None]:
    """Have `notify` called at SIGTERM, before what the server does then; returns what ends this.

    `notify` runs between any two steps of the main thread. Where no server listens for the signal, or in
    another thread than the main one, nothing is done: the signal then means what it meant.
    """
    servers = signal.getsignal(signal.SIGTERM)
    if not callable(servers):
        return _nothing
    handle_by_server = servers

    def handle(number: int, frame: FrameType | None) -> None:
        notify()
        handle_by_server(number, frame)

    try:
        signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not in the main thread
        return _nothing

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, servers)

    return restore


def _nothing() -> None:
    """Stand in for `restore` where nothing was changed."""
