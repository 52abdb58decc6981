"""What the processes of a gateway write about themselves on standard error, beside the access log."""

from __future__ import annotations

import logging
import re
from typing import Final

from gateway_app.problem import GatewayError
from gateway_app.upstream.transport import UpstreamError
from l4relay.observe.messages import MessageHandler

_ENDS_IN_OURS: Final = re.compile(rf"^(?:{GatewayError.__name__}|{UpstreamError.__name__}): ", re.MULTILINE)


def configure_logging() -> None:
    """Write messages from INFO on to standard error, with time and process; nothing waits for its reader."""
    handler = MessageHandler()
    handler.addFilter(_is_news)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s",
        handlers=[handler],
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells each of our health checks


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the traceback that a server logs for each answer that we cut off: the access log has said why."""
    if record.exc_info:
        return not isinstance(record.exc_info[1], GatewayError)
    # granian writes the traceback into the message.
    return record.name.partition(".")[0] != "_granian" or _ENDS_IN_OURS.search(record.getMessage()) is None
