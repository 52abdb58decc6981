"""The `[[test]]` tables of `routes.toml`: requests tried out, and compared with what must become of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_app.dry_run import DryRun, ImaginedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.model import GatewayConfig, TestConfig, TestExpectConfig
    from gateway_app.dry_run import Outcome


async def failed_expectations(config: GatewayConfig) -> tuple[ConfigError, ...]:
    """Run the tests of `config`, without touching anything that serves, and return what they find wrong.

    Raises:
        ConfigErrors: the configuration does not compile.

    """
    if not config.tests:
        return ()
    errors: list[ConfigError] = []
    with DryRun(config) as dry_run:
        for place, test in enumerate(config.tests):
            problems = await _problems(dry_run, test)
            errors += [
                config.error(("test", place, *path), f'test "{test.name}": {problem}')
                for path, problem in problems
            ]
    return tuple(errors)


async def _problems(dry_run: DryRun, test: TestConfig) -> list[tuple[tuple[str, ...], str]]:
    """Return what differs, with the key below the test that says what should have been."""
    try:
        outcome = await dry_run.run(ImaginedRequest.of(test.request))
    except ValueError as error:
        return [(("request", "url"), str(error))]
    return [(("expect", *path), problem) for path, problem in _differences(test.expect, outcome)]


def _differences(expect: TestExpectConfig, outcome: Outcome) -> Iterator[tuple[tuple[str, ...], str]]:
    route = outcome.route
    forwarded = outcome.forwarded
    ending = f": {_ending(outcome)}"
    if expect.route is not None and (route is None or route.name != expect.route):
        yield (
            ("route",),
            f'expected route "{expect.route}", found {_named(route.name if route else None)}{ending}',
        )
    if expect.middleware is not None and (route is None or route.middleware != expect.middleware):
        found = _list(route.middleware) if route else "no route"
        yield ("middleware",), f"expected {_list(expect.middleware)}, found {found}"
    if expect.backend is not None and (forwarded is None or forwarded.backend != expect.backend):
        found = _named(forwarded.backend if forwarded else None)
        yield ("backend",), f'expected backend "{expect.backend}", found {found}{ending}'
    if expect.path is not None:
        target = forwarded.target if forwarded else None
        if target is not None and "?" not in expect.path:
            target = target.partition("?")[0]
        if target != expect.path:
            yield ("path",), f'expected to forward "{expect.path}", found {_named(target)}{ending}'
    if expect.status is not None and outcome.status != expect.status:
        yield ("status",), f"expected the gateway to answer {expect.status}, but {_ending(outcome)}"
    for name, value in expect.header.items():
        found_values = [found for field, found in outcome.headers if field == name.lower()]
        if value not in found_values:
            found = " and ".join(map(_named, found_values)) or "no such field"
            yield ("header", name), f'expected "{value}", found {found}'


def _ending(outcome: Outcome) -> str:
    """Return how the request ended, as half a sentence."""
    if outcome.forwarded is not None:
        return f'it goes to backend "{outcome.forwarded.backend}"'
    because = f" ({outcome.error})" if outcome.error else ""
    return f"the gateway answers {outcome.status}{because}" if outcome.status else f"no answer{because}"


def _named(name: str | None) -> str:
    return "none" if name is None else f'"{name}"'


def _list(names: tuple[str, ...]) -> str:
    return f"[{', '.join(names)}]"
