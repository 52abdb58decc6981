"""Durations and rates as `routes.toml` writes them."""

import re
from dataclasses import dataclass
from typing import Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"(\d+)\s*/\s*(second|minute|hour|day)", re.ASCII)
_PERIOD: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any stretch of `period_s` seconds, after a first burst of as many."""

    count: int
    period_s: float


def parse_duration(text: object) -> float:
    """Return seconds; ``"250ms"``, ``"5s"``, ``"2m"``, ``"1h"``, ``"1d"``.

    Raises:
        ValueError: it is none of these, or zero.

    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f'expected a duration with its unit, such as "250ms", "5s" or "2m", not {text!r}')
    return seconds


def parse_rate(text: object) -> Rate:
    """Return a rate; ``"50/second"``, ``"1000/hour"``.

    Raises:
        ValueError: it is none, or zero.

    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f'expected a rate such as "50/second" or "1000/hour", not {text!r}')
    return Rate(int(match[1]), _PERIOD[match[2]])
