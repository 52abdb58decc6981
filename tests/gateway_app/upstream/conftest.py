"""A backend of `http://127.0.0.1` endpoints whose transports only note that they were closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from starlette.types import Scope

from gateway_app.config.model import BackendConfig, EndpointConfig
from gateway_app.exchange import Exchange
from gateway_app.upstream.backend import Backend
from gateway_app.upstream.endpoint import Endpoint
from gateway_app.upstream.transport import Transport
from l4relay.resolve import Resolver


class NotingTransport:
    """Carries nothing."""

    def __init__(self) -> None:
        self.is_closed = False

    def status(self) -> dict[str, int]:
        return {"open": 0}

    async def aclose(self) -> None:
        self.is_closed = True


class Bench:
    """Makes backends, and closes them in the end."""

    def __init__(self) -> None:
        self.backends: list[Backend] = []
        self.transports: dict[str, list[NotingTransport]] = {}
        self.resolver = Resolver()

    @staticmethod
    def config(*endpoints: int | str | EndpointConfig, **settings: Any) -> BackendConfig:
        """A number stands for a port of 127.0.0.1."""
        entries = tuple(
            entry
            if isinstance(entry, EndpointConfig)
            else EndpointConfig(url=f"http://127.0.0.1:{entry}" if isinstance(entry, int) else entry)
            for entry in endpoints
        )
        return BackendConfig(endpoints=entries, **settings)

    def make(self, config: BackendConfig, previous: Backend | None = None) -> Backend:
        def transport(endpoint: Endpoint, config: BackendConfig) -> Transport:
            noting = NotingTransport()
            self.transports.setdefault(endpoint.key, []).append(noting)
            return cast("Transport", noting)

        backend = Backend("users", config, transport, self.resolver, previous, rng=random.Random(1))
        self.backends.append(backend)
        return backend

    def of(self, *endpoints: int | str | EndpointConfig, **settings: Any) -> Backend:
        return self.make(self.config(*endpoints, **settings))

    async def close(self) -> None:
        for backend in self.backends:
            await backend.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("id", "192.0.2.7", "http", 0.0, 1000)


@pytest.fixture
def scope() -> Scope:
    return {"type": "http", "method": "GET", "headers": [(b"host", b"example.com")]}


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Any]:
    """Waits until a condition holds that no event announces."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 -- there is no event for every condition
                await asyncio.sleep(0.005)

    return wait
