"""Text with places, such as `"{client} via {host}"`, compiled once and rendered per request.

The places are `{client}`, `{request_id}`, `{scheme}`, `{host}`, `{method}`, `{path}`, `{query}`, `{route}`
and `{param:NAME}`, a captured path segment; `{{` and `}}` stand for the braces themselves. What the values
may contain, and how they are made safe for the place they go to, is decided by who renders.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

if TYPE_CHECKING:
    from gateway_app.exchange import Exchange
    from gateway_app.middleware.context import MiddlewareContext

Getter = Callable[["Exchange", Scope], str]
Part = str | Getter

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _attribute(name: str) -> Getter:
    get = attrgetter(name)
    return lambda exchange, scope: get(exchange)


def _path(exchange: Exchange, scope: Scope) -> str:
    path: bytes = scope["raw_path"]
    return path.decode("latin-1")


def _query(exchange: Exchange, scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return query.decode("latin-1")


def _method(exchange: Exchange, scope: Scope) -> str:
    method: str = scope["method"]
    return method


PLACES: Final[dict[str, Getter]] = {
    "client": _attribute("client"),
    "host": _attribute("host"),
    "method": _method,
    "path": _path,
    "query": _query,
    "request_id": _attribute("request_id"),
    "scheme": _attribute("scheme"),
}
"""What a template may name besides `{route}` and `{param:NAME}`. Path and query are percent-encoded."""


def param(option: str, name: str, context: MiddlewareContext) -> Getter:
    """Return what reads the captured segment `name`, percent-decoded; "" if the request has none.

    Raises:
        ValueError: the context's route captures no such segment.

    """
    if context.params is not None and name not in context.params:
        captured = ", ".join(sorted(context.params)) or "nothing"
        raise ValueError(f"{option}: the path of route {context.route!r} captures {captured}, not {name!r}")
    return lambda exchange, scope: exchange.params.get(name, "")


def parse(option: str, text: str, context: MiddlewareContext, *, params_by_name: bool = False) -> list[Part]:
    """Return the template's parts in order: literals, and getters for its places.

    With `params_by_name` a captured segment is also written `{NAME}`, if no place has that name.

    Raises:
        ValueError: a place is not known, or a brace stands alone; the message begins with `option`.

    """
    parts: list[Part] = []
    literal = ""
    position = 0
    for match in _PIECE.finditer(text):
        literal += text[position : match.start()]
        position = match.end()
        piece = match[0]
        if piece in ("{{", "}}"):
            literal += piece[0]
        elif piece in ("{", "}"):
            raise ValueError(
                f"{option}: {text!r} has a single {piece!r}; the character is written {piece * 2!r}"
            )
        elif match[1] == "route":
            literal += context.route
        else:
            parts += [literal, _place(option, text, match[1], context, params_by_name)]
            literal = ""
    parts.append(literal + text[position:])
    return [part for part in parts if part != ""]


def _place(option: str, text: str, name: str, context: MiddlewareContext, params_by_name: bool) -> Getter:
    kind, separator, argument = name.partition(":")
    if separator and kind == "param":
        return param(option, argument, context)
    if params_by_name and name not in PLACES and name.isidentifier():
        return param(option, name, context)
    getter = PLACES.get(name)
    if getter is None:
        nearest = difflib.get_close_matches(name, PLACES, n=1)
        hint = f"; did you mean {{{nearest[0]}}}?" if nearest else ""
        accepted = ", ".join(f"{{{known}}}" for known in (*PLACES, "route", "param:NAME"))
        raise ValueError(f"{option}: {{{name}}} in {text!r} is unknown{hint}; accepted are {accepted}")
    return getter
