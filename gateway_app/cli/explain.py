"""`gateway explain`: what becomes of a request, step by step, for a person to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.cli.routes import conditions, destination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.backends import EndpointConfig
    from gateway_app.config.model import GatewayConfig, RouteConfig
    from gateway_app.dry_run import ForwardedRequest, ImaginedRequest, Outcome

_INDENT: Final = 12
_LONGEST_BODY: Final = 500


def explanation(config: GatewayConfig, request: ImaginedRequest, outcome: Outcome) -> Iterator[str]:
    """Yield the lines that tell what was decided, in the order in which it is."""
    yield f"{request.method} {request.url}"
    yield ""
    yield from _route(config, outcome)
    yield from _others(outcome)
    yield from _middlewares(config, outcome)
    if outcome.forwarded is not None:
        yield from _forwarded(outcome.forwarded)
        yield from _endpoints(config, outcome.forwarded.backend)
    else:
        yield from _answer(outcome)


def _route(config: GatewayConfig, outcome: Outcome) -> Iterator[str]:
    if outcome.route is None:
        why = "none matches" if outcome.explanation else "refused before routing"
        yield _line("route", why)
        return
    name = outcome.route.name
    place, route = next((place, route) for place, route in enumerate(config.routes) if route.name == name)
    source = config.source
    yield _line("route", f"{name}  ({source.file}:{source.lines.of(('routes', place))})")
    yield _line("", conditions(route.match))
    if outcome.explanation and outcome.explanation.matched and outcome.explanation.matched.params:
        params = outcome.explanation.matched.params
        yield _line("", "captures " + ", ".join(f"{key} = {value!r}" for key, value in params.items()))
    yield _line("", _goes_to(route))


def _goes_to(route: RouteConfig) -> str:
    return f"-> {destination(route)}"


def _others(outcome: Outcome) -> Iterator[str]:
    if outcome.explanation is None:
        return
    label = "not"
    for lost in outcome.explanation.lost:
        for reason in lost.reasons:
            yield _line(label, f"{lost.entry.name}: {reason.key}: {reason.text}")
            label = ""
    if outcome.explanation.omitted:
        yield _line("", f"and {outcome.explanation.omitted} more whose host or path differs")


def _middlewares(config: GatewayConfig, outcome: Outcome) -> Iterator[str]:
    if outcome.route is None:
        return
    label = "middleware"
    for number, name in enumerate(outcome.route.middleware, 1):
        yield _line(label, f"{number}. {name} ({config.middleware[name].type})")
        label = ""


def _forwarded(forwarded: ForwardedRequest) -> Iterator[str]:
    yield _line("forwards", f"{forwarded.method} {forwarded.target}")
    for name, value in forwarded.headers:
        yield _line("", f"{name}: {value}")


def _endpoints(config: GatewayConfig, backend: str) -> Iterator[str]:
    table = config.backends[backend]
    host = {"pass": "the Host as it is", "endpoint": "the endpoint's own Host"}.get(
        table.host, f"Host {table.host}"
    )
    yield _line("to", f"backend {backend}, {table.balance}, {host}")
    for endpoint in table.endpoints:
        yield _line("", _endpoint(endpoint))


def _endpoint(endpoint: EndpointConfig) -> str:
    weight = f"  weight {endpoint.weight:g}" if endpoint.weight != 1 else ""
    return f"{endpoint.url}{weight}{'  backup' if endpoint.backup else ''}"


def _answer(outcome: Outcome) -> Iterator[str]:
    because = f" ({outcome.error})" if outcome.error else ""
    yield _line("answers", f"{outcome.status or 'nothing'}{because}")
    for name, value in outcome.headers:
        yield _line("", f"{name}: {value}")
    if outcome.body:
        text = outcome.body.decode("utf-8", "replace")
        yield _line("", text if len(text) <= _LONGEST_BODY else f"{text[:_LONGEST_BODY]}…")


def _line(label: str, text: str) -> str:
    return f"{label:<{_INDENT}}{text}"
