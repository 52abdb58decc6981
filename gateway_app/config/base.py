"""What all tables of the file have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of the file. A key that it does not name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, use_attribute_docstrings=True
    )

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Keys of the agreed format that this version does not build yet: refused, never ignored."""
