"""`header_filter`: refuses requests by their fields, and removes fields in both directions."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.field_pattern import FieldPattern
from gateway_app.middleware.field_rules import OWN_FIELDS, changeable_names, field_name
from gateway_app.middleware.refusal import refuse
from gateway_app.middleware.suspicious_fields import PRESETS, Field, Rule, may_be_suspicious
from gateway_app.problem import Cause

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})

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
        remove_response: names of fields that are not passed back to the client.
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
        self._removed_response = changeable_names("remove_response", remove_response)
        self._allowed = (
            _ALWAYS_PASSED | {field_name("allow_request", name) for name in allow_request}
            if allow_request
            else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it and its answer on without the fields to remove."""
        if scope["type"] not in _SCOPE_TYPES:
            await self._app(scope, receive, send)
            return
        fields = scope["headers"]
        if (self._rules and may_be_suspicious(fields)) or self._patterns:
            found = self._found(fields)
            if found:
                await refuse(scope, send, self._name, Cause.BLOCKED, found)
                return
        removed = self._removed_request
        if removed:
            scope["headers"] = fields = [field for field in fields if field[0] not in removed]
        allowed = self._allowed
        if allowed is not None:
            scope["headers"] = [field for field in fields if field[0] in allowed]
        if self._removed_response:
            send = _removing(self._removed_response, send)
        await self._app(scope, receive, send)

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


def _removing(removed: frozenset[bytes], send: Send) -> Callable[[Message], Awaitable[None]]:
    def removing(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [field for field in message.get("headers", ()) if field[0] not in removed]
        return send(message)

    return removing


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
