"""One entry of a backend's `endpoints`: an address, or a name that stands for one endpoint an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_app.upstream.endpoint import Endpoint, EndpointUrl
from l4relay.addresses import ip_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_app.config.backends import EndpointConfig

LITERAL = ""
"""Stands for the address in a source that is no name."""


class Source:
    """An entry and the endpoints that it stands for now.

    Attributes:
        entry: as configured.
        name: the host name to resolve, "" if the entry is an address, a socket or an application.
        endpoints: by address; a source that is no name has one, under `LITERAL`.
    """

    def __init__(self, entry: EndpointConfig) -> None:
        url = EndpointUrl.parse(entry.url)
        self.entry = entry
        self.name = url.host if url.host and ip_bytes(url.host) is None else ""
        self.endpoints: dict[str, Endpoint] = {}

    def first_addresses(self, before: Iterable[Endpoint]) -> list[str]:
        """Return the addresses to begin with: of a name, those that the endpoints `before` a reload had."""
        if not self.name:
            return [LITERAL]
        return [endpoint.host for endpoint in before if endpoint.url == self.entry.url]

    def make_endpoint(self, address: str) -> Endpoint:
        """Make the endpoint at `address`, without a transport."""
        entry = self.entry
        return Endpoint(entry.url, address or None, weight=entry.weight, is_backup=entry.backup)
