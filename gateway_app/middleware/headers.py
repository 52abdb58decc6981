"""`headers`: set, add and remove header fields, towards the backend and towards the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_app.middleware import template
from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.field_rules import changeable_names, field_value, own_name_refused

if TYPE_CHECKING:
    from gateway_app.exchange import Exchange

Fields = list[tuple[bytes, bytes]]
Render = Callable[["Exchange", Scope], bytes]
Change = Callable[[Fields, "Exchange", Scope], Fields]

_VISIBLE = "".join(map(chr, range(0x20, 0x7F)))


class Headers:
    """Changes header fields. Of one direction, first `remove` is done, then `set`, then `add`.

    Values are templates: `{client}`, `{request_id}`, `{scheme}`, `{host}`, `{method}`, `{path}`, `{query}`,
    `{route}` and `{param:NAME}` are filled in from the request; `{{` is a brace. What is not printable ASCII
    in a captured segment is percent-encoded, so that no request can put a line break into a field.

    Options:
        set_request: fields that the backend gets, in place of the client's of that name.
        add_request: fields that the backend gets besides the client's.
        remove_request: names of fields that the backend does not get.
        set_response: fields that the client gets, in place of the backend's of that name.
        add_response: fields that the client gets besides the backend's.
        remove_response: names of fields that the client does not get.

    Example:
        ```toml
        [middleware.tell-who]
        type = "headers"
        set_request = { x-client = "{client}", x-route = "{route}" }
        remove_request = ["x-debug"]
        set_response = { x-request = "{request_id}", strict-transport-security = "max-age=31536000" }
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        set_request: Mapping[str, str] | None = None,
        add_request: Mapping[str, str] | None = None,
        remove_request: Sequence[str] = (),
        set_response: Mapping[str, str] | None = None,
        add_response: Mapping[str, str] | None = None,
        remove_response: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._change_request = _compile_change("request", context, set_request, add_request, remove_request)
        self._change_response = _compile_change(
            "response", context, set_response, add_response, remove_response
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its fields changed, and the answer back likewise."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope["gateway"]
        change = self._change_response
        if change is not None:
            send = _changing(send, change, exchange, scope)
        if self._change_request is not None:
            scope["headers"] = self._change_request(scope["headers"], exchange, scope)
        await self._app(scope, receive, send)


def _changing(send: Send, change: Change, exchange: Exchange, scope: Scope) -> Send:
    def changing(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = change(message.get("headers", []), exchange, scope)
        return send(message)

    return changing


def _compile_change(
    direction: str,
    context: MiddlewareContext,
    set_: Mapping[str, str] | None,
    add: Mapping[str, str] | None,
    remove: Sequence[str],
) -> Change | None:
    """Return what makes the new fields from the old ones, None if nothing changes."""
    replacing = _compile_fields(f"set_{direction}", set_ or {}, context)
    adding = _compile_fields(f"add_{direction}", add or {}, context)
    dropped = changeable_names(f"remove_{direction}", remove) | {name for name, _ in replacing}
    new = [*replacing, *adding]
    if not dropped and not new:
        return None
    is_constant = all(isinstance(value, bytes) for _, value in new)
    return (_with_constants if is_constant else _with_places)(dropped, new)


def _with_constants(dropped: frozenset[bytes], new: Sequence[tuple[bytes, Any]]) -> Change:
    constant = list(new)

    def change(fields: Fields, exchange: Exchange, scope: Scope) -> Fields:
        return [field for field in fields if field[0] not in dropped] + constant

    return change


def _with_places(dropped: frozenset[bytes], new: Sequence[tuple[bytes, bytes | Render]]) -> Change:
    def change(fields: Fields, exchange: Exchange, scope: Scope) -> Fields:
        kept = [field for field in fields if field[0] not in dropped]
        for name, value in new:
            kept.append((name, value if isinstance(value, bytes) else value(exchange, scope)))
        return kept

    return change


def _compile_fields(
    option: str, fields: Mapping[str, str], context: MiddlewareContext
) -> list[tuple[bytes, bytes | Render]]:
    return [
        (own_name_refused(option, name), _compile_value(f"{option}.{name}", name, value, context))
        for name, value in fields.items()
    ]


def _compile_value(option: str, name: str, value: str, context: MiddlewareContext) -> bytes | Render:
    field_value(option, name, value)
    parts = template.parse(option, value, context)
    getters = [part for part in parts if not isinstance(part, str)]
    if not getters:
        return field_value(option, name, "".join(part for part in parts if isinstance(part, str)))
    pattern = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    if len(getters) == 1:
        return _render_one(pattern, getters[0])

    def render(exchange: Exchange, scope: Scope) -> bytes:
        return _safe(pattern % tuple([get(exchange, scope) for get in getters]))

    return render


def _render_one(pattern: str, get: template.Getter) -> Render:
    if pattern == "%s":
        return lambda exchange, scope: _safe(get(exchange, scope))
    return lambda exchange, scope: _safe(pattern % get(exchange, scope))


def _safe(text: str) -> bytes:
    """Return `text` as a field value: printable ASCII, everything else percent-encoded."""
    if not (text.isascii() and text.isprintable()):
        text = quote(text, safe=_VISIBLE, errors="surrogatepass")
    return text.encode("ascii")
