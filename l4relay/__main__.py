"""The `l4relay` command."""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from l4relay.admission import LimitTable
from l4relay.config.load import load
from l4relay.config.model import Config
from l4relay.config.table import ConfigError
from l4relay.observe.status import Status, start_admin
from l4relay.supervisor import Supervisor, obey
from l4relay.worker import Stamp, Worker, stamp_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 for what cannot be done, or 2 for what is wrong with the file."""
    parser = argparse.ArgumentParser(
        prog="l4relay",
        description="Relay TCP and UDP as the [[relay]] tables of a file say.",
        epilog="SIGHUP reloads the file (so does changing it), SIGTERM drains, a second one ends at once.",
    )
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("routes.toml"), help="default: routes.toml"
    )
    parser.add_argument("--check", action="store_true", help="only say what is wrong with the file")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)  # a supervisor's child
    options = parser.parse_args(arguments)
    stamp = stamp_of(options.file)  # before it is read: a change from then on is one
    try:
        config = load(options.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, UnicodeDecodeError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.file}: {len(config.relays)} relays, nothing wrong")
        return 0
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s l4relay[%(process)d] %(levelname)s: %(message)s"
    )
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if options.worker is not None:
            return runner.run(_run_worker(options.file, config, stamp, LimitTable(*options.worker)))
        if config.process.workers > 1:
            return runner.run(_run_supervisor(options.file, config))
        return runner.run(_run_alone(options.file, config, stamp))


async def _run_alone(path: Path, config: Config, stamp: Stamp | None) -> int:
    """Run the one process there is."""
    worker = Worker(path, config, stamp=stamp)

    async def status() -> Status:
        return worker.status()

    _on_signals(worker.stop, worker.request_reload)
    await _serve_admin(config, status)
    return await _run(worker)


async def _run_supervisor(path: Path, config: Config) -> int:
    """Run the parent of several workers."""
    supervisor = Supervisor(path, config.process.workers)
    _on_signals(supervisor.stop, supervisor.request_reload)
    await _serve_admin(config, supervisor.status)
    return await supervisor.run()


async def _run_worker(path: Path, config: Config, stamp: Stamp | None, limits: LimitTable) -> int:
    """Run one of several, which obeys the supervisor alone: a signal to all would reach it twice."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker = Worker(path, config, limits=limits, stamp=stamp)
    obeying = asyncio.create_task(obey(worker))
    try:
        return await _run(worker)
    finally:
        obeying.cancel()


async def _run(worker: Worker) -> int:
    try:
        await worker.start()
    except OSError as error:
        logging.error("%s", error.strerror or error)
        return 1
    await worker.run()
    return 0


def _on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)


async def _serve_admin(config: Config, status: Callable[[], Awaitable[Status]]) -> None:
    """Serve the admin address for as long as the process runs, if there is to be one."""
    address = config.process.admin
    if address is None:
        return
    try:
        await start_admin(address, status)
    except OSError as error:
        logging.error("no admin address: cannot listen on %s: %s", address, error)
    else:
        logging.info("metrics and status are on %s", address)


def _raise_descriptor_limit() -> None:
    """Use all descriptors that may be had: a connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
