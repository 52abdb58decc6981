"""What one table of the file says about another: names must be defined, and defined once.

Works on the parsed file, not on the model, so that a wrong value elsewhere does not hide a wrong name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_app.config.errors import listed, nearest
from gateway_app.config.tables import named_tables, table_of, tables_in, texts_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError, KeyPath
    from gateway_app.config.source import Source

_ACTIONS = ("backend", "redirect", "respond")


def check_references(source: Source) -> Iterator[ConfigError]:
    """Yield an error for each name that is not defined, is defined twice, or is missing."""
    settings = table_of(source.tables.get("gateway"))
    yield from _unknown_middlewares(source, ("gateway", "middleware"), settings.get("middleware"))
    if settings.get("server") == "granian" and len(list(texts_in(settings.get("listen")))) > 1:
        yield source.error(("gateway", "listen"), "granian listens on one address; hypercorn on several")
    yield from _check_routes(source)
    yield from _check_tests(source)
    yield from _check_backends(source)
    for kind in ("routes", "test"):
        yield from _duplicates(source, kind)


def _check_routes(source: Source) -> Iterator[ConfigError]:
    backends = table_of(source.tables.get("backends"))
    for place, route in tables_in(source.tables.get("routes")):
        at: KeyPath = ("routes", place)
        yield from _unknown_middlewares(source, (*at, "middleware"), route.get("middleware"))
        yield from _unknown(source, (*at, "backend"), route.get("backend"), backends, "backend")
        actions = [action for action in _ACTIONS if action in route]
        if len(actions) != 1:
            found = f"both {' and '.join(actions)}" if actions else "none of them"
            yield source.error(at, f"expected exactly one of {listed(_ACTIONS)}, found {found}")


def _check_tests(source: Source) -> Iterator[ConfigError]:
    routes = [route.get("name") for _, route in tables_in(source.tables.get("routes"))]
    backends = table_of(source.tables.get("backends"))
    for place, test in tables_in(source.tables.get("test")):
        at: KeyPath = ("test", place, "expect")
        expect = table_of(test.get("expect"))
        yield from _unknown(source, (*at, "route"), expect.get("route"), routes, "route")
        yield from _unknown(source, (*at, "backend"), expect.get("backend"), backends, "backend")
        yield from _unknown_middlewares(source, (*at, "middleware"), expect.get("middleware"))
        if test.get("expect") == {}:
            yield source.error(at, "expects nothing; give a route, backend, path or status")


def _check_backends(source: Source) -> Iterator[ConfigError]:
    for name, backend in named_tables(source.tables.get("backends")):
        tls = table_of(backend.get("tls"))
        for key, other in (("cert", "key"), ("key", "cert")):
            if key in tls and other not in tls:
                yield source.error(("backends", name, "tls", key), f'is of no use without "{other}"')


def _unknown_middlewares(source: Source, at: KeyPath, names: object) -> Iterator[ConfigError]:
    known = table_of(source.tables.get("middleware"))
    for place, name in texts_in(names):
        yield from _unknown(source, (*at, place), name, known, "middleware")


def _unknown(source: Source, at: KeyPath, name: object, known: Any, kind: str) -> Iterator[ConfigError]:
    if isinstance(name, str) and name not in known:
        names = [other for other in known if isinstance(other, str)]
        remedy = nearest(name, names) or f"; the file defines no {kind}"
        yield source.error(at, f'there is no {kind} "{name}"{remedy}')


def _duplicates(source: Source, kind: str) -> Iterator[ConfigError]:
    first_place: dict[str, int] = {}
    for place, table in tables_in(source.tables.get(kind)):
        name = table.get("name")
        if not isinstance(name, str):
            continue
        first = first_place.setdefault(name, place)
        if first != place:
            line = source.lines.of((kind, first, "name"))
            yield source.error((kind, place, "name"), f'"{name}" is taken already, in line {line}')
