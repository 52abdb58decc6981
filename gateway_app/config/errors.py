"""What is wrong with a configuration file, said so that it can be mended: file, line, key, remedy."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4relay.config.toml_lines import KeyPath as KeyPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LONGEST_FOUND: Final = 60


@dataclass(frozen=True, slots=True, order=True)
class ConfigError:
    """One thing to mend.

    Attributes:
        file: the file's name as the user gave it.
        line: counted from 1.
        key: the path of the key, such as `backends.users.timeout.connect`; "" for the file as a whole.
        message: what is wrong, what was expected, and the nearest known name where there is one.

    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.message}"


class ConfigErrors(Exception):
    """Everything that is wrong with a file, in the order of its lines."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(sorted(set(errors)))
        super().__init__("\n".join(str(error) for error in self.errors))


def closest(name: object, known: Iterable[str]) -> str:
    """Return the known name that is meant by an unknown one, as a question; "" if none is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1) if isinstance(name, str) else []
    return f'; did you mean "{close[0]}"?' if close else ""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return a remedy for an unknown name: the nearest known one, else all of them; "" if there are none."""
    names = sorted(known)
    return closest(name, names) or (f"; known are {listed(names)}" if names else "")


def listed(names: Sequence[str]) -> str:
    """Return `names` as an enumeration in quotes."""
    return ", ".join(f'"{name}"' for name in names)


def shown(value: object) -> str:
    """Return a value of the file as an error names it: as written, shortened, with its kind."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_FOUND else f"{text[:_LONGEST_FOUND]}…"
