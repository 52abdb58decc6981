"""Keeps programs running as child processes: restarts what ends, passes signals on, stops all in time.

SIGTERM, SIGINT   every child gets SIGTERM and may take `drain_s` to finish; those that the last requests of
                  the others may need (`stops_last`) get it when these have ended; a second one kills all
SIGHUP            every child gets it: read the configuration again
a child ends      it is started again after a pause; one that keeps ending at once stops everything
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway_app.serving.parent import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 1.0
_SOON_S: Final = 10.0
"""A child that ends within this time after its start has failed to start."""
_MOST_FAILED_STARTS: Final = 3
_KILL_AFTER_S: Final = 3.0
"""So long beyond `drain_s` a child may take to close what it has."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        name: for the log.
        arguments: the command line, from the executable's path on.
        inherited: file descriptors that the child gets under their numbers.
        stops_last: it is told to stop when those without this have ended.

    """

    name: str
    arguments: tuple[str, ...]
    inherited: tuple[int, ...] = ()
    stops_last: bool = False


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        programs: each becomes one child.
        environment: of the children.
        drain_s: how long a child may take to end after SIGTERM.
        on_stop: called once, when stopping begins and before the children know; closes the listeners.

    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        environment: Mapping[str, str],
        drain_s: float,
        on_stop: Callable[[], None],
    ) -> None:
        self._programs = programs
        self._environment = environment
        self._drain_s = drain_s
        self._on_stop = on_stop
        self._processes: dict[Program, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._stops_last = False  # which of them are being stopped
        self._has_failed = False

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a program cannot be kept running; return the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._signal_all, signal.SIGHUP)
        children = {program: asyncio.create_task(self._keep_running(program)) for program in self._programs}
        await self._stopping.wait()
        for stops_last in (False, True):
            self._stops_last = stops_last
            stage = [program for program in self._programs if program.stops_last is stops_last]
            self._signal(stage, signal.SIGTERM)
            await self._ended(stage, [children[program] for program in stage])
        return 1 if self._has_failed else 0

    async def _ended(self, programs: Sequence[Program], children: Sequence[asyncio.Task[None]]) -> None:
        """Wait until they have ended, and kill those that take too long."""
        if not children:
            return
        _, late = await asyncio.wait(children, timeout=self._drain_s + _KILL_AFTER_S)
        if late:
            running = [program for program in programs if program in self._processes]
            names = ", ".join(program.name for program in running)
            logger.warning("killing what has not ended within %g s: %s", self._drain_s, names)
            self._signal(running, signal.SIGKILL)
        await asyncio.gather(*children)

    async def _keep_running(self, program: Program) -> None:
        failed_starts = 0
        while not self._stopping.is_set():
            began = monotonic()
            try:
                status = await self._run_once(program)
            except OSError as error:  # the system is short of something: the others go on, and this one later
                logger.error("%s cannot be started now: %s", program.name, error)
                await self._pause()
                continue
            if self._stopping.is_set():
                return
            failed_starts = failed_starts + 1 if monotonic() - began < _SOON_S else 0
            logger.error("%s has ended with status %d", program.name, status)
            if failed_starts == _MOST_FAILED_STARTS:
                logger.error("%s does not stay up: stopping", program.name)
                self._has_failed = True
                self._stop()
                return
            await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)

    async def _run_once(self, program: Program) -> int:
        process = await asyncio.create_subprocess_exec(
            *program.arguments,
            env=dict(self._environment),
            pass_fds=program.inherited,
            process_group=0,  # Ctrl-C in a terminal reaches only the supervisor, which stops the children
            preexec_fn=_prepare_child,
        )
        self._processes[program] = process
        if self._stopping.is_set() and (self._stops_last or not program.stops_last):
            process.terminate()  # it was told while it was being started
        status = await process.wait()
        del self._processes[program]
        return status

    def _stop(self) -> None:
        if self._stopping.is_set():
            logger.warning("stopping at once")
            self._signal_all(signal.SIGKILL)
            return
        self._stopping.set()
        self._on_stop()

    def _signal_all(self, number: signal.Signals) -> None:
        self._signal(self._programs, number)

    def _signal(self, programs: Sequence[Program], number: signal.Signals) -> None:
        for program in programs:
            if program in self._processes:
                with suppress(ProcessLookupError):
                    self._processes[program].send_signal(number)


def _prepare_child() -> None:
    """Set up a child between fork and exec."""
    # A SIGHUP that comes before the child listens for it must not end it; what it would read is new anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_with_parent(signal.SIGTERM)
