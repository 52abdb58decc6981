"""From a configuration to running processes: which programs, with which sockets and environment."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway_app.admin.listener import check_listener
from gateway_app.observe.run_directory import VARIABLE, create_run_directory
from gateway_app.serving.listeners import Listener, open_listeners
from gateway_app.serving.supervisor import Program, Supervisor
from l4relay.listener import raise_descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway_app.config.model import GatewayConfig

_KEEP_FREED_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}
"""For glibc (mallopt(3)), in bytes; other C libraries do not know them. By default the memory of each large
piece of a body goes back to the kernel, which clears it for the next: a quarter of a 1 MiB answer's CPU."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says over the file.

    Attributes:
        server: "hypercorn" or "granian".
        workers: processes that serve.
        with_relay: run the relay of the same file beside it.

    """

    server: str
    workers: int
    with_relay: bool


def serve(
    config: GatewayConfig, path: Path, options: ServeOptions, announce: Callable[[tuple[str, ...]], None]
) -> int:
    """Serve the configuration, which was read from `path`, until told to stop; return the exit status.

    `announce` is called with the addresses when they can be asked.

    Raises:
        OSError: an address cannot be had.

    """
    settings = config.gateway
    raise_descriptor_limit()
    with ExitStack() as stack:
        run_directory = create_run_directory()
        stack.callback(shutil.rmtree, run_directory, ignore_errors=True)
        if options.server == "granian":
            for listener in open_listeners(settings.listen[:1]):
                listener.close()  # granian opens its own; that it cannot is said here, without a traceback
            listeners: tuple[Listener, ...] = ()
            programs = [_granian(settings.listen[0], settings.drain, options.workers)]
        else:
            listeners = open_listeners(settings.listen)
            programs = _hypercorn(listeners, settings.drain, options.workers)
        if config.admin is not None:
            check_listener(config.admin.listen, run_directory)  # before each worker finds it out
        if options.with_relay:
            programs.append(Program("relay", (sys.executable, "-m", "l4relay", str(path)), stops_last=True))

        def close_listeners() -> None:
            for listener in listeners:
                listener.close()

        stack.callback(close_listeners)
        announce(tuple(listener.address for listener in listeners) or settings.listen)
        environment = {**_KEEP_FREED_MEMORY, **os.environ}
        environment |= {"GATEWAY_CONFIG": str(path), VARIABLE: str(run_directory)}
        supervisor = Supervisor(
            programs, environment=environment, drain_s=settings.drain, on_stop=close_listeners
        )
        return asyncio.run(supervisor.run())


def _hypercorn(listeners: tuple[Listener, ...], drain_s: float, workers: int) -> list[Program]:
    descriptors = tuple(listener.socket.fileno() for listener in listeners)
    module = "gateway_app.serving.hypercorn_worker"
    arguments = (sys.executable, "-m", module, str(drain_s), *map(str, descriptors))
    return [Program(f"worker {number}", arguments, descriptors) for number in range(1, workers + 1)]


def _granian(address: str, drain_s: float, workers: int) -> Program:
    module = "gateway_app.serving.granian_server"
    return Program("granian", (sys.executable, "-m", module, str(drain_s), str(workers), address))
