"""The rules of one host, found by path without looking at the others.

Each kind of pattern has the structure in which a look-up costs as much with ten thousand rules as with ten:

- exact paths: a dict;
- prefixes: a dict, asked for the path's leading segments from the longest that any rule has;
- templates: a dict by the literal segments that they begin with, and below each a tree of the segments that
  follow, walked along the literal and the capturing branch;
- regular expressions: a dict by the literal segments that they begin with; those that begin with none, or
  with the same ones, are tried one after the other;
- no path: a tuple.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gateway_app.routing.match import Rule
from gateway_app.routing.path import PathKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T")
V = TypeVar("V")
Rules = tuple[Rule[T], ...]

_NOTHING: Final[dict[str, Any]] = {}
"""One for all, never written to: with many hosts, empty dicts of their own would crowd the CPU's caches."""


class PathIndex(Generic[T]):
    """The rules of one host pattern; `rules` come in precedence order and stay in it."""

    __slots__ = (
        "_any",
        "_exact",
        "_prefix_lengths",
        "_prefixes",
        "_regex_lengths",
        "_regexes",
        "_template_depth",
        "_template_lengths",
        "_templates",
    )

    def __init__(self, rules: Sequence[Rule[T]]) -> None:
        by_kind: defaultdict[PathKind, list[Rule[T]]] = defaultdict(list)
        for rule in rules:
            by_kind[rule.path.kind].append(rule)
        self._exact = _group(by_kind[PathKind.EXACT])
        self._prefixes = _group(by_kind[PathKind.PREFIX])
        self._prefix_lengths = _lengths(self._prefixes)
        templates = _group(by_kind[PathKind.TEMPLATE])
        self._templates = {
            text: _Segment(group, text.count("/") - 1) for text, group in templates.items()
        } or _NOTHING
        self._template_lengths = _lengths(templates)
        self._template_depth = max(
            (len(rule.path.segments) for rule in by_kind[PathKind.TEMPLATE]), default=0
        )
        self._regexes = _group(by_kind[PathKind.REGEX])
        self._regex_lengths = _lengths(self._regexes)
        self._any = tuple(by_kind[PathKind.ANY])

    def find(self, path: str) -> Iterator[Rules[T]]:
        """Yield in precedence order, group by group, the rules whose path may hold.

        Lazy, since the first group nearly always decides. Only of a regular expression it is not certain
        that it holds.
        """
        rules = self._exact.get(path)
        if rules is not None:
            yield rules
        if self._prefixes:  # `_leading` once more, in place: through a second generator it costs a third more
            shortest, longest = self._prefix_lengths
            closed = path + "/"
            end = closed.rfind("/", 0, longest) + 1
            while end >= shortest:
                rules = self._prefixes.get(closed[:end])
                if rules is not None:
                    yield rules
                end = closed.rfind("/", 0, end - 1) + 1
        if self._templates:
            segments = path.split("/", self._template_depth + 1)[1:]
            found: list[Rules[T]] = []
            for root in _leading(self._templates, self._template_lengths, path):
                root.collect(segments, found)
            yield from found
        if self._regexes:
            groups = list(_leading(self._regexes, self._regex_lengths, path))
            if len(groups) > 1:
                yield tuple(sorted((rule for group in groups for rule in group), key=_order))
            else:
                yield from groups
        if self._any:
            yield self._any


class _Segment(Generic[T]):
    """A node of a tree of templates: what may follow after `level` segments."""

    __slots__ = ("_captured", "_level", "_literals", "_tails", "_whole")

    def __init__(self, rules: Iterable[Rule[T]], level: int) -> None:
        self._level = level
        whole: list[Rule[T]] = []
        tails: list[Rule[T]] = []
        captured: list[Rule[T]] = []
        literals: defaultdict[str, list[Rule[T]]] = defaultdict(list)
        for rule in rules:
            segments = rule.path.segments
            if len(segments) == level:
                (tails if rule.path.has_tail else whole).append(rule)
                continue
            segment = segments[level]
            (captured if segment is None else literals[segment]).append(rule)
        self._whole = tuple(whole)
        self._tails = tuple(tails)
        self._captured: _Segment[T] | None = _Segment(captured, level + 1) if captured else None
        self._literals: dict[str, _Segment[T]] = (
            {text: _Segment(below, level + 1) for text, below in literals.items()} if literals else _NOTHING
        )

    def collect(self, segments: list[str], found: list[Rules[T]]) -> None:
        """Append in precedence order the rules that hold for a path, its segments before `level` given."""
        if self._level < len(segments):
            segment = segments[self._level]
            literal = self._literals.get(segment)
            if literal is not None:
                literal.collect(segments, found)
            if self._captured is not None and segment:
                self._captured.collect(segments, found)
        elif self._whole:
            found.append(self._whole)
        if self._tails:
            found.append(self._tails)


def _group(rules: Iterable[Rule[T]]) -> dict[str, Rules[T]]:
    groups: defaultdict[str, list[Rule[T]]] = defaultdict(list)
    for rule in rules:
        groups[rule.path.text if rule.path.kind is PathKind.EXACT else rule.path.leading_text].append(rule)
    return {text: tuple(group) for text, group in groups.items()} if groups else _NOTHING


def _lengths(rules: Iterable[str]) -> tuple[int, int]:
    """Return the length of the shortest and of the longest."""
    lengths = [len(text) for text in rules]
    return (min(lengths, default=0), max(lengths, default=0))


def _leading(below: dict[str, V], lengths: tuple[int, int], path: str) -> Iterator[V]:
    """Yield what is kept under the path's leading segments, from the longest.

    The number of look-ups is bounded by the longest that any rule has, not by the path.
    """
    shortest, longest = lengths
    path += "/"
    end = path.rfind("/", 0, longest) + 1
    while end >= shortest:
        found = below.get(path[:end])
        if found is not None:
            yield found
        end = path.rfind("/", 0, end - 1) + 1


def _order(rule: Rule[T]) -> int:
    return rule.order
