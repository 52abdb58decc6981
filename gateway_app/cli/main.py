"""What the `gateway` command understands; each subcommand's work is in the file of its name."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from gateway_app.cli.check import problems_of, summary
from gateway_app.cli.explain import explanation
from gateway_app.cli.routes import route_list
from gateway_app.cli.serve import serve_command
from gateway_app.config.errors import ConfigErrors
from gateway_app.config.load import load
from gateway_app.config.model import GatewayConfig
from gateway_app.config.schema import file_schema
from gateway_app.config.values import checked_ip_address, checked_method
from gateway_app.dry_run import DryRun, ImaginedRequest
from gateway_app.expectations import failed_expectations
from gateway_app.problem import PROXY_NAME

CONFIG_IS_WRONG: Final = 2
"""Exit status for whatever the user has to mend in the file or on the command line."""

app = typer.Typer(
    name="gateway",
    help="An API gateway: routes.toml says which requests go where, and through what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="GATEWAY_CONFIG", help="The configuration file.")
]
_DEFAULT: Final = Path("routes.toml")


def main() -> None:
    """Run the command line."""
    # As for `python -m`: what the file names as "package.module" may stand in the working directory.
    sys.path.insert(0, os.getcwd())
    app()


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="In place of --config.", show_default=False)] = None,
    config: ConfigOption = _DEFAULT,
) -> None:
    """Say everything that is wrong with the file, and run its tests."""
    path = file or config
    checked = _loaded(path)
    errors = asyncio.run(problems_of(checked))
    if errors:
        _fail(ConfigErrors(errors))
    typer.echo(f"{path}: nothing wrong with {summary(checked)}")


@app.command()
def routes(config: ConfigOption = _DEFAULT) -> None:
    """List the routes in the order in which they are tried."""
    for line in route_list(_loaded(config)):
        typer.echo(line)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    typer.echo(json.dumps(file_schema(), indent=2))


@app.command()
def explain(
    method: Annotated[str, typer.Argument(help='As on the wire, such as "GET".')],
    url: Annotated[str, typer.Argument(help='Absolute, a path with its query, or "*".')],
    header: Annotated[list[str], typer.Option("--header", "-H", help='"name: value"; may be repeated.')] = [],  # noqa: B006 -- typer copies it
    cookie: Annotated[list[str], typer.Option("--cookie", "-b", help='"name=value"; may be repeated.')] = [],  # noqa: B006 -- typer copies it
    body: Annotated[str | None, typer.Option("--json", help="A JSON body.")] = None,
    client: Annotated[str, typer.Option(help="The IP address that the request comes from.")] = "127.0.0.1",
    config: ConfigOption = _DEFAULT,
) -> None:
    """Show what would become of a request, and why.

    Nothing is sent.
    """
    try:
        checked_method(method)
        checked_ip_address(client)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    request = ImaginedRequest(
        method,
        url,
        tuple(_pair(text, ":", "--header") for text in header),
        tuple(_pair(text, "=", "--cookie") for text in cookie),
        None if body is None else body.encode(),
        client,
    )
    checked = _loaded(config)
    with DryRun(checked) as dry_run:
        try:
            outcome = asyncio.run(dry_run.run(request))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    for line in explanation(checked, request, outcome):
        typer.echo(line)


@app.command()
def serve(
    config: ConfigOption = _DEFAULT,
    server: Annotated[
        Literal["hypercorn", "granian"] | None, typer.Option(help="In place of the file's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=512, help="Processes, in place of the file's.")
    ] = None,
    relay: Annotated[
        bool | None, typer.Option(help="Run the relay too; by default if the file has [[relay]] tables.")
    ] = None,
) -> None:
    """Serve the file until SIGTERM or Ctrl-C.

    A changed file is taken over at once, and on SIGHUP.
    """
    checked = _loaded(config)
    errors = asyncio.run(failed_expectations(checked))
    if errors:
        _fail(ConfigErrors(errors))
    try:
        status = serve_command(checked, config, server, workers, relay)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        typer.echo(f"gateway: {problem}", err=True)
        raise typer.Exit(CONFIG_IS_WRONG) from error
    raise typer.Exit(status)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"{PROXY_NAME} {importlib.metadata.version(PROXY_NAME)}")


def _loaded(path: Path) -> GatewayConfig:
    try:
        return load(path)
    except ConfigErrors as errors:
        _fail(errors)
        raise


def _fail(errors: ConfigErrors) -> None:
    for error in errors.errors:
        typer.echo(str(error), err=True)
    count = len(errors.errors)
    typer.echo(f"{count} error{'' if count == 1 else 's'}", err=True)
    raise typer.Exit(CONFIG_IS_WRONG)


def _pair(text: str, separator: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise typer.BadParameter(f'{text!r}: expected "name{separator}value"', param_hint=option)
    return name.strip(), value.strip()
