"""Whom a request is counted for: `client`, `route`, `header:NAME`, `cookie:NAME`, or several together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from socket import AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from gateway_app.middleware.field_rules import TOKEN, field_name

if TYPE_CHECKING:
    from gateway_app.exchange import Exchange

Key = Callable[["Exchange", Scope], str]

MAX_KEY_LENGTH: Final = 64
"""A longer one is replaced by its digest, so that a flood of long field values does not fill the memory."""

_ACCEPTED: Final = '"client", "route", "header:NAME" and "cookie:NAME"'


def compile_key(option: str, names: str | Sequence[str], route: str, ipv6_prefix: int) -> Key:
    """Return what gives a request's key.

    Args:
        option: for the error's message.
        names: one or several of the notations above.
        route: name of the route that it is for.
        ipv6_prefix: how many bits of an IPv6 client address count.

    Raises:
        ValueError: a name is none of these, or there is none.

    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"{option}: name at least one of {_ACCEPTED}")
    keys = [_single(option, name, route, ipv6_prefix) for name in names]
    if len(keys) == 1:
        return keys[0]
    # NUL is in no field value, so two keys never run together.
    return lambda exchange, scope: _bounded("\0".join([key(exchange, scope) for key in keys]))


def _single(option: str, name: str, route: str, ipv6_prefix: int) -> Key:
    kind, separator, argument = name.partition(":")
    if name == "client":
        return _client(ipv6_prefix)
    if name == "route":
        return lambda exchange, scope: route
    if kind == "header" and separator:
        return _header(field_name(option, argument))
    if kind == "cookie" and TOKEN.fullmatch(argument):
        return _cookie(argument.encode())
    if kind == "claim" and separator:
        raise ValueError(f"{option}: {name!r} is not supported yet; accepted are {_ACCEPTED}")
    raise ValueError(f"{option}: {name!r} is no key; accepted are {_ACCEPTED}")


def _client(ipv6_prefix: int) -> Key:
    whole, bits = divmod(ipv6_prefix, 8)
    mask = (0xFF00 >> bits) & 0xFF

    def client(exchange: Exchange, scope: Scope) -> str:
        address = exchange.client
        if ":" not in address:
            return address
        packed = inet_pton(AF_INET6, address)
        return (packed[:whole] + bytes((packed[whole] & mask,)) if mask else packed[:whole]).hex()

    return client


def _header(name: bytes) -> Key:
    def header(exchange: Exchange, scope: Scope) -> str:
        values = [value for key, value in scope["headers"] if key == name]
        return _bounded(b",".join(values).decode("latin-1"))

    return header


def _cookie(name: bytes) -> Key:
    start = name + b"="

    def cookie(exchange: Exchange, scope: Scope) -> str:
        for key, value in scope["headers"]:
            if key == b"cookie":
                for pair in value.split(b";"):
                    pair = pair.strip()
                    if pair.startswith(start):
                        return _bounded(pair[len(start) :].decode("latin-1"))
        return ""

    return cookie


def _bounded(key: str) -> str:
    return key if len(key) <= MAX_KEY_LENGTH else blake2b(key.encode(), digest_size=32).hexdigest()
