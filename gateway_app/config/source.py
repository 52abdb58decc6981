"""The text of a configuration file: parsed, and able to say where in it something is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway_app.config.errors import ConfigError, ConfigErrors
from gateway_app.config.syntax import syntax_error
from l4relay.config.toml_lines import KeyPath, Lines, key_text


@dataclass(frozen=True, slots=True)
class Source:
    """A TOML file.

    Attributes:
        file: its name, as the user gave it.
        text: its content.
        tables: what it says, as `tomllib` gives it.
        lines: where it says it.
        base_dir: what paths in it are relative to.

    """

    file: str = "routes.toml"
    text: str = field(default="", repr=False)
    tables: dict[str, Any] = field(default_factory=dict)
    lines: Lines = field(default_factory=Lines)
    base_dir: Path = Path()

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Return the error `message` about the value at `path`."""
        return ConfigError(self.file, self.lines.of(path), key_text(path), message)


def read_source(path: Path, base_dir: Path | None = None) -> Source:
    """Read and parse the file at `path`; `base_dir` defaults to the directory it is in.

    Raises:
        ConfigErrors: it cannot be read, is not UTF-8, is not TOML, or is empty.

    """
    file = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        missing = "there is no such file; --config or GATEWAY_CONFIG names another"
        raise ConfigErrors([ConfigError(file, 1, "", missing)]) from error
    except OSError as error:
        raise ConfigErrors([ConfigError(file, 1, "", f"cannot be read: {error.strerror}")]) from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigError(file, line, "", "is not UTF-8, as TOML must be")]) from error
    source = parse_source(text, file, base_dir or path.absolute().parent)
    if not source.tables:  # as long as an editor has emptied it and not yet written it, too
        raise ConfigErrors([ConfigError(file, 1, "", "is empty: a gateway without routes answers nothing")])
    return source


def parse_source(text: str, file: str = "routes.toml", base_dir: Path = Path()) -> Source:
    """Parse `text`; `file` names it in errors.

    Raises:
        ConfigErrors: it is not TOML.

    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([syntax_error(text, file, error)]) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of more than 4,300 digits
        raise ConfigErrors([ConfigError(file, 1, "", f"is not read: {error}")]) from error
    return Source(file, text, tables, Lines(text), base_dir)
