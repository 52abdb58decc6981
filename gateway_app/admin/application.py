"""The admin application: what each path of the admin listener answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway_app.admin.status import gateway_status
from gateway_app.observe.exposition import render

if TYPE_CHECKING:
    from starlette.requests import Request

    from gateway_app.admin.status import GatewayView
    from gateway_app.observe.metrics import Metrics


def admin_application(view: GatewayView, metrics: Metrics) -> Starlette:
    """Return the application that tells about the gateway that `view` is a worker of.

    /metrics   of all workers, for Prometheus and OpenMetrics
    /status    of all workers: configuration, requests in flight, endpoints
    /routes    in the order in which they are considered
    /healthz   200 as long as the worker that is asked runs
    /readyz    200 while it takes requests, else 503: before the start's end, and once it stops
    """

    async def show_metrics(request: Request) -> Response:
        metrics.sample()
        # In a thread, since ten thousand routes make a long page; the worker goes on serving.
        body, media_type = await asyncio.to_thread(
            render, metrics.directory, request.headers.get("accept", "")
        )
        return Response(body, headers={"content-type": media_type})

    async def show_status(_: Request) -> Response:
        metrics.sample()
        return JSONResponse(await asyncio.to_thread(gateway_status, metrics.directory, view.config_path))

    async def show_routes(_: Request) -> Response:
        return JSONResponse([dict(route) for route in view.routes()])

    async def show_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_readiness(_: Request) -> Response:
        is_ready = view.is_ready
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    pages = {
        "/metrics": show_metrics,
        "/status": show_status,
        "/routes": show_routes,
        "/healthz": show_health,
        "/readyz": show_readiness,
    }

    async def show_index(_: Request) -> Response:
        return PlainTextResponse("".join(f"{path}\n" for path in pages))

    return Starlette(routes=[Route(path, page) for path, page in {"/": show_index, **pages}.items()])
