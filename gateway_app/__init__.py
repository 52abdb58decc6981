"""An API gateway as an ASGI application.

`gateway_app:app` is what any ASGI server serves; `GATEWAY_CONFIG` names its file, by default `routes.toml` in
the working directory. The gateway is made when the server starts it, so that importing the package costs
nothing.

The way of a request, file by file:

    gateway ──▶ edge ──▶ snapshot ──▶ middleware/ ──▶ upstream/forwarder ──▶ upstream/http1, …
    one call    id,      finds the    of the route,   chooses, retries,      carry it to an endpoint
    a request   client   route        outermost first times out

and its answer goes the same way back, out through `answer`. An `exchange` holds what is known of a request, a
`snapshot` what was compiled from `config/` with the table of `routing/`, and `worker` everything that
outlives both: it starts, reloads and stops. `serving/` starts the servers, `cli/` is the `gateway` command,
`admin/` and `observe/` tell what happens, `state/` holds what is counted.
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
