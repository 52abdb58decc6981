"""Which endpoints a backend has: as configured, as their names resolve, and as a reload hands them on.

A reload makes a new membership from the endpoints of the old one. Where the URL is still there the endpoint
stays the same object, with its connections, health and counters. Where a setting that its transport was made
from has changed, a new endpoint takes its place and inherits what is known about the address.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from gateway_app.upstream.background import Background
from gateway_app.upstream.resolution import NameFollower
from gateway_app.upstream.source import Source
from gateway_app.upstream.transport import StartsUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway_app.config.backends import BackendConfig
    from gateway_app.upstream.endpoint import Endpoint
    from gateway_app.upstream.health import HealthChecker
    from gateway_app.upstream.resolution import Resolver
    from gateway_app.upstream.transport import Transport


_FIRST_RESOLUTION_S: Final = 5.0
"""How long a start waits for names that have no address yet."""

_NOT_THE_TRANSPORTS: Final = {"endpoints", "balance", "hash_on", "retry", "health", "outlier"}
"""Settings that may change under a transport; for any other change it is made anew."""


class Membership:
    """The endpoints of one backend; holds them until `close`.

    Args:
        config: the backend's table.
        make_transport: makes an endpoint's transport; may raise for what cannot be made.
        resolver: looks host names up.
        health: probes the endpoints, None if nothing does.
        on_change: called when an endpoint comes, goes, or becomes available or unavailable.
        before: the endpoints of the backend that this one replaces.
        config_before: the table that their transports were made from, None if there was no such backend.

    Raises what `make_transport` raises.

    Attributes:
        endpoints: all of them now, available or not, in the order of the file.
    """

    def __init__(
        self,
        config: BackendConfig,
        make_transport: Callable[[Endpoint], Transport],
        resolver: Resolver,
        health: HealthChecker | None,
        on_change: Callable[[], None],
        before: Sequence[Endpoint] = (),
        config_before: BackendConfig | None = None,
    ) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self._config = config
        self._make_transport = make_transport
        self._resolver = resolver
        self._health = health
        self._on_change = on_change
        self._before = {endpoint.key: endpoint for endpoint in before}
        self._keeps_transports = config_before is not None and _same_transport(config, config_before)
        self._replaced: list[tuple[Endpoint, Endpoint]] = []
        self._following = Background()
        self._retiring = Background()
        self._sources = _sources_of(config)
        try:
            for source in self._sources:
                for address in source.first_addresses(before):
                    self._add(source, address)
        except BaseException:
            for source in self._sources:
                for endpoint in source.endpoints.values():
                    endpoint.let_go(on_change)  # else those that run already would never close
            raise
        self._list_endpoints()

    def take_over(self) -> None:
        """Join what is known about the endpoints with the configuration's settings.

        Called at the start and not before, since until then a reload may be given up and must change nothing.
        """
        for endpoint, old in self._replaced:
            endpoint.inherit(old)
        self._replaced.clear()
        self._before.clear()
        for source in self._sources:
            for endpoint in source.endpoints.values():
                endpoint.weight = source.entry.weight
                endpoint.is_backup = source.entry.backup
                if self._health is None:
                    endpoint.forget_probes()
                if self._config.outlier is None:
                    endpoint.readmit()

    async def start(self) -> None:
        """Begin to follow names and to probe; waits a moment for names without an address, then goes on.

        Applications in this process start meanwhile: one that fails is in the log before its first request.
        """
        for endpoint in self.endpoints:
            if isinstance(endpoint.transport, StartsUp):
                self._following.spawn(endpoint.transport.startup(), f"startup of {endpoint.key}")
        if self._health is not None:
            for endpoint in self.endpoints:
                self._health.watch(endpoint)
        unknown = self._follow_names()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_RESOLUTION_S):
                for follower in unknown:
                    await follower.is_asked.wait()

    async def stop(self) -> None:
        """End following names and probing."""
        await self._following.cancel()
        if self._health is not None:
            await self._health.aclose()

    async def close(self) -> None:
        """Let go of all endpoints, after a `stop`; wait until those that nobody else holds have closed."""
        for source in self._sources:
            for endpoint in source.endpoints.values():
                self._drop(endpoint)
            source.endpoints.clear()
        await self._retiring.join()

    def _follow_names(self) -> list[NameFollower]:
        """Follow the sources that are names; returns the followers of those without an address."""
        waited_for = []
        for source in self._sources:
            if source.name:
                follower = NameFollower(source.name, self._resolver, self._updater_of(source))
                self._following.spawn(follower.run(), f"resolution of {source.name}")
                if not source.endpoints:
                    waited_for.append(follower)
        return waited_for

    def _updater_of(self, source: Source) -> Callable[[tuple[str, ...]], None]:
        def update(addresses: tuple[str, ...]) -> None:
            gone = [address for address in source.endpoints if address not in addresses]
            dropped = [source.endpoints.pop(address) for address in gone]
            for address in addresses:
                if address not in source.endpoints:
                    endpoint = self._add(source, address)
                    if self._health is not None:
                        self._health.watch(endpoint)
            self._list_endpoints()
            self._on_change()
            for endpoint in dropped:
                self._drop(endpoint)

        return update

    def _add(self, source: Source, address: str) -> Endpoint:
        """Give `source` the endpoint at `address`: the one from before, or one that learns from it."""
        endpoint = source.make_endpoint(address)
        old = self._before.get(endpoint.key)
        if old is not None and self._keeps_transports:
            endpoint = old
        else:
            endpoint.transport = self._make_transport(endpoint)
            if old is not None:
                self._replaced.append((endpoint, old))
        endpoint.hold(self._on_change)
        source.endpoints[address] = endpoint
        return endpoint

    def _drop(self, endpoint: Endpoint) -> None:
        is_last = endpoint.let_go(self._on_change)
        self._retiring.spawn(self._leave(endpoint, is_last=is_last), f"retirement of {endpoint.key}")

    async def _leave(self, endpoint: Endpoint, *, is_last: bool) -> None:
        if self._health is not None:
            await self._health.forget(endpoint)
        if is_last:
            await endpoint.retire()

    def _list_endpoints(self) -> None:
        self.endpoints = tuple(endpoint for source in self._sources for endpoint in source.endpoints.values())


def _sources_of(config: BackendConfig) -> tuple[Source, ...]:
    return tuple(Source(entry) for entry in config.endpoints)


def _same_transport(config: BackendConfig, other: BackendConfig) -> bool:
    return config.model_dump(exclude=_NOT_THE_TRANSPORTS) == other.model_dump(exclude=_NOT_THE_TRANSPORTS)
