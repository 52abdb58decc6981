"""Templates that become part of a URL: what a request filled in can change no more than its own place.

`{path}` and `{query}` go in as they came, normalised and percent-encoded. Every other value is
percent-encoded whole, so that it holds no separator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.types import Scope

from gateway_app.middleware.template import PLACES, Getter, Part

if TYPE_CHECKING:
    from gateway_app.exchange import Exchange

Render = Callable[["Exchange", Scope], str]

_URL_CHARACTERS: Final = "".join(map(chr, range(0x21, 0x7F)))


def compile_url(parts: Sequence[Part]) -> Render:
    """Return what fills in the template; a "?" or "&" before an empty `{query}` is left out with it."""
    pieces: list[str | Getter] = []
    for part in parts:
        if part is PLACES["query"] and pieces and isinstance(pieces[-1], str) and pieces[-1][-1] in "?&":
            literal = pieces.pop()
            assert isinstance(literal, str)
            pieces += [literal[:-1], _query_after(literal[-1])]
        else:
            pieces.append(part if isinstance(part, str) else _encoded(part))

    def render(exchange: Exchange, scope: Scope) -> str:
        return "".join([piece if isinstance(piece, str) else piece(exchange, scope) for piece in pieces])

    return render


def _encoded(get: Getter) -> Getter:
    if get is PLACES["path"]:
        return _path
    if get is PLACES["query"]:
        return lambda exchange, scope: _ascii(get(exchange, scope))
    if get is PLACES["host"]:
        return lambda exchange, scope: quote(get(exchange, scope), safe="[:]")
    return lambda exchange, scope: quote(get(exchange, scope), safe="", errors="surrogatepass")


def _path(exchange: Exchange, scope: Scope) -> str:
    path = _ascii(PLACES["path"](exchange, scope))
    return path if path.startswith("/") else "/"  # "*" would join what stands before it


def _query_after(separator: str) -> Getter:
    def query(exchange: Exchange, scope: Scope) -> str:
        text = PLACES["query"](exchange, scope)
        return separator + _ascii(text) if text else ""

    return query


def _ascii(text: str) -> str:
    """Return `text` with what cannot stand in a URL percent-encoded; the edge let none of it pass."""
    return text if text.isascii() and text.isprintable() and " " not in text else quote(text, _URL_CHARACTERS)
