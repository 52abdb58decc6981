"""An API gateway as an ASGI application.

`gateway_app:app` is what any ASGI server serves; `GATEWAY_CONFIG` names its file, by default `routes.toml` in
the working directory. The gateway is made when the server starts it, so that importing the package costs
nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from gateway_app.gateway import Gateway

__all__ = ["app"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the gateway of this process."""
    await _gateway()(scope, receive, send)


@functools.cache
def _gateway() -> Gateway:
    import os
    from pathlib import Path

    from gateway_app.gateway import Gateway

    return Gateway(Path(os.environ.get("GATEWAY_CONFIG", "routes.toml")))
