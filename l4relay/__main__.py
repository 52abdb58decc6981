"""The `l4relay` command."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from l4relay.admission import LimitTable
from l4relay.config.load import ConfigError, load
from l4relay.config.model import Config
from l4relay.listener import raise_descriptor_limit
from l4relay.observe.messages import MessageHandler
from l4relay.observe.status import start_admin
from l4relay.supervisor import Supervisor, run_worker
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
    _take_standard_descriptors()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s l4relay[%(process)d] %(levelname)s: %(message)s",
        handlers=[MessageHandler()],
    )
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if options.worker is not None:
            return runner.run(run_worker(options.file, config, stamp, LimitTable(*options.worker)))
        return runner.run(_run(options.file, config, stamp))


async def _run(path: Path, config: Config, stamp: Stamp | None) -> int:
    """Run the process that was started by hand, which hears signals and has the admin address."""
    workers = config.process.workers
    program = Supervisor(path, workers) if workers > 1 else Worker(path, config, stamp=stamp)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.stop)
    loop.add_signal_handler(signal.SIGHUP, program.request_reload)
    if (address := config.process.admin) is not None:
        try:
            await start_admin(address, program.collect)
            logging.info("metrics and status are on %s", address)
        except OSError as error:
            logging.error("no admin address: cannot listen on %s: %s", address, error)
    return await program.run()


def _take_standard_descriptors() -> None:
    """Put /dev/null where standard input, output or error are closed, before anything of ours comes there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # uvloop would abort when it closes what is there
        pass
    os.close(fd)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
