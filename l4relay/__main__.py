"""The `l4relay` command."""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from l4relay.config import Config, load
from l4relay.table import ConfigError
from l4relay.worker import Worker


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
    options = parser.parse_args(arguments)
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
    return _run(options.file, config)


def _run(path: Path, config: Config) -> int:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(path, config))


async def _serve(path: Path, config: Config) -> int:
    worker = Worker(path, config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    loop.add_signal_handler(signal.SIGHUP, worker.request_reload)
    try:
        await worker.start()
    except OSError as error:
        logging.error("%s", error.strerror or error)
        await worker.close()
        return 1
    await worker.run()
    return 0


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
