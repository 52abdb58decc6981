"""`gateway serve`: what the command line changes, and what the user is told."""

from __future__ import annotations

import importlib.util
import re
import shlex
from typing import TYPE_CHECKING, Final

import typer

from gateway_app.config.proxy_protocol import READ_BY_HYPERCORN_ALONE
from gateway_app.serving.logs import configure_logging
from gateway_app.serving.start import ServeOptions, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway_app.config.model import GatewayConfig, MatchConfig

_MOST_EXAMPLES: Final = 5


def serve_command(
    config: GatewayConfig, path: Path, server: str | None, workers: int | None, relay: bool | None
) -> int:
    """Serve, and return the exit status. What is None is taken from the file.

    Raises:
        OSError: an address cannot be had.
        ValueError: what was asked for is not possible; the message says why.

    """
    options = ServeOptions(
        server or config.gateway.server,
        workers or config.gateway.workers,
        bool(config.relay) if relay is None else relay,
    )
    if options.server == "granian":
        if importlib.util.find_spec("granian") is None:
            raise ValueError("granian is not installed: pip install 'granian>=2.5'")
        if len(config.gateway.listen) > 1:
            raise ValueError("granian listens on one address; the file's [gateway] listen has several")
        if config.gateway.accept_proxy_protocol:
            raise ValueError(READ_BY_HYPERCORN_ALONE)
    if options.with_relay and not config.relay:
        raise ValueError(f"{path} has no [[relay]] tables, so there is no relay to run")
    configure_logging()

    def announce(addresses: tuple[str, ...]) -> None:
        for line in announcement(config, path, options, addresses):
            typer.echo(line)

    return serve(config, path, options, announce)


def announcement(
    config: GatewayConfig, path: Path, options: ServeOptions, addresses: tuple[str, ...]
) -> Iterator[str]:
    """Yield what is served where, and requests to try."""
    beside = " and the relay" if options.with_relay else ""
    workers = f"{options.workers} worker{'' if options.workers == 1 else 's'}"
    yield f"{path} on {', '.join(addresses)}: {options.server} with {workers}{beside}"
    yield "Try:"
    for route in [route for route in config.routes if example(route.match, addresses[0])][:_MOST_EXAMPLES]:
        yield f"  {example(route.match, addresses[0])}"
    if config.admin is not None:
        for page in ("/status", "/metrics"):
            yield f"  {shlex.join(['curl', '-s', *_target(config.admin.listen, page)])}"


def example(match: MatchConfig, address: str) -> str:
    """Return a `curl` command for a request that fulfils `match`; "" where none can be made up."""
    path = match.path or "/"
    host = match.host or ""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    values = (*match.headers.values(), *match.cookies.values(), *match.query.values())
    if path.startswith("~") or any(value.startswith(("~", "*")) for value in values):
        return ""
    path = re.sub(r"\{[^}]*\}", "1", path.removesuffix("*"))
    query = "&".join(f"{name}={value}" for name, value in match.query.items())
    words = ["curl", "-i"]
    if match.methods and "GET" not in match.methods:
        words += ["-X", match.methods[0]]
    if host:
        words += ["-H", f"host: {host.replace('*.', 'www.', 1)}"]
    for name, value in match.headers.items():
        words += ["-H", f"{name}: {value}"]
    for name, value in match.cookies.items():
        words += ["-b", f"{name}={value}"]
    if match.json_body:
        return ""
    return shlex.join([*words, *_target(address, f"{path}?{query}" if query else path)])


def _target(address: str, url: str) -> list[str]:
    """Return what `curl` is told of an address and of a path there."""
    if address.startswith("unix:"):
        return ["--unix-socket", address.removeprefix("unix:"), f"http://localhost{url}"]
    return [f"http://{address}{url}"]
