"""Durations and sizes as `routes.toml` writes them: with their unit.

`Duration`, `PositiveDuration` and `Size` are annotations for fields of the configuration's model and for the
options of middlewares. The file must say the unit; Python code may pass plain seconds and bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from l4relay.config.quantities import DURATION_EXPECTED, DURATION_PATTERN, NUMBER, parse_duration

SIZE_EXPECTED: Final = 'expected a size with its unit, such as "512B", "64KiB" or "10MB"'

_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
SIZE_PATTERN: Final = rf"^({NUMBER}) ?({'|'.join(_BYTES)})$"
_SIZE: Final = re.compile(SIZE_PATTERN.removesuffix("$"))


def parse_size(text: str) -> int:
    """Return the bytes that `text` names: kB, MB, GB count in thousands, KiB, MiB, GiB in 1024s.

    Raises:
        ValueError: `text` is no number followed by a unit, or names a part of a byte.

    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(SIZE_EXPECTED)
    whole, _, fraction = match[1].partition(".")
    scale: int = 10 ** len(fraction)
    size, remainder = divmod(int(whole + fraction) * _BYTES[match[2]], scale)
    if remainder:
        raise ValueError(f"{SIZE_EXPECTED}, in whole bytes")
    return size


def duration_text(seconds: float) -> str:
    """Return seconds as the file writes them."""
    return f"{seconds:g}s"


def size_text(size: int) -> str:
    """Return bytes as the file writes them, in the largest unit of which they are a whole number."""
    units = sorted(_BYTES.items(), key=lambda unit: -unit[1])
    return next(f"{size // factor}{unit}" for unit, factor in units if size % factor == 0)


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    if info.mode == "json":  # from the file, where a bare number would leave its unit to be guessed
        raise ValueError(DURATION_EXPECTED)
    return value


def _size(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return parse_size(value)
    if info.mode == "json":
        raise ValueError(SIZE_EXPECTED)
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["250ms", "5s", "2m"]}),
]
"""Seconds; in the file a text such as "250ms", "5s", "2m", "1h" or "7d"."""

PositiveDuration = Annotated[Duration, Field(gt=0)]
"""A `Duration` of more than nothing."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["64KiB", "10MB"]}),
]
"""Bytes; in the file a text such as "512B", "64KiB" or "10MB"."""
