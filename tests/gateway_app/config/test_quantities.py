from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway_app.config.quantities import Duration, PositiveDuration, Size, parse_size
from l4relay.config.quantities import parse_duration


class Table(BaseModel):
    duration: Duration = 0.0
    positive: PositiveDuration = 1.0
    size: Size = 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("2m", 120),
        ("1h", 3600),
        ("7d", 604800),
        ("1.5s", 1.5),
        ("0s", 0),
        ("1 s", 1),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KiB", 65536), ("10MB", 10_000_000), ("1kB", 1000), ("1.5KiB", 1536), ("2GiB", 2**31)],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "s", "5 seconds", "-5s", "5S", "1e3s", "٣s", "5s\n", "nan", "1.s"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "5M", "-1B", "5mb", "0.5B", "1.0001kB", "5MB ", "五MB"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


@given(st.integers(0, 10**12), st.sampled_from(["B", "KiB", "MiB", "kB", "MB"]))
def test_sizes_are_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * parse_size(f"1{unit}")


def test_the_file_must_say_the_unit_and_code_need_not() -> None:
    assert Table(duration=5, size=10) == Table.model_validate_json('{"duration": "5s", "size": "10B"}')
    for key in ("duration", "positive", "size"):
        with pytest.raises(ValidationError, match="with its unit"):
            Table.model_validate_json(f'{{"{key}": 5}}')


def test_a_positive_duration_is_more_than_nothing() -> None:
    with pytest.raises(ValidationError):
        Table.model_validate_json('{"positive": "0s"}')
