"""Where in a TOML text each key and array element is written.

`tomllib` keeps no positions, so an error could name a key but not its line. This reads a text that `tomllib`
has already accepted, and therefore only finds where things begin: it checks no grammar and converts no value.
Covers TOML 1.0: headers, arrays of tables, dotted and quoted keys, inline tables, arrays over several lines.
"""

import json
import re
import tomllib
from bisect import bisect_right
from typing import Final

KeyPath = tuple[str | int, ...]
"""Where a value is in the file: table names, keys and places in arrays, from the outside in."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
# The longer quotes first. A text in three quotes may end with one or two quotes of its own before the closing
# three, which leaves them after the first three that the lazy match finds.
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}' r"|'''.*?''''{0,2}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)
_OTHER_SCALAR: Final = re.compile(r"[^,\]}#\n]+")  # number, truth value, date: a space may be inside a date


def key_text(path: KeyPath) -> str:
    """Return `path` as a TOML reader would write it, places in arrays in brackets and counted from 0."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        bare = step.replace("-", "").replace("_", "")
        quoted = step if bare.isalnum() and bare.isascii() else json.dumps(step, ensure_ascii=False)
        text += f".{quoted}" if text else quoted
    return text


class Lines:
    """The line of every key and array element of one TOML text."""

    def __init__(self, lines: dict[KeyPath, int]) -> None:
        self._lines = lines

    def of(self, path: KeyPath) -> int:
        """Return the line where `path` is written, else of the innermost table around it, else 1."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return 1

    def paths(self) -> set[KeyPath]:
        """Return every path that the text defines."""
        return set(self._lines)


def locate(text: str) -> Lines:
    """Return the lines of `text`, which must be TOML that `tomllib` accepts."""
    return Lines(_Scanner(text).scan())


class _Scanner:
    """One pass over a text: `_at` moves forward, `_lines` fills."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._key_value(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> KeyPath:
        """Read `[a.b]` or `[[a.b]]` and return the path of the table that it opens."""
        line = self._line()
        is_array = self._text.startswith("[[", self._at)
        brackets = 2 if is_array else 1
        self._at += brackets
        self._skip(_BLANK)
        *outer, name = self._key()
        self._skip(_BLANK)
        self._at += brackets
        path: KeyPath = ()
        for step in outer:
            path = (*path, step)
            self._lines.setdefault(path, line)
            if path in self._array_lengths:  # a header below an array of tables means its last table
                path = (*path, self._array_lengths[path] - 1)
        path = (*path, name)
        if is_array:
            place = self._array_lengths.get(path, 0)
            self._array_lengths[path] = place + 1
            self._lines.setdefault(path, line)
            path = (*path, place)
        self._lines[path] = line  # over that of an earlier `[a.b]`, which defined `a` only in passing
        return path

    def _key_value(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for step in self._key():
            path = (*path, step)
            self._lines.setdefault(path, line)
        self._skip(_EQUALS)
        self._value(path)

    def _key(self) -> list[str]:
        steps = [self._key_step()]
        while self._skip(_DOT):
            steps.append(self._key_step())
        return steps

    def _key_step(self) -> str:
        bare = self._skip(_BARE_KEY)
        if bare:
            return bare
        return str(tomllib.loads(f"key = {self._skip(_STRING)}")["key"])

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        elif not self._skip(_STRING):
            self._skip(_OTHER_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        place = 0
        while not self._closes("]"):
            element = (*path, place)
            self._lines[element] = self._line()
            self._value(element)
            place += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._closes("}"):
            self._key_value(path)

    def _closes(self, bracket: str) -> bool:
        """Skip to the next element or past the closing `bracket`; return whether it was the latter."""
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Move behind what `pattern` matches here and return it, "" if it does not match."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at) + 1
