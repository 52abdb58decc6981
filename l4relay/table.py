"""Reading one TOML table key by key, and gathering what is wrong with it."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from l4relay.toml_lines import KeyPath, locate_keys


class ConfigError(ValueError):
    """A file that cannot be used; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Problems:
    """What is wrong with one document.

    Args:
        file: Its name, for messages.
        text: The document, already known to be TOML.

    """

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = locate_keys(text)
        self._found: list[tuple[int, str]] = []

    def add(self, path: KeyPath, message: str) -> None:
        """Note a problem with the key at `path`, or with the nearest table around it that is in the file."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        line = self._lines.get(known, 1)
        self._found.append((line, f"{self._file}:{line}: {_dotted(path)}: {message}"))

    def raise_all(self) -> None:
        """Raise what was noted, in the file's order.

        Raises:
            ConfigError: anything was noted.

        """
        if self._found:
            raise ConfigError([message for _, message in sorted(self._found)])


class Table:
    """One table; a value that cannot be used is noted, and its default stands in.

    A plain value in place of the table counts as its `address`, the one key that can be written alone.
    """

    def __init__(self, problems: Problems, path: KeyPath, raw: object) -> None:
        self._problems = problems
        self._path = path
        self._raw: dict[str, Any] = raw if isinstance(raw, dict) else {"address": raw}
        if not isinstance(raw, dict) and not isinstance(raw, str):
            problems.add(path, f"expected a table, not {raw!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def has(self, key: str) -> bool:
        """Say whether the file has this key."""
        return key in self._raw

    def problem(self, key: str, message: str) -> None:
        """Note a problem with one key."""
        self._problems.add((*self._path, key), message)

    def take(self, key: str, convert: Callable[[object], Any], default: Any) -> Any:
        """Return the converted value, or the default where it is missing or wrong."""
        if key not in self._raw:
            return default
        try:
            return convert(self._raw[key])
        except ValueError as error:
            self.problem(key, str(error))
            return default

    def require(self, key: str, convert: Callable[[object], Any], stand_in: Any) -> Any:
        """Return the converted value; it is a problem when there is none."""
        if key not in self._raw:
            self.problem(key, "is missing")
        return self.take(key, convert, stand_in)

    def child(self, key: str) -> "Table | None":
        """Return a table in this one, None where the file has none."""
        if key not in self._raw:
            return None
        if not isinstance(self._raw[key], dict):
            self.problem(key, f"expected a table, not {self._raw[key]!r}")
            return None
        return Table(self._problems, (*self._path, key), self._raw[key])

    def element(self, key: str, index: int, raw: object) -> "Table":
        """Return a table in a list of this one."""
        return Table(self._problems, (*self._path, key, index), raw)

    def refuse_others(self, known: Iterable[str]) -> None:
        """Note every key that is not among the known ones, with the nearest that is."""
        known = list(known)
        for key in self._raw:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(sorted(known))}"
                self.problem(key, f"is no known key; {hint}")


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text
