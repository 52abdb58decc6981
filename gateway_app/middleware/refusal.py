"""How a middleware refuses a request, so that the middlewares around it see the answer too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_app.problem import Cause, GatewayError, send_problem

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from gateway_app.problem import Headers


async def refuse(
    scope: Scope, send: Send, name: str, cause: Cause, detail: str, headers: Headers = ()
) -> None:
    """Answer with `cause`: through `send`, so that outer middlewares (CORS, `headers`) do their part.

    `name` is the refusing middleware's, for the access log and the metrics.

    Raises:
        GatewayError: the request is a WebSocket handshake, which only the edge can answer.

    """
    scope["gateway"].refused_by = name
    if scope["type"] == "websocket":
        raise GatewayError(cause, detail, headers)
    await send_problem(scope, send, cause, detail, headers)
