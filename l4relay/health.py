"""Asking endpoints whether they are well.

TCP: a connection, or `send` and an answer that begins with `expect`. Where the relay sends a PROXY header the
check does, too: version 2's LOCAL says that the connection is the sender's own; version 1 has UNKNOWN for it.
UDP: a datagram and its reply; or, with nothing to send, an empty datagram that nobody refuses by ICMP.
"""

import asyncio
import errno
import random
import socket
import time
from typing import Final

from l4relay.config.model import HealthConfig, RelayConfig
from l4relay.endpoints import Endpoint, Group
from l4relay.listener import EXHAUSTED
from l4relay.proxy_protocol import LOCAL_V2, serialise_v1

_MAX_ANSWER_BYTES: Final = 65_536
_LOCAL_FAULTS: Final = EXHAUSTED | {errno.EAGAIN}
"""Descriptors or local ports are used up (ip(7), udp(7)): that says nothing about the endpoint."""


async def watch_health(group: Group, relay: RelayConfig) -> None:
    """Ask every endpoint of a group once an interval; runs until cancelled.

    Intervals vary by a tenth, so that many relays do not ask in step.
    """
    health = relay.health
    assert health is not None, "started for relays with health checks"
    while True:
        await asyncio.gather(*[_ask(group, endpoint, health, relay) for endpoint in group.endpoints])
        await asyncio.sleep(health.interval * random.uniform(0.9, 1.1))  # noqa: S311 - no secret


async def _ask(group: Group, endpoint: Endpoint, health: HealthConfig, relay: RelayConfig) -> None:
    try:
        async with asyncio.timeout(health.timeout):
            if relay.transport == "udp":
                is_well = await _is_well_over_udp(endpoint, health)
            else:
                is_well = await _is_well_over_tcp(endpoint, health, _header(relay))
    except TimeoutError:
        is_well = relay.transport == "udp" and not health.send  # no refusal is all that can be known
    except OSError as error:
        if error.errno in _LOCAL_FAULTS:
            return
        is_well = False
    needed = health.healthy_after if is_well else health.unhealthy_after
    group.checked(endpoint, is_well, needed, time.monotonic())


def _header(relay: RelayConfig) -> bytes:
    if relay.proxy_protocol is None:
        return b""
    return serialise_v1(None, None) if relay.proxy_protocol == "v1" else LOCAL_V2


async def _is_well_over_tcp(endpoint: Endpoint, health: HealthConfig, header: bytes) -> bool:
    loop = asyncio.get_running_loop()
    with socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, endpoint.address)
        if header or health.send:
            await loop.sock_sendall(sock, header + health.send)
        answer = b""
        while len(answer) < len(health.expect):
            segment = await loop.sock_recv(sock, len(health.expect) - len(answer))
            if not segment:
                return False
            answer += segment
        return answer == health.expect


async def _is_well_over_udp(endpoint: Endpoint, health: HealthConfig) -> bool:
    loop = asyncio.get_running_loop()
    with socket.socket(endpoint.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(endpoint.address)
        sock.send(health.send)
        answer = await loop.sock_recv(sock, _MAX_ANSWER_BYTES)
        return answer.startswith(health.expect)
