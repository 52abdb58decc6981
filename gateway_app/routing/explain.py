"""Why a request takes the route it takes: every rule asked in order, with the reasons of those that lost.

The rules are asked one by one from their patterns, not through the indexes: this is for `gateway explain` and
for a person, not for traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gateway_app.routing.json_body import UNPARSABLE, UNREAD
from gateway_app.routing.match import Entry, Matched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway_app.routing.conditions import Condition, Request
    from gateway_app.routing.match import Rule

T = TypeVar("T")

MAX_OTHERS: Final = 10
"""So many rules are told whose host or path differs; those that lost by their conditions are all told."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition that did not hold: its key below ``match``, and a sentence for the person asking."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Lost(Generic[T]):
    """A rule that would have come first, and everything that spoke against it."""

    entry: Entry[T]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Explanation(Generic[T]):
    """The rule that won, None if none did, and those nearer ones that lost, in precedence order.

    `omitted` counts the similar rules beyond `MAX_OTHERS`.
    """

    matched: Matched[T] | None
    lost: tuple[Lost[T], ...]
    omitted: int


def explain(rules: Sequence[Rule[T]], request: Request, host: str) -> Explanation[T]:
    """Ask `rules`, in precedence order, until one holds; an `UNREAD` body fulfils no JSON condition."""
    lost: list[Lost[T]] = []
    others = omitted = 0
    for rule in rules:
        reasons = _reasons_against(rule, request, host)
        if not reasons:
            params = rule.path.capture(request.path) or {}
            matched = Matched(rule.entry.name, rule.entry.value, params)
            return Explanation(matched, tuple(lost), omitted)
        if reasons[0].key in ("host", "path"):
            if not _is_similar(rule, request.path, reasons):
                continue
            others += 1
            if others > MAX_OTHERS:
                omitted += 1
                continue
        lost.append(Lost(rule.entry, tuple(reasons)))
    return Explanation(None, tuple(lost), omitted)


def _reasons_against(rule: Rule[T], request: Request, host: str) -> list[Reason]:
    reasons = []
    if not rule.host.matches(host):
        reasons.append(Reason("host", f"the host is {host!r}, the route is for {str(rule.host)!r}"))
    if rule.path.capture(request.path) is None:
        hint = _path_hint(str(rule.path), request.path)
        reasons.append(
            Reason("path", f"the path is {request.path!r}, the route is for {str(rule.path)!r}{hint}")
        )
    if rule.methods and request.method not in rule.methods:
        allowed = ", ".join(sorted(rule.methods))
        reasons.append(Reason("methods", f"the method is {request.method}, the route is for {allowed}"))
    reasons += [
        Reason(_KEYS[condition.source], _why_not(condition, request))
        for condition in rule.conditions
        if not condition.holds(request)
    ]
    for json_condition in rule.json:
        if request.body is UNREAD:
            reasons.append(Reason("json", f"{json_condition}, and no body was looked at"))
        elif request.body is UNPARSABLE:
            reasons.append(Reason("json", f"{json_condition}, and the body is no JSON of at most 64 KiB"))
        elif not json_condition.holds(request.body):
            reasons.append(Reason("json", f"{json_condition}, and the body has another value or none there"))
    return reasons


_KEYS: Final = {"header": "headers", "cookie": "cookies", "query": "query"}


def _why_not(condition: Condition, request: Request) -> str:
    values = request.values(condition.source, condition.name)
    found = " and ".join(map(repr, values)) if values else "none"
    return f"{condition}, and the request has {found}"


def _path_hint(wanted: str, path: str) -> str:
    if wanted.casefold() == path.casefold():
        return " (upper and lower case differ)"
    if wanted.rstrip("/") == path.rstrip("/"):
        return " (the closing slash counts)"
    return ""


def _is_similar(rule: Rule[T], path: str, reasons: Sequence[Reason]) -> bool:
    """Whether a person may have expected the rule: all but the host holds, or the path begins alike."""
    if reasons[0].key == "host":
        return len(reasons) == 1
    return str(rule.path).split("/")[1:2] == path.split("/")[1:2] or bool(_path_hint(str(rule.path), path))
