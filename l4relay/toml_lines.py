"""On which line of a TOML file each key stands, for error messages: `tomllib` does not tell.

Reads a document that `tomllib` has accepted already, so it only has to find its way, not to judge.
"""

import re
from typing import Final

KeyPath = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART: Final = re.compile(r"""[ \t]*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))[ \t]*""")
_STRING: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'{3}.*?\'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL
)
_SCALAR: Final = re.compile(r"[^\s,\]}#]+(?: \d\d:[^\s,\]}#]+)?")


def locate_keys(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of each key, table and array element of a valid TOML document."""
    return _Locator(text).lines


class _Locator:
    """Walks over the document once and notes where each path begins."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._noted_at, self._noted_line = 0, 1
        self._array_sizes: dict[KeyPath, int] = {}
        table: KeyPath = ()
        while self._skip_blank() < len(text):
            if text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _skip_blank(self) -> int:
        self._at = _end(_BLANK, self._text, self._at)
        return self._at

    def _note(self, path: KeyPath) -> None:
        self._noted_line += self._text.count("\n", self._noted_at, self._at)
        self._noted_at = self._at
        self.lines.setdefault(path, self._noted_line)

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        keys = self._dotted_key()
        for position, key in enumerate(keys):
            path = (*path, key)
            if is_array and position == len(keys) - 1:
                index = self._array_sizes.get(path, 0)
                self._array_sizes[path] = index + 1
                path = (*path, index)
            elif path in self._array_sizes:  # [array.table] belongs to the array's last element
                path = (*path, self._array_sizes[path] - 1)
        end = self._at + (2 if is_array else 1)
        self._at = start
        self._note(path)
        self._at = end
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = (*table, *self._dotted_key())
        end = self._at + 1  # the "="
        self._at = start
        self._note(path)
        self._at = end
        self._value(path)

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            match = _KEY_PART.match(self._text, self._at)
            assert match is not None, "the document was accepted by tomllib"
            keys.append(next(part for part in match.groups() if part is not None))
            self._at = match.end()
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._at = _end(_STRING if first in "\"'" else _SCALAR, self._text, self._at)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip_blank()] != "]":
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            if self._text[self._skip_blank()] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._text[self._skip_blank()] != "}":
            self._pair(path)
            if self._text[self._skip_blank()] == ",":
                self._at += 1
        self._at += 1


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, "the document was accepted by tomllib"
    return match.end()
