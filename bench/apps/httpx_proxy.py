"""The proxy that most Python services would write: Starlette in front, an httpx client behind, streaming."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from anyio import CancelScope
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=os.environ["BENCH_BACKEND"], limits=limits, timeout=300) as client:
        app.state.client = client
        yield


class _Forwarded(StreamingResponse):
    """Gives the connection back to the pool whatever happens; one that leaks makes each request dearer."""

    def __init__(self, answer: httpx.Response, headers: dict[str, str]) -> None:
        super().__init__(answer.aiter_raw(), answer.status_code, headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._answer.aclose()


async def _forward(request: Request) -> Response:
    client: httpx.AsyncClient = request.app.state.client
    headers = [(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP]
    content = request.stream() if request.method in {"POST", "PUT", "PATCH"} else None
    outgoing = client.build_request(request.method, str(request.url.path), headers=headers, content=content)
    answer = await client.send(outgoing, stream=True)
    kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
    return _Forwarded(answer, kept)


app = Starlette(routes=[Route("/{path:path}", _forward, methods=["GET", "POST", "PUT"])], lifespan=_lifespan)
