"""An API gateway as an ASGI application.

`gateway_app:app` is what any ASGI server serves; `GATEWAY_CONFIG` names its file, by default `routes.toml` in
the working directory. It is made when it is first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_app.gateway import Gateway

    app: Gateway

__all__ = ["app"]


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import os
    from pathlib import Path

    from gateway_app.gateway import Gateway

    application = Gateway(Path(os.environ.get("GATEWAY_CONFIG", "routes.toml")))
    globals()["app"] = application
    return application
