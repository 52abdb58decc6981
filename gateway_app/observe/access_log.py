"""The access log: a line for every request, made and written off the request's way.

`AccessLog.write` only remembers. A timer of the event loop formats what has come together, a bounded number
of lines at a time so that no request waits long for it, and hands them to `LogWriter`'s thread. Formatting is
left to the loop since a formatting thread would take the interpreter lock from it for longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import time
from typing import TYPE_CHECKING, Final

from gateway_app.observe.access_log_format import FORMATTERS, Entry

if TYPE_CHECKING:
    from starlette.types import Scope

    from gateway_app.exchange import Exchange
    from gateway_app.observe.access_log_format import Format
    from gateway_app.observe.log_writer import LogWriter
    from gateway_app.observe.metrics import Cell

MAX_ENTRIES: Final = 16_384
"""Requests remembered until they are formatted: a tenth of a second of more than a worker can serve."""

_DELAY_S: Final = 0.1
_LINES_AT_A_TIME: Final = 64
_CLOSE_TIMEOUT_S: Final = 2.0


class AccessLog:
    """The access log of one worker. Needs a running loop when `write` is called.

    Args:
        line_format: "json" or "text".
        writer: where lines go; closed with the log.
        dropped: counts the lines that could not be written.

    """

    def __init__(self, line_format: Format, writer: LogWriter, dropped: Cell) -> None:
        self._format = FORMATTERS[line_format]()
        self._writer = writer
        self._dropped = dropped
        self._overflown = 0
        self._counted = 0
        self._entries: deque[Entry] = deque()
        self._flush_handle: asyncio.Handle | None = None

    def use_format(self, line_format: Format) -> None:
        """Write lines in another format from now on."""
        self._format = FORMATTERS[line_format]()

    def write(self, exchange: Exchange, scope: Scope, duration_s: float) -> None:
        """Have a finished request logged."""
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(_DELAY_S, self._flush)
        elif len(self._entries) >= MAX_ENTRIES:
            self._overflown += 1
            return
        self._entries.append(Entry(time(), duration_s, exchange, scope))

    async def aclose(self) -> None:
        """Write what is left, for two seconds at most."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        while self._entries:
            self._format_some()
        await asyncio.to_thread(self._writer.close, _CLOSE_TIMEOUT_S)
        self._count_dropped()

    def _flush(self) -> None:
        self._format_some()
        loop = asyncio.get_running_loop()
        self._flush_handle = loop.call_soon(self._flush) if self._entries else None
        self._count_dropped()

    def _format_some(self) -> None:
        entries = self._entries
        make_line = self._format
        lines = [make_line(entries.popleft()).encode() for _ in range(min(len(entries), _LINES_AT_A_TIME))]
        self._writer.put(lines)

    def _count_dropped(self) -> None:
        dropped = self._writer.dropped + self._overflown
        self._dropped.add(dropped - self._counted)
        self._counted = dropped
