"""Where in a TOML text each key and array element is written.

`tomllib` keeps no positions, so an error could name a key but not its line. This reads a text that `tomllib`
has already accepted, and therefore only finds where things begin: it checks no grammar and converts no value.
Covers TOML 1.0: headers, arrays of tables, dotted and quoted keys, inline tables, arrays over several lines.
"""

import json
import re
import tomllib
from itertools import count
from typing import Final

KeyPath = tuple[str | int, ...]
"""Where a value is in the file: table names, keys and places in arrays, from the outside in."""

_BETWEEN: Final = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")  # statements, and elements: a comma says nothing new
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_HEADER: Final = re.compile(r"\[\[?[ \t]*")
_HEADER_END: Final = re.compile(r"[ \t]*\]\]?")
_ARRAY: Final = re.compile(r"\[")
_ARRAY_END: Final = re.compile(r"\]")
_INLINE_TABLE: Final = re.compile(r"\{")
_INLINE_TABLE_END: Final = re.compile(r"\}")
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
        else:
            text += "." + (step if _BARE_KEY.fullmatch(step) else json.dumps(step, ensure_ascii=False))
    return text.removeprefix(".")


class Lines:
    """The line of every key and array element of a text, which must be TOML that `tomllib` accepts."""

    def __init__(self, text: str = "") -> None:
        self._lines: dict[KeyPath, int] = {}
        self._array_lengths: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        table: KeyPath = ()
        self._skip(_BETWEEN)
        while self._at < len(text):
            if header := self._skip(_HEADER):
                table = self._header(is_array=header.startswith("[["))
            else:
                self._key_value(table)
            self._skip(_BETWEEN)

    def of(self, path: KeyPath) -> int:
        """Return the line where `path` is written, else of the innermost table around it, else 1."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def paths(self) -> set[KeyPath]:
        """Return every path that the text defines."""
        return set(self._lines)

    def _header(self, *, is_array: bool) -> KeyPath:
        """Read `a.b]` or `a.b]]` and return the path of the table that it opens."""
        *outer, name = self._key()
        self._skip(_HEADER_END)
        path: KeyPath = ()
        for step in outer:
            path = (*path, step)
            self._lines.setdefault(path, self._line)
            if path in self._array_lengths:  # a header below an array of tables means its last table
                path = (*path, self._array_lengths[path] - 1)
        path = (*path, name)
        if is_array:
            self._lines.setdefault(path, self._line)
            place = self._array_lengths.get(path, 0)
            self._array_lengths[path] = place + 1
            path = (*path, place)
        self._lines[path] = self._line  # over that of an earlier `[a.b]`, which defined `a` only in passing
        return path

    def _key_value(self, path: KeyPath) -> None:
        for step in self._key():
            path = (*path, step)
            self._lines.setdefault(path, self._line)
        self._skip(_EQUALS)
        self._value(path)

    def _key(self) -> list[str]:
        steps = [self._key_step()]
        while self._skip(_DOT):
            steps.append(self._key_step())
        return steps

    def _key_step(self) -> str:
        return self._skip(_BARE_KEY) or str(tomllib.loads(f"key = {self._skip(_STRING)}")["key"])

    def _value(self, path: KeyPath) -> None:
        if self._skip(_ARRAY):
            for place in count():
                self._skip(_BETWEEN)
                if self._skip(_ARRAY_END):
                    break
                self._lines[*path, place] = self._line
                self._value((*path, place))
        elif self._skip(_INLINE_TABLE):
            self._skip(_BETWEEN)
            while not self._skip(_INLINE_TABLE_END):
                self._key_value(path)
                self._skip(_BETWEEN)
        elif not self._skip(_STRING):
            self._skip(_OTHER_SCALAR)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Move behind what `pattern` matches here and return it, "" if it does not match."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        self._line += match[0].count("\n")
        return match[0]
