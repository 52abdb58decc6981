"""Reading one TOML table key by key, and gathering what is wrong with it."""

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from l4relay.config.toml_lines import KeyPath, Lines, key_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Model = TypeVar("Model", bound="DataclassInstance")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend; `line` is 0 and `key` empty where the file as a whole is meant."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.key}" if self.line else self.file
        return f"{where}: {self.message}"


class ConfigError(ValueError):
    """A file that cannot be used, with every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Problems:
    """What is wrong with one document.

    Args:
        file: Its name, for messages.
        text: The document, already known to be TOML.

    """

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = Lines(text)
        self._found: list[Problem] = []

    def add(self, path: KeyPath, message: str) -> None:
        """Note a problem with the key at `path`, or with the nearest table around it that is in the file."""
        self._found.append(Problem(self._file, self._lines.of(path), key_text(path), message))

    def raise_all(self) -> None:
        """Raise what was noted, in the file's order.

        Raises:
            ConfigError: anything was noted.

        """
        if self._found:
            raise ConfigError(sorted(self._found, key=lambda problem: problem.line))


class Table:
    """One table; a value that cannot be used is noted, and its default stands in.

    A plain text in place of the table counts as its `address`, the one key that can be written alone.
    """

    def __init__(self, problems: Problems, path: KeyPath, raw: object) -> None:
        self._problems = problems
        self._path = path
        self._given = raw
        self._raw: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {"address": raw}

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def get(self, key: str) -> object:
        """Return a value as the file has it, None if it has none."""
        return self._raw.get(key)

    def set_default(self, key: str, raw: object) -> None:
        """Have the file say so where it says nothing."""
        self._raw.setdefault(key, raw)

    def problem(self, key: str, message: str) -> None:
        """Note a problem with one key."""
        self._problems.add((*self._path, key), message)

    def fill(self, model: type[Model], **converters: Callable[[object], Any]) -> Model | None:
        """Return a dataclass made from this table: its keys are those of `converters`.

        What is missing or wrong has the dataclass's default; None where there is no such default.
        """
        alone = "address" in converters
        if not isinstance(self._given, dict | str if alone else dict):
            expected = "an address or a table" if alone else "a table"
            self._problems.add(self._path, f"expected {expected}, not {self._given!r}")
            return None
        needed = {field.name for field in fields(model) if field.default is MISSING}
        values = {key: self.take(key, convert) for key, convert in converters.items() if key in self}
        for key in sorted(needed - self._raw.keys()):
            self.problem(key, "is missing")
        self._refuse_others(converters)
        usable = {key: value for key, value in values.items() if value is not None}
        return model(**usable) if needed <= usable.keys() else None

    def take(self, key: str, convert: Callable[[object], T]) -> T | None:
        """Return the value of a key that is there, None where it is wrong."""
        try:
            return convert(self._raw[key])
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def child(self, key: str) -> "Table":
        """Return the table in this one.

        Raises:
            ValueError: it is none.

        """
        if not isinstance(self._raw[key], dict):
            raise ValueError(f"expected a table, not {self._raw[key]!r}")
        return Table(self._problems, (*self._path, key), self._raw[key])

    def element(self, key: str, index: int, raw: object) -> "Table":
        """Return a table in a list of this one."""
        return Table(self._problems, (*self._path, key, index), raw)

    def _refuse_others(self, known: Collection[str]) -> None:
        """Note every key that is not among the known ones, with the nearest that is."""
        for key in self._raw:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(sorted(known))}"
                self.problem(key, f"is no known key; {hint}")
