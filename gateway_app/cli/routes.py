"""`gateway routes`: the compiled table, in the order in which routes are tried."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway_app.config.routes import match_of
from gateway_app.routing.match import Entry
from gateway_app.routing.table import RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway_app.config.model import GatewayConfig, MatchConfig, RouteConfig


def route_list(config: GatewayConfig) -> Iterator[str]:
    """Yield the lines of a table of all routes, the first to be tried first."""
    table = RouteTable([Entry(route.name, match_of(route.match), route) for route in config.routes])
    rows = [("ROUTE", "MATCH", "MIDDLEWARE", "GOES TO")]
    for entry in table.in_precedence_order():
        route = entry.value
        middleware = ", ".join((*config.gateway.middleware, *route.middleware)) or "-"
        rows.append((route.name, conditions(route.match), middleware, destination(route)))
    yield from aligned(rows)


def conditions(match: MatchConfig) -> str:
    """Return the conditions of a route in one line."""
    parts = [" ".join(match.methods)] if match.methods else []
    parts.append(f"{match.host or ''}{match.path or '/*'}")
    for name, values in (("header", match.headers), ("cookie", match.cookies), ("query", match.query)):
        parts += [f"{name} {key}={value}" for key, value in values.items()]
    parts += [f"json {pointer}={json.dumps(value)}" for pointer, value in match.json_body.items()]
    return ", ".join(parts)


def destination(route: RouteConfig) -> str:
    """Return what a route's requests end in."""
    if route.answer is None:
        return f"backend {route.backend}"
    options = route.answer.options
    detail = options.get("to") if route.answer.type == "redirect" else options.get("status", 200)
    return f"{route.answer.type} {detail}"


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield `rows` as lines with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
