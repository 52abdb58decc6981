"""What `accept_proxy_protocol` needs beside itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.config.tables import table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.source import Source

READ_BY_HYPERCORN_ALONE: Final = 'PROXY headers are read by `gateway serve` with server = "hypercorn" alone'
_KEY: Final = ("gateway", "accept_proxy_protocol")


def check_proxy_protocol(source: Source) -> Iterator[ConfigError]:
    """Yield what keeps PROXY headers from being read."""
    settings = table_of(source.tables.get("gateway"))
    if settings.get("accept_proxy_protocol") is not True:
        return
    if not settings.get("trusted_proxies"):
        yield source.error(_KEY, 'needs trusted_proxies = ["10.0.0.0/8", …]: who may send a header')
    if settings.get("server") == "granian":
        yield source.error(_KEY, READ_BY_HYPERCORN_ALONE)
