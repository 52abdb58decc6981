"""What is checked of routes beyond their types: conditions that compile, and that some request can reach."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from gateway_app.config.errors import listed
from gateway_app.config.model import MatchConfig
from gateway_app.config.tables import as_json, table_of, tables_in
from gateway_app.routing.match import Entry, Match, Problem, problems_of
from gateway_app.routing.path import PathKind, parse_path_pattern
from gateway_app.routing.table import RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.source import Source
    from gateway_app.routing.reachability import Unreachable

_ENCODED_SLASH: Final = re.compile("%2F|%5C")  # as patterns are normalised
_SLASHES_REFUSED: Final = (
    'no request can reach it: %2F and %5C are refused unless gateway.encoded_slashes is "keep"'
)


def match_of(config: MatchConfig) -> Match:
    """Return the conditions as routing takes them."""
    return Match(
        host=config.host,
        path=config.path,
        methods=config.methods,
        headers=config.headers,
        cookies=config.cookies,
        query=config.query,
        json=config.json_body,
    )


def captured_names(path: str | None) -> frozenset[str]:
    """Return the names that a route's path captures.

    Raises:
        ValueError: it is no path.

    """
    pattern = parse_path_pattern(path)
    return frozenset(pattern.names if pattern.regex is None else pattern.regex.groupindex)


def check_routes(source: Source) -> Iterator[ConfigError]:
    """Yield an error for each condition that does not compile, else for each route that nothing can reach.

    Routes whose types are wrong are left out; the model reports them.
    """
    entries: list[Entry[int]] = []
    are_sound = True
    keeps_slashes = table_of(source.tables.get("gateway")).get("encoded_slashes") == "keep"
    for place, raw in tables_in(source.tables.get("routes")):
        match = _match(raw)
        if match is None:
            continue
        problems = problems_of(match)
        if not problems and not keeps_slashes and _has_encoded_slash(match):
            problems = (Problem(("path",), _SLASHES_REFUSED),)
        are_sound = are_sound and not problems
        for problem in problems:
            yield source.error(("routes", place, "match", *problem.key), problem.message)
        if not problems:
            entries.append(Entry(str(raw.get("name")), match, place))
    if are_sound:
        for unreachable in RouteTable(entries).unreachable():
            earlier = listed([entry.name for entry in unreachable.taken_by])
            yield source.error(
                ("routes", unreachable.entry.value),
                f'no request can reach "{unreachable.entry.name}": {earlier} takes all of them'
                f"{_remedy(unreachable)}",
            )


def _remedy(unreachable: Unreachable[int]) -> str:
    """Return what to do where it is not the order of the file that puts a route behind the others."""
    path = parse_path_pattern(unreachable.entry.match.path)
    prefixes = [parse_path_pattern(entry.match.path) for entry in unreachable.taken_by]
    if path.kind is PathKind.PREFIX or any(prefix.kind is not PathKind.PREFIX for prefix in prefixes):
        return ""
    prefix = prefixes[0].text
    return f'; "{prefix}*" comes before templates and expressions, "{prefix}{{name}}/*" behind them'


def _has_encoded_slash(match: Match) -> bool:
    pattern = parse_path_pattern(match.path)
    return pattern.regex is None and _ENCODED_SLASH.search(str(pattern)) is not None


def _match(raw: dict[str, Any]) -> Match | None:
    try:
        config = MatchConfig.model_validate_json(as_json(raw.get("match", {})), by_alias=True, by_name=False)
    except ValidationError:
        return None
    return match_of(config)
