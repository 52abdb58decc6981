"""The compiled route table: from a request to the first rule, in precedence order, that holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from gateway_app.routing.conditions import Request
from gateway_app.routing.explain import Explanation, explain
from gateway_app.routing.index import PathIndex
from gateway_app.routing.json_body import UNREAD
from gateway_app.routing.match import Entry, Matched, MatchError, Pending, Rule
from gateway_app.routing.reachability import Unreachable, find_unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Scope

T = TypeVar("T")


class RouteTable(Generic[T]):
    """All rules, compiled; immutable.

    Args:
        entries: the rules in the order of the file, which decides between equals.

    Raises:
        MatchError: an entry's match is wrong; `problems_of` finds all that is, for all entries.

    """

    __slots__ = ("_any_host", "_by_host", "_by_suffix", "_header_names", "_longest_suffix", "_rules")

    def __init__(self, entries: Sequence[Entry[T]]) -> None:
        self._rules = sorted(
            (_compile(entry, at) for at, entry in enumerate(entries)), key=lambda rule: rule.rank
        )
        by_pattern: dict[tuple[bool, str], list[Rule[T]]] = {}
        for order, rule in enumerate(self._rules):
            rule.order = order
            by_pattern.setdefault((rule.host.is_wildcard, rule.host.host), []).append(rule)
        indexes = {pattern: PathIndex(rules) for pattern, rules in by_pattern.items()}
        any_host = indexes.get((False, ""))
        self._any_host: tuple[PathIndex[T], ...] = (any_host,) if any_host else ()
        # Every host and suffix knows all that hold for it, from the nearest, so that a request looks up one.
        self._by_suffix: dict[str, tuple[PathIndex[T], ...]] = {}
        self._longest_suffix = max((len(host) for is_wildcard, host in indexes if is_wildcard), default=0)
        for (is_wildcard, host), index in sorted(indexes.items(), key=lambda item: len(item[0][1])):
            if is_wildcard:
                self._by_suffix[host] = (index, *self._indexes_above(host[1:]))
        self._by_host: dict[str, tuple[PathIndex[T], ...]] = {
            host: (index, *self._indexes_above(host))
            for (is_wildcard, host), index in indexes.items()
            if host and not is_wildcard
        }
        self._header_names = frozenset(
            condition.name.encode()
            for rule in self._rules
            for condition in rule.conditions
            if condition.source == "header"
        )

    def match(
        self, method: str, host: str, path: str, scope: Scope, body: object = UNREAD
    ) -> Matched[T] | Pending | None:
        """Return the first rule in precedence order that holds, None if none does.

        Args:
            method: as the client sent it; "GET" for a WebSocket.
            host: from `host.HostReader`.
            path: `Target.path`, or ``*``.
            scope: the ASGI scope; its ``headers`` and ``query_string`` are read if a condition asks for them.
            body: the parsed JSON body, `UNREAD`, or `UNPARSABLE`. While it is `UNREAD` the answer may be
                `NEEDS_BODY`: a rule with a JSON condition comes next.

        """
        for index in self._by_host.get(host) or self._indexes_above(host):
            for rules in index.find(path):
                answer = self.first(rules, method, path, scope, body)
                if answer is not None:
                    return answer
        return None

    def first(
        self, rules: tuple[Rule[T], ...], method: str, path: str, scope: Scope, body: object = UNREAD
    ) -> Matched[T] | Pending | None:
        """Return what `match` does, given the rules whose host and path hold."""
        request: Request | None = None
        for rule in rules:
            if rule.is_unconditional:
                return rule.matched
            if request is None:
                request = Request(method, path, scope, body, self._header_names)
            answer = rule.ask(request)
            if answer is not None:
                return answer
        return None

    def candidates(self, host: str, path: str, limit: int) -> tuple[Rule[T], ...] | None:
        """Return the rules that may hold here, up to the first that must; None if more than `limit`."""
        found: list[Rule[T]] = []
        for index in self._by_host.get(host) or self._indexes_above(host):
            for rules in index.find(path):
                for rule in rules:
                    if len(found) == limit:
                        return None
                    found.append(rule)
                    if rule.is_unconditional:
                        return tuple(found)
        return tuple(found)

    def explain(
        self, method: str, host: str, path: str, scope: Scope, body: object = UNREAD
    ) -> Explanation[T]:
        """Return which rule wins and why each nearer one lost; the arguments are those of `match`."""
        return explain(self._rules, Request(method, path, scope, body, self._header_names), host)

    def unreachable(self) -> tuple[Unreachable[T], ...]:
        """Return the rules that no request reaches, each with those that take everything before it."""
        return find_unreachable(self._rules)

    def in_precedence_order(self) -> tuple[Entry[T], ...]:
        """Return all entries, the first to be tried first."""
        return tuple(rule.entry for rule in self._rules)

    def _indexes_above(self, host: str) -> tuple[PathIndex[T], ...]:
        """Return the rules for any name below a suffix of `host`, the longest first, then those for any."""
        if self._by_suffix:
            dot = host.find(".", max(1, len(host) - self._longest_suffix))
            while dot != -1:
                indexes = self._by_suffix.get(host[dot:])
                if indexes is not None:
                    return indexes
                dot = host.find(".", dot + 1)
        return self._any_host


def _compile(entry: Entry[T], position: int) -> Rule[T]:
    try:
        return Rule(entry, position)
    except MatchError as error:
        error.add_note(f"in the match of route {entry.name!r}")
        raise
