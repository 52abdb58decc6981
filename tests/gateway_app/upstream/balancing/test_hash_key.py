from __future__ import annotations

import pytest
from starlette.types import Scope

from gateway_app.exchange import Exchange
from gateway_app.upstream.balancing.hash_key import compile_hash_key

HEADERS = [
    (b"host", b"example.com"),
    (b"x-user", b"ann"),
    (b"cookie", b"theme=dark; session=abc=1"),
    (b"cookie", b"plan=pro"),
]


@pytest.mark.parametrize(
    ("hash_on", "key"),
    [
        ("client", "192.0.2.7"),
        ("path", "/users/7"),
        ("header:X-User", "ann"),
        ("header:x-absent", "192.0.2.7"),
        ("cookie:session", "abc=1"),
        ("cookie:plan", "pro"),
        ("cookie:sess", "192.0.2.7"),
    ],
)
def test_key(hash_on: str, key: str, exchange: Exchange) -> None:
    exchange.path = "/users/7"
    scope: Scope = {"headers": HEADERS}

    assert compile_hash_key(hash_on)(exchange, scope) == key


@pytest.mark.parametrize("hash_on", ["", "header:", "cookie", "clients", "query:x"])
def test_unknown_words_are_refused(hash_on: str) -> None:
    with pytest.raises(ValueError, match="accepted are"):
        compile_hash_key(hash_on)
