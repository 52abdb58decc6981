"""What routing finds: a rule, compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from gateway_app.observe.metrics import RouteMetrics


@dataclass(frozen=True, slots=True)
class Route:
    """A rule compiled: the pipeline that its requests run through.

    Attributes:
        name: as in routes.toml.
        app: the outermost middleware, or the innermost application where there is none.
        backend: the backend's name, "" where the gateway answers itself.
        middleware: the names of the middlewares, outermost first.
        metrics: what is counted of its requests.
    """

    name: str
    app: ASGIApp
    backend: str
    middleware: tuple[str, ...]
    metrics: RouteMetrics
