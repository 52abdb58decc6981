"""Reading a parsed file whose types nobody has checked yet: what is of another kind counts as absent.

The checks that work on the raw file use this, so that they go on past what the model reports anyway.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def as_json(value: object) -> str:
    """Return a value of the file as JSON, for pydantic to read.

    Its strict mode then takes types as TOML means them: an array for a tuple or a set, but no text for a
    number. A date, for which no key asks, becomes a table, which is refused where a text is expected.
    """
    return json.dumps(value, default=lambda date: {"date": str(date)})


def table_of(value: object) -> dict[str, Any]:
    """Return `value` if it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def named_tables(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables in the table `value`, with their names."""
    yield from ((name, table) for name, table in table_of(value).items() if isinstance(table, dict))


def tables_in(value: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the tables in the array `value`, with their places."""
    elements = enumerate(value if isinstance(value, list) else ())
    yield from ((place, table) for place, table in elements if isinstance(table, dict))


def texts_in(value: object) -> Iterator[tuple[int, str]]:
    """Yield the texts in the array `value`, with their places."""
    elements = enumerate(value if isinstance(value, list) else ())
    yield from ((place, text) for place, text in elements if isinstance(text, str))
