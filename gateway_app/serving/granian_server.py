"""granian with its workers: `python -m gateway_app.serving.granian_server DRAIN WORKERS ADDRESS`.

granian opens its listening sockets itself, one in each worker, and keeps its workers running.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from gateway_app.serving.listeners import BACKLOG, host_and_port
from gateway_app.serving.logs import configure_logging
from gateway_app.serving.parent import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_CONNECTIONS: Final = 65_536
"""For each worker. granian's default, the backlog divided by the workers, is less than idle clients open."""


def max_connections(descriptors: int) -> int:
    """Return how many clients a worker takes that may have so many descriptors.

    Half of them are left for the endpoints and our own files: without any, granian asks the kernel for the
    next client again and again, which takes a whole core. Those beyond wait in the kernel meanwhile.
    """
    is_unlimited = descriptors == resource.RLIM_INFINITY
    return _MAX_CONNECTIONS if is_unlimited else max(1, min(_MAX_CONNECTIONS, descriptors // 2))


_OWN_MESSAGES_TO_OURS: Final = {
    "handlers": {},
    "loggers": {"_granian": {"handlers": [], "propagate": True}, "granian.access": {"handlers": []}},
}
"""granian's messages go where the gateway's go; its own handler waits for the reader of standard output."""


class GatewayServer(MPServer):
    """granian, except that SIGHUP has the workers read the configuration again instead of replacing them."""

    def signal_handler_reload(self, *_: object) -> None:
        """Pass SIGHUP on."""
        for worker in self.wrks:
            with suppress(ProcessLookupError):
                os.kill(worker.inner.pid, signal.SIGHUP)

    def _spawn_worker(self, *arguments: Any, **options: Any) -> Any:
        worker = super()._spawn_worker(*arguments, **options)
        start = worker.inner.start

        def start_ignoring_reload() -> None:
            # Until the worker listens for SIGHUP the signal must not end it.
            ours = signal.signal(signal.SIGHUP, signal.SIG_IGN)
            try:
                start()
            finally:
                signal.signal(signal.SIGHUP, ours)

        worker.inner.start = start_ignoring_reload
        return worker


def make_server(drain_s: float, workers: int, address: str) -> GatewayServer:
    """Return the server for `address`; see bench/ for what its settings cost.

    Raises:
        OSError: the address's name cannot be resolved.

    """
    where: dict[str, Any]
    if address.startswith("unix:"):
        where = {"uds": Path(address.removeprefix("unix:"))}
    else:
        host, port = host_and_port(address)
        where = {"address": host, "port": port}
    return GatewayServer(
        "gateway_app.serving.application:for_granian",
        factory=True,
        **where,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=workers,
        backlog=BACKLOG,
        backpressure=max_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        http1_settings=HTTP1Settings(max_buffer_size=64 * 1024 + 4096 * 100),
        log_access=False,
        log_level=LogLevels.warning,
        log_dictconfig=_OWN_MESSAGES_TO_OURS,
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, math.ceil(drain_s)),
    )


def _prepare_worker() -> None:
    """Let SIGTERM end a worker that does not listen for it yet, and granian's end each worker.

    It inherits handlers that tell granian's main loop, which does not run in it: the signal would be lost,
    and a stop while the worker starts would last until it is killed for being late.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL)  # SIGTERM is lost between uvloop's handler for it and the loop's start


def _schedule_in_batches() -> None:
    """Ask the kernel not to interrupt one of our threads for another that has become ready (sched(7)).

    A worker's threads hand each other work. Under SCHED_OTHER each piece may interrupt who handed it over;
    under SCHED_BATCH they take several at a time, for 6 to 12 % less CPU a request. A policy that somebody
    has chosen stays.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # where a sandbox forbids it, it costs more CPU and nothing else
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM, then let the workers finish what runs, within the drain time."""
    configure_logging()
    _schedule_in_batches()
    os.register_at_fork(after_in_child=_prepare_worker)
    drain_s, workers, address = arguments
    make_server(float(drain_s), int(workers), address).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
