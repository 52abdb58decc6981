"""Patterns over request fields: `"user-agent: *sqlmap*"`, `"x-internal-*: *"`, `"referer: ~^http://[0-9]"`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

Field = tuple[bytes, bytes]

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z?-]+")
_ACCEPTED: Final = '"name: value" with * for anything, or "name: ~regular expression"'


class FieldPattern:
    """A pattern for a field's name and one for its value.

    Both are compared as a whole and without regard to case; `*` stands for anything. A value that begins
    with `~` is a regular expression, found anywhere in the field's value, with regard to case.

    Args:
        option: for the error's message.
        text: the pattern.

    Raises:
        ValueError: it is none.

    """

    __slots__ = ("_name", "_value", "exact_name", "text")

    def __init__(self, option: str, text: str) -> None:
        name, separator, value = (part.strip() for part in text.partition(":"))
        if not separator or not _NAME.fullmatch(name) or not value:
            raise ValueError(f"{option}: {text!r} is no pattern; accepted are {_ACCEPTED}")
        self.text = text
        self.exact_name = None if "*" in name or "?" in name else name.lower().encode()
        self._name = re.compile(fnmatch.translate(name.lower()).encode())
        try:
            self._value = (
                re.compile(value[1:].encode())
                if value.startswith("~")
                else re.compile(fnmatch.translate(value).encode(), re.IGNORECASE)
            )
        except re.error as error:
            raise ValueError(f"{option}: {text!r} has no regular expression behind ~: {error}") from error

    def matches(self, fields: Sequence[Field]) -> bool:
        """Return whether any of `fields` has such a name and value."""
        exact_name, name_matches, value_found = self.exact_name, self._name.match, self._value.search
        if exact_name is not None:
            return any(name == exact_name and value_found(value) for name, value in fields)
        return any(name_matches(name) and value_found(value) for name, value in fields)
