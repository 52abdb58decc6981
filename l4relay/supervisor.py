"""Several workers: starting them, starting those again that die, and speaking for all of them.

A worker is this program again, with three things inherited: a socket to be spoken to on, the table of shared
limits, and which one it is. Workers bind the ports themselves (SO_REUSEPORT) and reload by themselves. A stop
is passed on as the signal that it is; a reload over the socket, where it waits for a worker that is only
starting and would be ended by the signal.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from l4relay.admission import LimitTable
from l4relay.observe.status import Status

ASK_STATUS: Final = b"status\n"
RELOAD: Final = b"reload\n"
"""What is said to a worker."""

_CANNOT_START: Final = 1
_RESTART_AFTER_S: Final = 1.0
_STATUS_TIMEOUT_S: Final = 2.0
_MAX_STATUS_BYTES: Final = 1 << 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What a worker inherits.

    Attributes:
        index: Which of the workers it is, from 0.
        workers: How many there are.
        table_fd: The shared limits.
        channel_fd: The socket that it is spoken to on.

    """

    index: int
    workers: int
    table_fd: int
    channel_fd: int

    def __str__(self) -> str:
        return f"{self.index}:{self.workers}:{self.table_fd}:{self.channel_fd}"

    @classmethod
    def parse(cls, text: str) -> "WorkerPlace":
        """Read what `str` has written."""
        return cls(*map(int, text.split(":")))


class Supervisor:
    """The parent of `count` workers.

    Args:
        path: The configuration, for the workers to read.
        count: How many workers.

    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count
        self._table_fd = LimitTable.share(count)
        self._table = LimitTable(self._table_fd, count)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._channels: dict[int, _Channel] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal has ended every worker; return the exit status."""
        statuses = await asyncio.gather(*[self._keep_running(index) for index in range(self._count)])
        os.close(self._table_fd)
        return max(statuses)

    def stop(self) -> None:
        """Have the workers drain; called again, end."""
        self._stopping.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                process.terminate()

    def reload(self) -> None:
        """Have the workers reload."""
        for channel in self._channels.values():
            channel.reload()

    async def status(self) -> list[Status]:
        """Return the workers' parts; one that does not answer in time is left out."""
        answers = await asyncio.gather(*[channel.ask() for channel in self._channels.values()])
        return [answer for answer in answers if answer is not None]

    async def _keep_running(self, index: int) -> int:
        """Run one worker, again whenever it dies by itself; return its last exit status."""
        is_first = True
        while True:
            status = await self._run_once(index)
            self._table.forget_worker(index)
            if is_first and status == _CANNOT_START:  # it has said why, and another time would be no better
                self.stop()
            if self._stopping.is_set():
                return 0 if status in (0, -signal.SIGTERM) else 1  # that signal while it was starting
            is_first = False
            _log.error("worker %d has ended with status %d, and starts again", index, status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RESTART_AFTER_S)

    async def _run_once(self, index: int) -> int:
        ours, theirs = socket.socketpair()
        place = WorkerPlace(index, self._count, self._table_fd, theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "l4relay", str(self._path), "--worker", str(place)),
            pass_fds=(self._table_fd, theirs.fileno()),
            start_new_session=True,  # a terminal's Ctrl-C comes to the supervisor alone, who passes it on
        )
        theirs.close()
        self._processes[index] = process
        if self._stopping.is_set():  # a signal while it was started
            process.terminate()
        channel = self._channels[index] = _Channel(
            *await asyncio.open_connection(sock=ours, limit=_MAX_STATUS_BYTES)
        )
        try:
            return await process.wait()
        finally:
            del self._channels[index], self._processes[index]
            channel.close()


class _Channel:
    """A worker's socket: a line asks for its status, a line of JSON answers; another has it reload."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def ask(self) -> Status | None:
        """Return the worker's status, None if it does not answer in time."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S), self._turn:
                self._writer.write(ASK_STATUS)
                answer: Status = json.loads(await self._reader.readline())
                return answer
        except (OSError, TimeoutError, ValueError):
            return None

    def reload(self) -> None:
        """Have the worker reload, as soon as it listens to us."""
        self._writer.write(RELOAD)

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()
