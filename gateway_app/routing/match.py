"""A route's conditions as plain values, checked, ranked, and asked of one request.

`Match` is what the operator wrote; `Rule` is the same compiled. The order of rules is that of the Kubernetes
Gateway API, written down once, in `Rule.rank`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

from gateway_app.routing.conditions import Condition, Request, Source, parse_condition
from gateway_app.routing.host import HostPattern, parse_host_pattern
from gateway_app.routing.json_body import UNREAD, JsonCondition, Scalar, parse_json_condition
from gateway_app.routing.path import PathKind, PathPattern, parse_path_pattern

T = TypeVar("T")

NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Match:
    """The conditions that select a route; each that is given must hold.

    Attributes:
        host: "api.example.com", "*.example.com" for every name below it, None for any.
        path: "/about" (that path), "/api/*" (/api and all below), "/users/{id}" (a segment, captured),
            "~^/v[12]/" (a regular expression, searched), None for any.
        methods: one of them; none given is any. HEAD is not GET: name both.
        headers: field name → value: exactly "1", a regular expression "~^v[12]$", or "*" for any.
        cookies: cookie name → value, likewise.
        query: parameter name → value, likewise, percent-decoded.
        json: JSON pointer (RFC 6901) → scalar, in a body of at most 64 KiB.

    """

    host: str | None = None
    path: str | None = None
    methods: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A named rule and what it leads to."""

    name: str
    match: Match
    value: T


class Matched(NamedTuple, Generic[T]):
    """The rule that won, and what its path captured, percent-decoded."""

    name: str
    value: T
    params: Mapping[str, str]


class Pending(enum.Enum):
    """An answer that is none yet."""

    NEEDS_BODY = enum.auto()


NEEDS_BODY: Final = Pending.NEEDS_BODY
"""A rule with a JSON condition comes next, and everything else of it holds: parse the body and ask again."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a match: the key below ``match`` and what to mend."""

    key: tuple[str, ...]
    message: str


class MatchError(ValueError):
    """A match that cannot be compiled; `problems` are all that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(problem.key)}: {problem.message}" for problem in problems))
        self.problems = problems


class Rule(Generic[T]):
    """An entry compiled: its patterns, its place in the order, and the question whether it holds.

    Attributes:
        entry: what it was made of; `position` is its place in the file, from 0.
        order: its place among all rules, set by the table.
        is_unconditional: nothing but host and path is asked for, and the path captures nothing.
        matched: the answer where nothing is captured, made once.

    """

    __slots__ = (
        "_is_regex",
        "_is_template",
        "conditions",
        "entry",
        "host",
        "is_unconditional",
        "json",
        "matched",
        "methods",
        "order",
        "path",
        "position",
    )

    def __init__(self, entry: Entry[T], position: int) -> None:
        problems: list[Problem] = []
        match = entry.match
        self.entry = entry
        self.position = position
        self.order = position
        self.host: HostPattern = _parse(problems, ("host",), parse_host_pattern, match.host) or HostPattern()
        self.path: PathPattern = _parse(
            problems, ("path",), parse_path_pattern, match.path
        ) or parse_path_pattern(None)
        self.methods = _parse_methods(problems, match.methods)
        self.conditions = _parse_conditions(problems, match)
        self.json = _parse_json(problems, match.json)
        if problems:
            raise MatchError(tuple(problems))
        self.matched: Matched[T] = Matched(entry.name, entry.value, NO_PARAMS)
        self._is_template = self.path.kind is PathKind.TEMPLATE
        self._is_regex = self.path.kind is PathKind.REGEX
        path_is_certain = not (self._is_template or self._is_regex)
        self.is_unconditional = path_is_certain and not (self.methods or self.conditions or self.json)

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts rules by precedence: host, path, method, header fields, query, JSON, place in the file.

        Cookies count as header fields, since they travel in one. The host's text keeps rules of one host
        together; it decides nothing, as hosts of one rank never match the same request.
        """
        counts = {"header": 0, "cookie": 0, "query": 0}
        for condition in self.conditions:
            counts[condition.source] += 1
        return (
            self.host.rank,
            self.host.host,
            self.path.rank,
            0 if self.methods else 1,
            -(counts["header"] + counts["cookie"]),
            -counts["query"],
            -len(self.json),
            self.position,
        )

    def ask(self, request: Request) -> Matched[T] | Pending | None:
        """Return the answer for a request whose host and path were looked up; None if the rule does not hold.

        A regular expression is tried here: looking up could only tell its leading segments.
        """
        if self.methods and request.method not in self.methods:
            return None
        params: dict[str, str] | None = None
        if self._is_regex:
            params = self.path.capture(request.path)
            if params is None:
                return None
        for condition in self.conditions:
            if not condition.holds(request):
                return None
        if self.json:
            if request.body is UNREAD:
                return NEEDS_BODY
            for json_condition in self.json:
                if not json_condition.holds(request.body):
                    return None
        if self._is_template:
            params = self.path.pick(request.path)
        return Matched(self.entry.name, self.entry.value, params) if params else self.matched


def problems_of(match: Match) -> tuple[Problem, ...]:
    """Return everything that is wrong with a match, for a report that names each key."""
    try:
        Rule(Entry("", match, None), 0)
    except MatchError as error:
        return error.problems
    return ()


A = TypeVar("A")
R = TypeVar("R")


def _parse(problems: list[Problem], key: tuple[str, ...], parse: Callable[[A], R], argument: A) -> R | None:
    try:
        return parse(argument)
    except ValueError as error:
        problems.append(Problem(key, str(error)))
        return None


def _parse_methods(problems: list[Problem], methods: tuple[str, ...]) -> frozenset[str]:
    problems += [
        Problem(("methods",), f"{method!r} is no method; methods are in capitals, as in 'GET'")
        for method in methods
        if not _METHOD.fullmatch(method)
    ]
    if "CONNECT" in methods:
        problems.append(Problem(("methods",), "CONNECT is answered with 400, whatever routes there are"))
    return frozenset(methods)


def _parse_conditions(problems: list[Problem], match: Match) -> tuple[Condition, ...]:
    conditions = []
    written: tuple[tuple[str, Source, Mapping[str, str]], ...] = (
        ("headers", "header", match.headers),
        ("cookies", "cookie", match.cookies),
        ("query", "query", match.query),
    )
    for key, source, values in written:
        for name, value in values.items():
            try:
                conditions.append(parse_condition(source, name, value))
            except ValueError as error:
                problems.append(Problem((key, name), str(error)))
    return tuple(conditions)


def _parse_json(problems: list[Problem], values: Mapping[str, Scalar]) -> tuple[JsonCondition, ...]:
    conditions = []
    for pointer, expected in values.items():
        try:
            conditions.append(parse_json_condition(pointer, expected))
        except ValueError as error:
            problems.append(Problem(("json", pointer), str(error)))
    return tuple(conditions)
