"""`body_limit`: how large a request's body may be on some routes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.config.quantities import Size
from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.refusal import refuse
from gateway_app.problem import Cause


class BodyLimit:
    """Allows larger or smaller bodies than the gateway's `max_body`; a larger one is answered with 413.

    A body whose length is declared is refused before it is read; of others, no more than that is read.

    Options:
        max: the largest body, such as "100MB"; "0B" allows none.

    Example:
        ```toml
        [middleware.uploads]
        type = "body_limit"
        max = "2GiB"
        ```

    """

    def __init__(
        self, app: ASGIApp, *, context: MiddlewareContext, max: Annotated[Size, Field(ge=0)]
    ) -> None:
        self._app = app
        self._name = context.name
        self._max_bytes = max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the bound that the edge holds the body to."""
        if scope["type"] == "http":
            exchange = scope["gateway"]
            exchange.max_body_bytes = self._max_bytes
            if exchange.content_length > self._max_bytes:
                detail = f"a body may have {self._max_bytes} bytes"
                await refuse(scope, send, self._name, Cause.BODY_TOO_LARGE, detail)
                return
        await self._app(scope, receive, send)
