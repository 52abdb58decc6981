"""The relay's tables, which the gateway does not use, but checks with the file that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_app.config.errors import ConfigError
from l4relay.config import load as relay_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.source import Source


def check_relays(source: Source) -> Iterator[ConfigError]:
    """Yield what the relay finds wrong with its tables; nothing if the file has none."""
    if not source.tables.keys() & {"relay", "l4relay"}:
        return
    try:
        relay_config.parse(source.text, source.file)
    except relay_config.ConfigError as error:
        for problem in error.problems:
            yield ConfigError(problem.file, problem.line, problem.key, problem.message)
