"""What is wrong with a text that is no TOML: where `tomllib` stopped, in words that help to mend it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway_app.config.errors import ConfigError

if TYPE_CHECKING:
    import tomllib

_POSITION: Final = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)$")

_REMEDIES: Final = {
    "Illegal character '\\n'": "a text begins in this line and does not end; close it with a quote",
    "Unescaped '\\' in a string": r"write \\ for each \, or the text in single quotes, where \ is itself",
    "Unterminated string": "a text begins and does not end; close it with its quotes",
    "Invalid value": "expected a value; a text stands in quotes, true and false do not",
    "Unclosed array": "expected a comma, or ] to close the list",
    "Unclosed inline table": "expected a comma, or } to close the table",
    "Invalid initial character for a key part": "expected a key; a table in { } stands in one line, "
    "and no comma before the }",
    "Cannot overwrite a value": "this key or table is there already",
}
"""What `tomllib` says, and what it means to someone who edits the file; the rest speaks for itself."""
_TWICE: Final = re.compile(r"Cannot declare \((.*?),?\) twice")


def syntax_error(text: str, file: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    """Return `error`, which `tomllib` raised for `text`, as an error of `file`."""
    message = str(error)
    position = _POSITION.search(message)
    line, column = text.count("\n") + 1, ""
    if position is not None:
        message = message[: position.start()]
        if position[1]:
            line, column = int(position[1]), f" in column {position[2]}"
        else:
            column = " at the end of the file"
    return ConfigError(file, line, "", f"is not TOML{column}: {_remedy(message)}")


def _remedy(message: str) -> str:
    twice = _TWICE.fullmatch(message)
    if twice is not None:
        name = ".".join(step.strip(" '\"") for step in twice[1].split(","))
        return f"[{name}] is there already"
    return _REMEDIES.get(message, message)
