"""From the file to a `GatewayConfig`, or to everything that is wrong with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.listeners import check_listeners
from gateway_app.config.model import GatewayConfig
from gateway_app.config.options import ANSWERS, check_options
from gateway_app.config.proxy_protocol import check_proxy_protocol
from gateway_app.config.references import check_references
from gateway_app.config.relays import check_relays
from gateway_app.config.routes import check_routes
from gateway_app.config.source import Source, parse_source, read_source
from gateway_app.config.tables import as_json
from gateway_app.config.translate import translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_app.config.errors import KeyPath


def load(path: Path | str, *, base_dir: Path | None = None) -> GatewayConfig:
    """Read and validate the file at `path`.

    Relative paths in the file are relative to `base_dir`, by default the directory that the file is in.
    Modules that the file names may lie in that directory too: it joins the import path.

    Raises:
        ConfigErrors: all that is wrong with it.

    """
    source = read_source(Path(path), base_dir)
    _make_importable(source.base_dir)
    return _validated(source)


def load_text(text: str, *, file: str = "routes.toml", base_dir: Path = Path()) -> GatewayConfig:
    """Validate `text` as if it were the content of `file`.

    Raises:
        ConfigErrors: all that is wrong with it.

    """
    return _validated(parse_source(text, file, base_dir))


def _make_importable(directory: Path) -> None:
    """Look for modules in `directory` too, after the working directory and before what is installed."""
    if str(directory) not in sys.path:
        working = ("", os.getcwd())
        after = next((place + 1 for place, entry in enumerate(sys.path) if entry in working), 0)
        sys.path.insert(after, str(directory))


def _validated(source: Source) -> GatewayConfig:
    options = check_options(source)
    errors = [
        *check_references(source),
        *check_listeners(source),
        *check_proxy_protocol(source),
        *check_routes(source),
        *check_relays(source),
        *options.errors,
    ]
    config: GatewayConfig | None = None
    try:
        config = GatewayConfig.model_validate_json(
            as_json(source.tables),
            context={"base_dir": source.base_dir},
            by_alias=True,
            by_name=False,
        )
    except ValidationError as error:
        errors.extend(translated(error, source, GatewayConfig))
    if errors or config is None:
        raise ConfigErrors(errors)
    config = _with_options(config, options.by_path)
    config._source = source
    return config


def _with_options(config: GatewayConfig, by_path: Mapping[KeyPath, Mapping[str, Any]]) -> GatewayConfig:
    """Return `config` with the options of middlewares in the types that their classes ask for."""
    middleware = {
        name: table.model_copy(update={"options": by_path["middleware", name]})
        for name, table in config.middleware.items()
    }
    routes = [
        route.model_copy(
            update={
                key: by_path["routes", place, key] for key in ANSWERS if ("routes", place, key) in by_path
            }
        )
        for place, route in enumerate(config.routes)
    ]
    return config.model_copy(update={"middleware": middleware, "routes": tuple(routes)})
