"""Rules that no request reaches, because earlier ones take everything they could have.

Only what is certain is reported: an earlier rule for the same hosts whose path takes in the later one's and
whose every condition the later one's conditions imply; or several such rules that share the methods out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway_app.routing.json_body import same_scalar
from gateway_app.routing.match import Entry
from gateway_app.routing.path import PathKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway_app.routing.conditions import Condition
    from gateway_app.routing.match import Rule

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unreachable(Generic[T]):
    """An entry that no request reaches, and the earlier entries that together take all of its requests."""

    entry: Entry[T]
    taken_by: tuple[Entry[T], ...]


def find_unreachable(rules: Iterable[Rule[T]]) -> tuple[Unreachable[T], ...]:
    """Return the unreachable ones of `rules`, which come in precedence order."""
    earlier: _EarlierRules[T] = _EarlierRules()
    found = []
    for rule in rules:
        taken_by = _covering(rule, earlier.candidates(rule))
        if taken_by:
            found.append(Unreachable(rule.entry, tuple(cover.entry for cover in taken_by)))
        else:  # what an unreachable rule would cover, those that cover it do too
            earlier.add(rule)
    return tuple(found)


def _covering(rule: Rule[T], candidates: Iterable[Rule[T]]) -> list[Rule[T]]:
    """Return the earlier rules that together take every request of `rule`; none if some are left."""
    partial: list[Rule[T]] = []
    left = set(rule.methods)
    for earlier in candidates:
        if not _conditions_cover(earlier, rule):
            continue
        if not earlier.methods or (rule.methods and rule.methods <= earlier.methods):
            return [earlier]
        if left & earlier.methods:
            partial.append(earlier)
            left -= earlier.methods
    return partial if rule.methods and not left else []


def _conditions_cover(earlier: Rule[T], rule: Rule[T]) -> bool:
    """Whether every request that fulfils the conditions of `rule` fulfils those of `earlier`."""
    return all(
        any(given.implies(wanted) for given in rule.conditions) for wanted in earlier.conditions
    ) and all(
        any(given.keys == wanted.keys and same_scalar(given.expected, wanted.expected) for given in rule.json)
        for wanted in earlier.json
    )


class _EarlierRules(Generic[T]):
    """The rules so far, by what a rule covered by them must have: the host, a path, a first condition."""

    def __init__(self) -> None:
        self._rules: defaultdict[tuple[object, ...], list[Rule[T]]] = defaultdict(list)

    def add(self, rule: Rule[T]) -> None:
        path = (rule.path.kind, rule.path.text, rule.path.segments, rule.path.has_tail)
        self._rules[rule.host, path, _first_condition(rule)].append(rule)

    def candidates(self, rule: Rule[T]) -> Iterator[Rule[T]]:
        """Yield the rules added so far that may cover `rule`.

        A rule that comes earlier and is for the same hosts at least is for exactly these hosts, since what is
        nearer comes first. Likewise with paths of one kind; only a prefix comes before what it takes in.
        """
        conditions = {_condition_key(condition) for condition in rule.conditions} | {None}
        for path in _covering_paths(rule):
            for condition in conditions:
                yield from self._rules.get((rule.host, path, condition), ())


def _covering_paths(rule: Rule[T]) -> Iterator[tuple[object, ...]]:
    if rule.path.kind in (PathKind.TEMPLATE, PathKind.REGEX):
        leading = rule.path.leading_text
        end = len(leading)
        while end > 1:
            yield (PathKind.PREFIX, leading[:end], (), False)
            end = leading.rfind("/", 0, end - 1) + 1
    yield (rule.path.kind, rule.path.text, rule.path.segments, rule.path.has_tail)


def _first_condition(rule: Rule[T]) -> tuple[str, str, str] | None:
    """Return the first condition with a fixed value, which a rule covered by this one must have too."""
    return next((key for condition in rule.conditions if (key := _condition_key(condition))), None)


def _condition_key(condition: Condition) -> tuple[str, str, str] | None:
    text = condition.pattern.text
    return None if text is None else (condition.source, condition.name, text)
