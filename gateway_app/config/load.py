"""From the file to a `GatewayConfig`, or to everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.model import GatewayConfig
from gateway_app.config.references import check_references
from gateway_app.config.source import Source, parse_source, read_source
from gateway_app.config.translate import translated

if TYPE_CHECKING:
    from gateway_app.config.errors import ConfigError


def load(path: Path | str, *, base_dir: Path | None = None) -> GatewayConfig:
    """Read and validate the file at `path`.

    Relative paths in the file are relative to `base_dir`, by default the directory that the file is in.

    Raises:
        ConfigErrors: all that is wrong with it.

    """
    return _validated(read_source(Path(path), base_dir))


def load_text(text: str, *, file: str = "routes.toml", base_dir: Path = Path()) -> GatewayConfig:
    """Validate `text` as if it were the content of `file`.

    Raises:
        ConfigErrors: all that is wrong with it.

    """
    return _validated(parse_source(text, file, base_dir))


def _validated(source: Source) -> GatewayConfig:
    errors: list[ConfigError] = list(check_references(source))
    config: GatewayConfig | None = None
    try:
        # As JSON, since pydantic's strict mode then takes types as TOML means them: an array for a tuple or a
        # set, but no text for a number. A date, for which no key asks, arrives as a table and is refused.
        config = GatewayConfig.model_validate_json(
            json.dumps(source.tables, default=lambda date: {"date": str(date)}),
            context={"base_dir": source.base_dir},
            by_alias=True,
            by_name=False,
        )
    except ValidationError as error:
        errors.extend(translated(error, source, GatewayConfig))
    if errors or config is None:
        raise ConfigErrors(errors)
    config._source = source
    return config
