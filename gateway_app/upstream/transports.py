"""Which transport carries an endpoint's requests: decided once, when the endpoint is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gateway_app.upstream.http1_pool import Address, Http1Pool, PoolLimits
from gateway_app.upstream.httpx_transport import HttpxTransport
from gateway_app.upstream.in_process import InProcessTransport, load_application

if TYPE_CHECKING:
    import ssl

    from gateway_app.config.backends import BackendConfig
    from gateway_app.upstream.endpoint import Endpoint
    from gateway_app.upstream.transport import Transport


def make_transport(endpoint: Endpoint, config: BackendConfig, tls: ssl.SSLContext | None) -> Transport:
    """Return a new transport to `endpoint`. It opens nothing before its first request.

    `tls` is for "https:" endpoints, and belongs to the whole backend.

    Raises:
        ImportError, AttributeError: the application or the factory of transports does not exist.

    """
    if config.transport is not None:
        factory = cast("Any", load_application(config.transport))
        return HttpxTransport(factory(), endpoint.url, config.timeout)
    if endpoint.scheme == "asgi":
        app = cast("Any", load_application(endpoint.path))
        return InProcessTransport(app, idle_timeout_s=config.timeout.idle)
    if endpoint.scheme == "wsgi":
        return InProcessTransport.from_wsgi(
            load_application(endpoint.path), idle_timeout_s=config.timeout.idle
        )
    limits = PoolLimits(
        max_connections=config.max_connections,
        max_waiting=config.max_waiting,
        connect_timeout_s=config.timeout.connect,
        idle_timeout_s=config.timeout.idle,
        keep_alive_s=config.keep_alive,
    )
    return Http1Pool(_address_of(endpoint, config, tls), limits)


def _address_of(endpoint: Endpoint, config: BackendConfig, tls: ssl.SSLContext | None) -> Address:
    if endpoint.scheme == "http+unix":
        return Address(path=endpoint.path)
    if endpoint.scheme == "https":
        name = (config.tls.server_name if config.tls else None) or endpoint.server_name
        return Address(endpoint.host, endpoint.port, tls=tls, server_name=name)
    return Address(endpoint.host, endpoint.port)
