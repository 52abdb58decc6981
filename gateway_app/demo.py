"""The application that the shipped routes.toml runs in-process, so that the gateway has something to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


async def hello(request: Request) -> JSONResponse:
    """Greet, and show the path as the backend sees it."""
    return JSONResponse({"hello": "from behind the gateway", "path": request.url.path})


async def user(request: Request) -> JSONResponse:
    """Show the user that the path names."""
    return JSONResponse({"id": request.path_params["id"], "path": request.url.path})


async def echo(request: Request) -> JSONResponse:
    """Show the request as it arrived: method, target, fields and the size of the body."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body_bytes": size,
        }
    )


async def numbers(request: Request) -> StreamingResponse:
    """Stream a thousand lines."""

    def lines() -> Iterator[str]:
        for number in range(1000):
            yield f"{number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


app = Starlette(
    routes=[
        Route("/users/{id}", user),
        Route("/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route("/numbers", numbers),
        Route("/{path:path}", hello),
    ]
)
