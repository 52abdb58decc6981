"""Keeping the endpoints that are written as names where DNS says they are."""

import asyncio
import logging

from l4relay.addresses import InetAddress
from l4relay.config import EndpointConfig
from l4relay.endpoints import Group
from l4relay.resolve import ResolveError, Resolver

_log = logging.getLogger(__name__)


async def follow_names(
    group: Group, config: EndpointConfig, address: InetAddress, resolver: Resolver
) -> None:
    """Resolve one entry of a list, again whenever the answer has expired; runs until cancelled.

    While a name cannot be resolved, its last addresses stay: an endpoint that moves is rarer than a
    nameserver that fails.
    """
    while True:
        try:
            resolution = await resolver.resolve(address.host, address.port)
        except ResolveError as error:
            _log.warning("%s", error)
            expires_in_s = error.expires_in_s
            group.not_resolved(config)
        else:
            expires_in_s = resolution.expires_in_s
            group.set_addresses(config, [InetAddress(each, address.port) for each in resolution.addresses])
        await asyncio.sleep(expires_in_s)
