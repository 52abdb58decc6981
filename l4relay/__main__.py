"""The `l4relay` command."""

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from l4relay.admission import LimitTable
from l4relay.config.load import load
from l4relay.config.model import Config
from l4relay.config.table import ConfigError
from l4relay.observe.status import Status, merge, start_admin
from l4relay.supervisor import RELOAD, Supervisor, WorkerPlace
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
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # a supervisor's child
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
            return runner.run(_run_worker(options.file, config, stamp, WorkerPlace.parse(options.worker)))
        if config.process.workers > 1:
            return runner.run(_run_supervisor(options.file, config))
        return runner.run(_run_alone(options.file, config, stamp))


async def _run_alone(path: Path, config: Config, stamp: Stamp | None) -> int:
    """Run the one process there is, admin address and all."""
    worker = Worker(path, config, stamp=stamp)

    async def collect() -> Status:
        return worker.status()

    async with _admin(config, collect):
        return await _run(worker)


async def _run_supervisor(path: Path, config: Config) -> int:
    supervisor = Supervisor(path, config.process.workers)

    async def collect() -> Status:
        return merge(await supervisor.status())

    _on_signals(supervisor.stop, supervisor.reload)
    async with _admin(config, collect):
        return await supervisor.run()


async def _run_worker(path: Path, config: Config, stamp: Stamp | None, place: WorkerPlace) -> int:
    """Run one of several, answering the supervisor."""
    limits = LimitTable(place.table_fd, place.workers, place.index)
    worker = Worker(path, config, limits=limits, stamp=stamp)
    channel = socket.socket(fileno=place.channel_fd)
    reader, writer = await asyncio.open_connection(sock=channel)

    async def answer() -> None:
        while line := await reader.readline():
            if line == RELOAD:
                worker.request_reload()
                continue
            writer.write(json.dumps(worker.status()).encode() + b"\n")
            await writer.drain()
        worker.stop()  # the supervisor has died

    answering = asyncio.create_task(answer())
    try:
        return await _run(worker)
    finally:
        answering.cancel()
        writer.close()


async def _run(worker: Worker) -> int:
    _on_signals(worker.stop, worker.request_reload)
    try:
        await worker.start()
    except OSError as error:
        logging.error("%s", error.strerror or error)
        await worker.close()
        return 1
    await worker.run()
    return 0


def _on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)


@contextlib.asynccontextmanager
async def _admin(config: Config, collect: Callable[[], Awaitable[Status]]) -> AsyncIterator[None]:
    """Serve the admin address while the relay runs, if there is to be one."""
    if config.process.admin is None:
        yield
        return
    try:
        server = await start_admin(config.process.admin, collect)
    except OSError as error:
        logging.error("no admin address: cannot listen on %s: %s", config.process.admin, error)
        yield
        return
    logging.info("metrics and status are on %s", config.process.admin)
    try:
        yield
    finally:
        server.close()


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
