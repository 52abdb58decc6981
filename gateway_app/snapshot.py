"""A configuration compiled into what requests run on: immutable, made beside the running one, then swapped.

Everything that can be decided before a request arrives is decided here: which middlewares a route runs and in
what order, with their options checked, and where it ends. What has to outlive a reload (pools, health, limit
counters, metrics) is handed over from the previous snapshot by identity.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.routes import captured_names, match_of
from gateway_app.forwarding_fields import with_host
from gateway_app.middleware.context import SharedObjects
from gateway_app.middleware.registry import build, resolve
from gateway_app.problem import Cause, GatewayError
from gateway_app.route import Route
from gateway_app.routing.host import HostReader
from gateway_app.routing.json_body import UNREAD
from gateway_app.routing.match import NEEDS_BODY, Entry, MatchError
from gateway_app.routing.resource import ResourceReader
from gateway_app.routing.table import RouteTable
from gateway_app.routing.target import TargetReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Scope

    from gateway_app.config.errors import ConfigError, KeyPath
    from gateway_app.config.model import GatewayConfig, MiddlewareConfig, RouteConfig
    from gateway_app.edge import Edge
    from gateway_app.exchange import Exchange
    from gateway_app.observe.metrics import Metrics
    from gateway_app.routing.match import Matched, Pending

    Terminal = Callable[[str], ASGIApp]
    """Gives the innermost application of the pipelines that end in the backend of that name."""


@runtime_checkable
class HasStartup(Protocol):
    """A middleware that prepares something before the first request."""

    async def startup(self) -> None:
        """Prepare; called once, on the event loop, before the snapshot is used."""
        ...


@runtime_checkable
class HasShutdown(Protocol):
    """A middleware that gives something back after the last request."""

    async def shutdown(self) -> None:
        """Clean up; called once, after the snapshot's last request has ended."""
        ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Snapshot:
    """What a request needs to know of the configuration. A request that began with one ends with it."""

    config: GatewayConfig
    table: RouteTable[Route]
    resources: ResourceReader[Route]
    edge: Edge
    shared: SharedObjects
    instances: tuple[ASGIApp, ...] = field(repr=False)

    def find_route(self, exchange: Exchange, scope: Scope, body: object = UNREAD) -> Route | None:
        """Bring the request's target into its normal form, in the scope too, and find its route.

        Returns None if a route asks for the JSON body, which must then be read and passed as `body`.

        Raises:
            GatewayError: the target or Host is malformed, or no route matches.

        """
        method, headers = scope["method"], scope["headers"]
        host, target, rules, certain = self.resources.read(
            method, headers[0][1], scope["raw_path"], scope["query_string"]
        )
        if target.authority is not None:
            scope["headers"] = with_host(headers, target.authority)
        exchange.host = host
        exchange.path = path = target.path
        scope["path"] = exchange.decoded_path = target.decoded
        scope["raw_path"] = exchange.raw_path = target.raw_path
        matched: Matched[Route] | Pending | None = certain
        if matched is None:
            if rules is not None:
                matched = self.table.first(rules, method, path, scope, body)
            else:
                matched = self.table.match(method, host, path, scope, body)
        if matched is None:
            raise GatewayError(Cause.NO_ROUTE)
        if matched is NEEDS_BODY:
            return None
        exchange.params = matched.params
        exchange.route = route = matched.value
        exchange.backend = route.backend
        return route

    async def startup(self) -> None:
        """Start the middlewares that have something to start; if one fails, those before it are shut down."""
        started: list[ASGIApp] = []
        try:
            for instance in self.instances:
                if isinstance(instance, HasStartup):
                    await instance.startup()
                    started.append(instance)
        except BaseException:
            for instance in started:
                if isinstance(instance, HasShutdown):
                    with suppress(Exception):  # the failure of the start is the one to tell
                        await instance.shutdown()
            raise

    async def shutdown(self) -> None:
        """Shut the middlewares down that have something to give back."""
        for instance in self.instances:
            if isinstance(instance, HasShutdown):
                await instance.shutdown()


def compile_snapshot(
    config: GatewayConfig,
    *,
    edge: Edge,
    metrics: Metrics,
    terminal: Terminal,
    previous: Snapshot | None = None,
) -> Snapshot:
    """Compile `config`. Nothing is started and `previous` is not altered.

    Args:
        config: A configuration that has been checked.
        edge: What every request passes first, made from the same configuration.
        metrics: This worker's; routes register what is counted of them.
        terminal: Gives the application that forwards to a backend; a dry run passes a recorder.
        previous: The snapshot whose middlewares' state is taken over.

    Raises:
        ConfigErrors: routes or middlewares that cannot work, all of them.

    """
    compiler = _Compiler(config, metrics, terminal, SharedObjects(previous.shared if previous else None))
    entries = [compiler.entry(route, index) for index, route in enumerate(config.routes)]
    problems = compiler.errors
    table: RouteTable[Route] | None = None
    if not problems:
        try:
            table = RouteTable([entry for entry in entries if entry is not None])
        except MatchError as error:
            problems.append(config.error(("routes",), str(error)))
    if table is None:
        raise ConfigErrors(problems)
    settings = config.gateway
    targets = TargetReader(encoded_slashes=settings.encoded_slashes, path_parameters=settings.path_parameters)
    return Snapshot(
        config,
        table,
        ResourceReader(targets, HostReader(), table),
        edge,
        compiler.shared,
        tuple(compiler.instances),
    )


class _Compiler:
    """Builds the pipelines of one snapshot and gathers everything that is wrong."""

    def __init__(
        self, config: GatewayConfig, metrics: Metrics, terminal: Terminal, shared: SharedObjects
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._terminal = terminal
        self.shared = shared
        self.errors: list[ConfigError] = []
        self.instances: list[ASGIApp] = []

    def entry(self, route: RouteConfig, index: int) -> Entry[Route] | None:
        """Compile a route; None if an error was noted."""
        names = (*self._config.gateway.middleware, *route.middleware)
        match = match_of(route.match)
        params = captured_names(route.match.path)
        app: ASGIApp | None
        if route.answer is not None:
            name = f"route {route.name}"  # no name that a middleware can have
            app = self._wrap(_nothing, name, route.answer, route, params, ("routes", index))
        else:
            assert route.backend is not None, "checked when the file was loaded"
            app = self._terminal(route.backend)
        for name in reversed(names):
            if app is not None:
                config = self._config.middleware[name]
                app = self._wrap(app, name, config, route, params, ("middleware", name))
        if app is None:
            return None
        return Entry(
            route.name,
            match,
            Route(route.name, app, route.backend or "", names, self._metrics.route(route.name)),
        )

    def _wrap(
        self,
        app: ASGIApp,
        name: str,
        config: MiddlewareConfig,
        route: RouteConfig,
        params: frozenset[str],
        path: KeyPath,
    ) -> ASGIApp | None:
        context = self.shared.context(name, route.name, config.type, config.options, params)
        try:
            instance = build(resolve(config.type), app, config.options, context)
        except Exception as error:  # a user's class may fail in any way; the file's line is what helps
            self.errors.append(self._config.error(path, f"cannot be built for route {route.name!r}: {error}"))
            return None
        self.instances.append(instance)
        return instance


async def _nothing(*_: object) -> None:
    """Stand in for the next application where a middleware answers by itself."""
