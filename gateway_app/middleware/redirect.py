"""`redirect`: sends the client to another URL."""

from __future__ import annotations

import re
from typing import Final, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware import template
from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.refusal import refuse
from gateway_app.middleware.url_template import compile_url
from gateway_app.problem import Cause

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})
_URL: Final = re.compile(r"https?://(?P<authority>(?:(?!\{path\})[^/?#])*)(?P<rest>.*)")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]|\{host\}|\[[0-9A-Fa-f:.]+\])+(?::[0-9]{1,5})?")


class Redirect:
    """Answers with a redirection; nothing is forwarded.

    The place to go to cannot be changed by a request: within the host's part of `to` only `{host}`, the
    requested host, may be filled in, and what a request fills in elsewhere is percent-encoded.

    Options:
        to: the URL, or the path on the same host. `{path}` and `{query}` are the request's; `{id}` is the
            captured segment of that name. A "?" before an empty `{query}` is left out.
        status: 301, 302, 303, 307 or 308; with 307 and 308 (RFC 9110 15.4.8, 15.4.9) method and body stay.
        scheme: "http" redirects requests by plain HTTP only, "https" those by TLS; others pass. Without it,
            every request is redirected.

    Example:
        ```toml
        [middleware.to-https]
        type = "redirect"
        scheme = "http"
        to = "https://{host}{path}?{query}"
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        to: str,
        status: Literal[301, 302, 303, 307, 308] = 308,
        scheme: Literal["http", "https"] | None = None,
    ) -> None:
        self._app = app
        self._name = context.name
        parts = template.parse("to", to, context, params_by_name=True)
        self._is_relative = _check_url(to)
        self._needs_host = template.PLACES["host"] in parts
        self._render = compile_url(parts)
        self._status = status
        self._scheme = scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what came by another scheme."""
        if scope["type"] not in _SCOPE_TYPES:
            await self._app(scope, receive, send)
            return
        exchange = scope["gateway"]
        if self._scheme is not None and exchange.scheme != self._scheme:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            detail = "clients do not follow redirections of a handshake"
            await refuse(scope, send, self._name, Cause.WEBSOCKET_UNSUPPORTED, detail)
            return
        if (
            self._needs_host and not exchange.host
        ):  # "https:///path" would make the path's first segment the host
            detail = "the request names no host to redirect to"
            await refuse(scope, send, self._name, Cause.MALFORMED, detail)
            return
        location = self._render(exchange, scope)
        if self._is_relative:  # "//name" and "/\name" are other hosts to a browser
            location = "/" + location.lstrip("/\\")
        headers = [(b"location", location.encode("ascii")), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _check_url(to: str) -> bool:
    """Return whether `to` is relative.

    Raises:
        ValueError: it is neither an http URL nor a path, or a request could decide which host it leads to.

    """
    if not to.isascii() or not to.isprintable() or " " in to:
        raise ValueError(f"to: {to!r} must be printable ASCII without spaces; encode the rest as in %20")
    url = _URL.fullmatch(to)
    if url is None:
        if to.startswith("{path}") or (to.startswith("/") and to[1:2] not in ("/", "\\")):
            return True
        raise ValueError(
            f'to: {to!r} is neither "http://…", "https://…" nor a path that begins with one slash'
        )
    if not _HOST.fullmatch(url["authority"]):
        raise ValueError(
            # A browser takes the "a" of "https:///a/b" for the host.
            f"to: {to!r} has the host {url['authority']!r}; it may be a name or address, with a port, and "
            "have only {host} to be filled in; put a slash or {path} behind it"
        )
    return False
