"""Durations and rates as `routes.toml` writes them, for relay and gateway alike."""

import re
from dataclasses import dataclass
from typing import Final

NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN: Final = rf"^({NUMBER}) ?({'|'.join(_SECONDS)})$"
DURATION_EXPECTED: Final = 'expected a duration with its unit, such as "250ms", "5s", "2m" or "1h"'
_DURATION: Final = re.compile(DURATION_PATTERN)
_RATE: Final = re.compile(r"([0-9]{1,9}) ?/ ?(second|minute|hour|day)")
_PERIOD_S: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any stretch of `period_s` seconds, after a first burst of as many."""

    count: int
    period_s: float


def parse_duration(text: str) -> float:
    """Return the seconds that `text` names.

    Raises:
        ValueError: `text` is no number followed by us, ms, s, m, h or d; the message says what is accepted.

    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(DURATION_EXPECTED)
    return float(match[1]) * _SECONDS[match[2]]


def parse_rate(raw: object) -> Rate:
    """Return a rate; ``"50/second"``, ``"1000/hour"``.

    Raises:
        ValueError: it is none, or zero.

    """
    match = _RATE.fullmatch(str(raw))
    if match is None or int(match[1]) == 0:
        raise ValueError(f'expected a rate such as "50/second" or "1000/hour", not {raw!r}')
    return Rate(int(match[1]), _PERIOD_S[match[2]])
