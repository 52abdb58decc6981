"""`header_filter`: refuses requests by their fields, and removes fields in both directions."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.exchange import NOT_FROM_BACKENDS
from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.field_pattern import FieldPattern
from gateway_app.middleware.field_rules import OWN_FIELDS, changeable_names, field_name
from gateway_app.middleware.refusal import refuse
from gateway_app.middleware.suspicious_fields import (
    PRESETS,
    Field,
    Rule,
    may_be_suspicious,
    may_be_suspicious_names,
)
from gateway_app.problem import Cause

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 2048
"""Longer lists of names are looked at each time, so that the memory stays under a few megabytes."""

_ALWAYS_PASSED: Final = OWN_FIELDS | {
    b"content-encoding",
    b"content-type",
    b"expect",
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-request-id",
}


class HeaderFilter:
    """Answers 400 to requests with fields that are known to be abused, and removes fields.

    Each preset stands for one kind of abuse: `httpoxy` (the field Proxy), `url_override` (X-Original-URL,
    X-Rewrite-URL and their like), `framing` (conflicting or repeated lengths, codings, hosts),
    `control_characters`, `connection` (a Connection that names fields meant for the backend), `jndi`
    (`${jndi:` in all its disguises), `shellshock` (`() {`), `oversized` (more than 100 fields, or one over
    8 KiB); `suspicious` is all of them. What was found goes to the access log, not to the client.

    Options:
        block: presets, and patterns such as `user-agent: *sqlmap*`, `x-internal-*: *` (`*` is anything, case
            does not matter) or `referer: ~^http://[0-9]` (a regular expression).
        remove_request: names of fields that are not passed on to the backend.
        remove_response: names of fields that are not passed back to the client, whoever has set them.
        allow_request: if given, the only fields that are passed on to the backend, besides the host, those
            that describe the body, and those that the gateway adds.

    Example:
        ```toml
        [middleware.baseline]
        type = "header_filter"
        block = ["suspicious", "user-agent: *sqlmap*"]
        remove_request = ["x-debug"]
        remove_response = ["server", "x-powered-by"]
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        block: Sequence[str] = ("suspicious",),
        remove_request: Sequence[str] = (),
        remove_response: Sequence[str] = (),
        allow_request: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._name = context.name
        self._rules, self._patterns = _compile_block(block)
        self._removed_request = changeable_names("remove_request", remove_request)
        removed_response = changeable_names("remove_response", remove_response)
        self._withheld = NOT_FROM_BACKENDS | removed_response if removed_response else None
        self._allowed = (
            _ALWAYS_PASSED | {field_name("allow_request", name) for name in allow_request}
            if allow_request
            else None
        )
        self._plain: dict[tuple[bytes, ...], bool] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Refuse the request, or pass it and its answer on without the fields to remove.

        There is nothing to wait for, so it is no coroutine, which would cost as much as half of the rest.
        """
        if scope["type"] not in _SCOPE_TYPES:
            return self._app(scope, receive, send)
        withheld = self._withheld
        if withheld is not None:
            exchange = scope["gateway"]
            others = exchange.withheld_fields
            exchange.withheld_fields = withheld if others is NOT_FROM_BACKENDS else others | withheld
        fields = scope["headers"]
        names, values = zip(*fields) if fields else ((), ())  # noqa: B905  # pairs, by ASGI
        is_plain = self._plain.get(names)
        if is_plain is None:
            is_plain = self._remember(names)
        if not is_plain or (self._rules and may_be_suspicious(values)):
            found = self._found(fields)
            if found:
                return refuse(scope, send, self._name, Cause.BLOCKED, found)
            scope["headers"] = [field for field in fields if self._passes(field[0])]
        return self._app(scope, receive, send)

    def _remember(self, names: tuple[bytes, ...]) -> bool:
        """Return whether fields of these names pass unless their values are suspicious.

        A client sends the same names again and again. The memory is bounded: when a client that invents
        names has filled it, it is emptied, which the others hardly notice.
        """
        is_plain = (
            not self._patterns
            and not (self._rules and may_be_suspicious_names(names))
            and all(map(self._passes, names))
        )
        if len(self._plain) >= _MAX_REMEMBERED:
            self._plain.clear()
        if sum(map(len, names)) <= _MAX_REMEMBERED_BYTES:
            self._plain[names] = is_plain
        return is_plain

    def _passes(self, name: bytes) -> bool:
        """Return whether a field of this name is passed on to the backend."""
        return name not in self._removed_request and (self._allowed is None or name in self._allowed)

    def _found(self, fields: Sequence[Field]) -> str:
        """Return what is wrong with the request, "" if nothing is."""
        for rule in self._rules:
            found = rule(fields)
            if found:
                return found
        for pattern in self._patterns:
            if pattern.matches(fields):
                return f"matches {pattern.text!r}"
        return ""


def _compile_block(block: Sequence[str]) -> tuple[tuple[Rule, ...], tuple[FieldPattern, ...]]:
    rules: dict[Rule, None] = {}
    patterns: list[FieldPattern] = []
    for entry in block:
        if entry in _PRESETS:
            rules.update(dict.fromkeys(_PRESETS[entry]))
        elif ":" in entry:
            patterns.append(FieldPattern("block", entry))
        else:
            nearest = difflib.get_close_matches(entry, _PRESETS, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(
                f"block: {entry!r} is no preset{hint}; accepted are {', '.join(_PRESETS)} and patterns "
                'such as "user-agent: *sqlmap*"'
            )
    return tuple(rules), tuple(patterns)


_PRESETS: Final = {"suspicious": tuple(rule for rules in PRESETS.values() for rule in rules), **PRESETS}
