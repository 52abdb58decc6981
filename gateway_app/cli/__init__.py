"""The `gateway` command."""

from gateway_app.cli.main import main

__all__ = ["main"]
