"""One hypercorn worker: `python -m gateway_app.serving.hypercorn_worker DRAIN FD...`.

The listening sockets are inherited as file descriptors. hypercorn's own limits suit a single application
behind another proxy; here they are those of an edge: see `server_config`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError

from gateway_app.serving.application import for_hypercorn
from gateway_app.serving.hypercorn_connection import IdleConnections, use_for
from gateway_app.serving.listeners import BACKLOG
from gateway_app.serving.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEEP_ALIVE_S: Final = 60.0
"""How long a client's connection may be idle, and how long a request's head may take."""
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_WEBSOCKET_MESSAGE_BYTES: Final = 1024 * 1024
_UNLIMITED: Final = sys.maxsize


def server_config(descriptors: Sequence[int], drain_s: float) -> Config:
    """Return hypercorn's settings for listening sockets that are open already."""
    config = Config()
    config.bind = [f"fd://{descriptor}" for descriptor in descriptors]
    config.backlog = BACKLOG
    config.graceful_timeout = drain_s
    config.shutdown_timeout = drain_s
    config.keep_alive_timeout = _KEEP_ALIVE_S  # for HTTP/2's own; IdleConnections has the connections'
    config.keep_alive_max_requests = _UNLIMITED  # its 1,000 would make busy clients reconnect for nothing
    config.h11_max_incomplete_size = _MAX_HEAD_BYTES
    config.h2_max_header_list_size = _MAX_HEAD_BYTES
    config.websocket_max_message_size = _MAX_WEBSOCKET_MESSAGE_BYTES
    config.include_server_header = False  # the backend's goes to the client, or none
    config.include_date_header = False  # likewise; the gateway adds one where there is none
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None  # the gateway writes its own
    return config


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM, then finish what runs, within the drain time."""
    configure_logging()
    drain_s, *descriptors = arguments
    config = server_config([int(descriptor) for descriptor in descriptors], float(drain_s))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config))
    except LifespanFailureError:  # the gateway has said why it does not start
        sys.exit(1)


async def _serve(config: Config) -> None:
    gateway = for_hypercorn()
    application: Any = gateway  # hypercorn has types of its own for ASGI's messages
    idle = IdleConnections(_KEEP_ALIVE_S)
    use_for(config, idle, gateway.expects_proxy_header)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def stopped() -> None:
        await stop.wait()
        idle.close()

    await hypercorn.asyncio.serve(application, config, shutdown_trigger=stopped)


if __name__ == "__main__":
    main(sys.argv[1:])
