"""Several workers: starting them, starting those again that die, and speaking for all of them.

A worker is this program again. It inherits the table of limits, and as its standard input a socket on which
it is told what to do: in lines that wait there for one that is only starting. Workers bind the ports
themselves (SO_REUSEPORT) and reload by themselves.
"""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from l4relay.admission import LimitTable
from l4relay.config.model import Config
from l4relay.observe.status import Status, merge
from l4relay.worker import Stamp, Worker

_TELL_STATUS: Final = b"status"
"""With a number that stands before the answer: one that comes too late is told from the next."""
_RELOAD: Final = b"reload\n"
_STOP: Final = b"stop\n"

_CANNOT_START: Final = 1
_RESTART_AFTER_S: Final = 1.0
_STATUS_TIMEOUT_S: Final = 2.0
_MAX_STATUS_BYTES: Final = 1 << 24
_log = logging.getLogger(__name__)


class Supervisor:
    """The parent of `count` workers.

    Args:
        path: The configuration, for the workers to read.
        count: How many workers.

    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count
        self._limits = LimitTable(count)
        self._channels: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Lock]] = {}
        self._stopping = asyncio.Event()
        self._questions = 0

    async def run(self) -> int:
        """Run until `stop` has ended every worker; return the exit status."""
        return max(await asyncio.gather(*[self._keep_running(index) for index in range(self._count)]))

    def stop(self) -> None:
        """Have the workers drain; called again, end."""
        self._stopping.set()
        self._tell(_STOP)

    def request_reload(self) -> None:
        """Have the workers reload."""
        self._tell(_RELOAD)

    async def collect(self) -> Status:
        """Return the sum of the workers' parts; one that does not answer in time is left out."""
        self._questions += 1
        channels = self._channels.values()
        answers = await asyncio.gather(*[_ask(*channel, self._questions) for channel in channels])
        return merge([answer for answer in answers if answer is not None])

    def _tell(self, what: bytes) -> None:
        for _, writer, _ in self._channels.values():
            if not writer.is_closing():  # its worker has just died: uvloop would raise
                writer.write(what)

    async def _keep_running(self, index: int) -> int:
        """Run one worker, again whenever it dies by itself; return 0 if it has ended well, or 1."""
        is_first = True
        while True:
            status = await self._run_once(index)
            self._limits.forget_worker(index)
            if is_first and status == _CANNOT_START:  # it has said why, and another time would be no better
                self.stop()
            if self._stopping.is_set():
                return 0 if status in (0, -signal.SIGTERM) else 1  # a signal to all, while it was starting
            is_first = False
            _log.error("worker %d has ended with status %d, and starts again", index, status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RESTART_AFTER_S)
                return 0

    async def _run_once(self, index: int) -> int:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MAX_STATUS_BYTES)
        self._channels[index] = reader, writer, asyncio.Lock()
        if self._stopping.is_set():  # since before there was the channel
            writer.write(_STOP)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "l4relay", str(self._path)),
                *("--worker", str(self._count), str(index), str(self._limits.fd)),
                stdin=theirs.fileno(),
                pass_fds=(self._limits.fd,),
                start_new_session=True,  # a terminal's Ctrl-C comes to the supervisor alone, who passes it on
            )
        try:
            return await process.wait()
        finally:
            del self._channels[index]
            writer.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: asyncio.Lock, number: int
) -> Status | None:
    try:
        async with asyncio.timeout(_STATUS_TIMEOUT_S), turn:  # only one may wait for a worker's next line
            writer.write(b"%b %d\n" % (_TELL_STATUS, number))
            while True:
                answered, _, status = (await reader.readline()).partition(b" ")
                if int(answered) == number:
                    answer: Status = json.loads(status)
                    return answer
    except (OSError, RuntimeError, TimeoutError, ValueError):  # RuntimeError: uvloop's, once it is closed
        return None


async def run_worker(path: Path, config: Config, stamp: Stamp | None, limits: LimitTable) -> int:
    """Run one of the workers, which does what the supervisor says; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # one that is sent to all of us would come to it twice
    worker = Worker(path, config, limits=limits, stamp=stamp)
    obeying = asyncio.create_task(_obey(worker))
    try:
        return await worker.run()
    finally:
        obeying.cancel()


async def _obey(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0))
    try:
        while line := await reader.readline():
            if line.startswith(_TELL_STATUS):
                number = int(line.removeprefix(_TELL_STATUS))
                writer.write(b"%d %b\n" % (number, json.dumps(worker.status()).encode()))
                await writer.drain()
            elif line == _RELOAD:
                worker.request_reload()
            else:
                worker.stop()
    finally:
        worker.stop()  # without a supervisor nobody would
        writer.close()
