"""Endpoints named by a host name: which addresses it has now, for as long as the backend runs.

A name is asked again when DNS says that its answer has expired. While it cannot be resolved, the addresses
known before stay: an outage of DNS is no reason to stop serving.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from l4relay.dns.resolve import RETRY_S, ResolveError

if TYPE_CHECKING:
    from collections.abc import Callable

    from l4relay.dns.resolve import Resolution

logger = logging.getLogger("gateway.upstream")


class Resolver(Protocol):
    """Looks names up; `l4relay.dns.resolve.Resolver` is the one in use."""

    async def resolve(self, host: str) -> Resolution:
        """Return the addresses of `host` and how long they hold. Raises ResolveError."""
        ...


class NameFollower:
    """Tells the addresses of one host name whenever they change.

    Attributes:
        is_asked: set once the first answer, or the first failure, has come.
    """

    def __init__(
        self, host: str, resolver: Resolver, on_addresses: Callable[[tuple[str, ...]], None]
    ) -> None:
        self.is_asked = asyncio.Event()
        self._host = host
        self._resolver = resolver
        self._on_addresses = on_addresses

    async def run(self) -> None:
        """Follow the name until cancelled."""
        known: tuple[str, ...] = ()
        told = ""  # of a failure that lasts: it comes back with every question
        while True:
            try:
                resolution = await self._resolver.resolve(self._host)
            except ResolveError as error:
                if str(error) != told:
                    told = str(error)
                    logger.warning("%s: keeping %s", error, ", ".join(known) or "no address")
                expires_in_s = RETRY_S
            else:
                expires_in_s = resolution.expires_in_s
                addresses = one_family(resolution.addresses)
                if addresses != known or told:
                    told = ""
                    logger.info("%s is %s", self._host, ", ".join(addresses))
                if addresses != known:
                    known = addresses
                    self._on_addresses(addresses)
            self.is_asked.set()
            await asyncio.sleep(expires_in_s)


def one_family(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return the IPv4 addresses, or the IPv6 ones where there are no others, sorted.

    The two families of a name are the same servers twice. With both, a server that listens on one of them
    only ("localhost" in development) would be half broken.
    """
    ipv4 = [address for address in addresses if ":" not in address]
    return tuple(sorted(set(ipv4 or addresses)))
