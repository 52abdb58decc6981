"""`ip_filter`: lets in, or keeps out, clients by their network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.refusal import refuse
from gateway_app.problem import Cause
from l4relay.addresses import NetworkSet

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})


class IPFilter:
    """Answers 403 to clients from networks that may not come in.

    The client's address is the one found behind the trusted proxies. A client whose address is not known, as
    on a Unix socket without a proxy that names it, passes only where there is no `allow`.

    Options:
        allow: the networks that may come in; all, if it is left out.
        deny: networks that may not, even if `allow` has them.

    Example:
        ```toml
        [middleware.office-only]
        type = "ip_filter"
        allow = ["203.0.113.0/24", "2001:db8::/32"]
        deny = ["203.0.113.66"]
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
    ) -> None:
        if not allow and not deny:
            raise ValueError('allow or deny must name at least one network, such as "10.0.0.0/8"')
        self._app = app
        self._name = context.name
        self._allowed = _networks("allow", allow) if allow else None
        self._denied = _networks("deny", deny)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its client may come in."""
        if scope["type"] in _SCOPE_TYPES:
            client = scope["gateway"].client
            if client in self._denied or (self._allowed is not None and client not in self._allowed):
                detail = f"client {client or 'unknown'} may not come in"
                await refuse(scope, send, self._name, Cause.FORBIDDEN, detail)
                return
        await self._app(scope, receive, send)


def _networks(option: str, networks: Sequence[str]) -> NetworkSet:
    try:
        return NetworkSet(networks)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
