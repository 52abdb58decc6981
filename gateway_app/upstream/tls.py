"""TLS towards endpoints: verified against the system's or the backend's authorities, with SNI."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_app.config.backends import BackendConfig, BackendTlsConfig


def backend_context(config: BackendConfig) -> ssl.SSLContext | None:
    """Return the context for all connections of a backend, None if it has no https endpoint.

    One is enough, and a new one would read the authorities again.

    Raises:
        OSError: a file of the `tls` table cannot be used.

    """
    if any(entry.url.startswith("https:") for entry in config.endpoints):
        return client_context(config.tls)
    return None


def client_context(config: BackendTlsConfig | None) -> ssl.SSLContext:
    """Return the context for a backend's https endpoints.

    Without a configuration the system's authorities are trusted and the name is verified. `verify = false`
    turns both off.

    Raises:
        OSError: a file cannot be read, or is no certificate or key; ssl.SSLError is one of them.

    """
    context = ssl.create_default_context(cafile=config.ca if config else None)
    context.set_alpn_protocols(["http/1.1"])
    if config is None:
        return context
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert is not None:
        context.load_cert_chain(config.cert, config.key)
    return context
