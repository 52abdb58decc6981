"""The relay's tables, which the gateway does not use, but checks with the file that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4relay.config.load import read_tables
from l4relay.config.values import Mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.source import Source


def check_relays(source: Source) -> Iterator[ConfigError]:
    """Yield what the relay finds wrong with its tables; nothing if the file has none."""
    if not source.tables.keys() & {"relay", "l4relay"}:
        return
    try:
        read_tables(source.tables)
    except Mistakes as mistakes:
        for path, message in mistakes.found:
            yield source.error(path, message)
