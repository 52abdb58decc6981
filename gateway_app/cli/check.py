"""`gateway check`: what can be found wrong with a file that loads, short of serving it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_app.expectations import failed_expectations
from gateway_app.middleware.registry import told
from gateway_app.upstream.in_process import load_application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.model import GatewayConfig
    from l4relay.config.toml_lines import KeyPath


async def problems_of(config: GatewayConfig) -> list[ConfigError]:
    """Return what the file's tests find, and each application that a backend could not import."""
    return [*_unimportable(config), *await failed_expectations(config)]


def _unimportable(config: GatewayConfig) -> Iterator[ConfigError]:
    for at, path in _import_paths(config):
        try:
            load_application(path)
        except (Exception, SystemExit) as error:  # an application may fail in any way while it is imported
            yield config.error(at, f'"{path}" cannot be imported: {told(error)}')


def _import_paths(config: GatewayConfig) -> Iterator[tuple[KeyPath, str]]:
    for name, backend in config.backends.items():
        if backend.transport is not None:
            yield ("backends", name, "transport"), backend.transport
        for place, endpoint in enumerate(backend.endpoints):
            scheme, _, path = endpoint.url.partition(":")
            if scheme in ("asgi", "wsgi"):
                yield ("backends", name, "endpoints", place), path


def summary(config: GatewayConfig) -> str:
    """Return what the file holds, in a line."""
    counts = (
        (len(config.routes), "route"),
        (len(config.backends), "backend"),
        (len(config.middleware), "middleware"),
        (len(config.relay), "relay"),
        (len(config.tests), "test"),
    )
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
