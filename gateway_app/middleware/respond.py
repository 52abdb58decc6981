"""`respond`: a fixed answer, made at the gateway."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.field_rules import encoded_field
from gateway_app.middleware.refusal import refuse
from gateway_app.problem import Cause

_WITHOUT_BODY = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED))


class Respond:
    """Answers every request itself; nothing is forwarded.

    Options:
        status: the status code, 200 to 599.
        body: the text to send.
        json: any value, sent as JSON instead of `body`.
        content_type: of the body; "application/json" where `json` is given.
        headers: further fields.

    Example:
        ```toml
        [middleware.maintenance]
        type = "respond"
        status = 503
        json = { title = "Back at nine" }
        headers = { retry-after = "3600" }
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        status: Annotated[int, Field(ge=200, le=599)] = 200,
        body: str = "",
        json: Any = None,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if json is not None and body:
            raise ValueError("json and body: give one of them")
        content = body.encode() if json is None else json_module.dumps(json, ensure_ascii=False).encode()
        if content and status in _WITHOUT_BODY:
            raise ValueError(f"status {status} has no body (RFC 9110 6.4.1)")
        fields = [encoded_field("headers", name, value) for name, value in (headers or {}).items()]
        default_type = "text/plain; charset=utf-8" if json is None else "application/json"
        type_field = encoded_field("content_type", "content-type", content_type or default_type)
        if content:
            fields.insert(0, type_field)
        if status not in _WITHOUT_BODY:
            fields.append((b"content-length", str(len(content)).encode()))
        self._app = app
        self._name = context.name
        self._status = status
        self._fields = tuple(fields)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "websocket":
            detail = "only plain requests are answered here"
            await refuse(scope, send, self._name, Cause.WEBSOCKET_UNSUPPORTED, detail)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The list is new each time: what wraps `send` may change it in place.
        await send({"type": "http.response.start", "status": self._status, "headers": list(self._fields)})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self._content}
        )
