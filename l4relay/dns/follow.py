"""Keeping the endpoints that are written as names where DNS says they are."""

import asyncio
import logging

from l4relay.addresses import InetAddress
from l4relay.config.model import EndpointConfig
from l4relay.dns.resolve import RETRY_S, ResolveError, Resolver
from l4relay.endpoints import Group

LastAddresses = dict[InetAddress, list[InetAddress]]

_log = logging.getLogger(__name__)


async def follow_names(
    group: Group, config: EndpointConfig, address: InetAddress, resolver: Resolver, last: LastAddresses
) -> None:
    """Resolve one entry of a list, again whenever the answer has expired; runs until cancelled.

    While a name cannot be resolved, its last addresses stay: an endpoint that moves is rarer than a
    nameserver that fails. `last` has them for the list that takes this one's place at a reload.
    """
    told = ""  # of a failure that lasts: it comes back with every question
    if address in last:
        group.set_addresses(config, last[address])
    while True:
        expires_in_s = RETRY_S
        try:
            resolution = await resolver.resolve(address.host)
            expires_in_s = resolution.expires_in_s
            last[address] = [InetAddress(each, address.port) for each in resolution.addresses]
            told = ""
        except ResolveError as error:
            if str(error) != told:
                told = str(error)
                _log.warning("%s", error)
        group.set_addresses(config, last.get(address, []))
        await asyncio.sleep(expires_in_s)
