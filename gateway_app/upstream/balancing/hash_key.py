"""What `balance = "hash"` goes by: `hash_on` compiled into a function that reads it off a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Scope

    from gateway_app.exchange import Exchange

    HashKey = Callable[[Exchange, Scope], str]


def compile_hash_key(hash_on: str) -> HashKey:
    """Compile `client`, `path`, `header:NAME` or `cookie:NAME`.

    A request without the field or cookie goes by its client's address: the same client still stays together,
    and those without one do not all meet on one endpoint. Raises ValueError for any other word.
    """
    kind, _, name = hash_on.partition(":")
    if hash_on == "client":
        return _client
    if hash_on == "path":
        return _path
    if kind == "header" and name:
        return _header(name.lower().encode("latin-1"))
    if kind == "cookie" and name:
        return _cookie(name.encode("latin-1"))
    raise ValueError(f'hash_on {hash_on!r}: accepted are "client", "path", "header:NAME" and "cookie:NAME"')


def _client(exchange: Exchange, scope: Scope) -> str:
    return exchange.client


def _path(exchange: Exchange, scope: Scope) -> str:
    return exchange.path


def _header(wanted: bytes) -> HashKey:
    def header(exchange: Exchange, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == wanted:
                return str(value, "latin-1")
        return exchange.client

    return header


def _cookie(wanted: bytes) -> HashKey:
    def cookie(exchange: Exchange, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"cookie":
                for pair in value.split(b";"):
                    cookie_name, _, cookie_value = pair.strip().partition(b"=")
                    if cookie_name == wanted:
                        return str(cookie_value, "latin-1")
        return exchange.client

    return cookie
