"""What the processes of a gateway write about themselves on standard error, beside the access log."""

from __future__ import annotations

import logging

from l4relay.observe.messages import MessageHandler


def configure_logging() -> None:
    """Write messages from INFO on to standard error, with time and process; nothing waits for its reader."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s",
        handlers=[MessageHandler()],
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells each of our health checks
