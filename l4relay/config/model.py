"""What a file says to the relay; `docs/relay.md` is the reference of its keys. Durations are in seconds.

Each key is a field, annotated with the converter of what TOML has for it.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from l4relay.addresses import Address, ListenAddress, Transport
from l4relay.balance import POLICIES
from l4relay.config import values
from l4relay.config.quantities import Rate, parse_rate
from l4relay.config.values import Mistakes

_SERVER_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}", re.ASCII)

ProxyVersion = Literal["v1", "v2", "v2-crc32c"]
Flag = Annotated[bool, values.boolean]
Count = Annotated[int, values.whole(1)]
Duration = Annotated[float, values.duration]
Networks = Annotated[tuple[str, ...], values.networks]


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """One address of a relay's service; one that is a name is resolved again as DNS says."""

    address: Annotated[Address, values.address]
    weight: Annotated[int, values.whole(0, 1_000_000)] = 1
    backup: Flag = False


Endpoints = tuple[EndpointConfig, ...]


def endpoints(raw: object) -> Endpoints:
    """Return a list of endpoints, each a table or its address alone."""
    if not isinstance(raw, list) or not raw:
        raise ValueError(f'expected a list such as ["127.0.0.1:5432"], not {raw!r}')
    mistakes = Mistakes()
    found: dict[Address, EndpointConfig] = {}
    for place, each in enumerate(raw):
        with mistakes.at(place):
            if not isinstance(each, str | dict):
                raise ValueError(f"expected an address or a table, not {each!r}")
            endpoint = values.table(EndpointConfig)({"address": each} if isinstance(each, str) else each)
            if endpoint.address in found:
                raise ValueError(f'"{endpoint.address}" is listed twice; write a weight instead')
            found[endpoint.address] = endpoint
    mistakes.raise_any()
    return tuple(found.values())


def server_names(raw: object) -> tuple[tuple[str, Endpoints], ...]:
    """Return each pattern of names, in lower case, with its endpoints."""
    mistakes = Mistakes()
    written: dict[str, str] = {}
    found: dict[str, Endpoints] = {}
    for pattern, each in values.mapping(raw).items():
        name = pattern.lower().rstrip(".")
        if not _SERVER_NAME.fullmatch(pattern):
            mistakes.add('expected a host name such as "a.example.com" or "*.example.com"', pattern)
        elif written.setdefault(name, pattern) != pattern:
            mistakes.add(f'is the same name as "{written[name]}"', pattern)
        with mistakes.at(pattern):
            found[name] = endpoints(each)
    mistakes.raise_any()
    return tuple(found.items())


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Asking an endpoint whether it is well; `send` and `expect` are empty where connecting is enough."""

    interval: Duration = 5.0
    timeout: Duration = 1.0
    healthy_after: Count = 2
    unhealthy_after: Count = 3
    send: Annotated[bytes, values.latin1] = b""
    expect: Annotated[bytes, values.latin1] = b""


@dataclass(frozen=True, slots=True)
class OutlierConfig:
    """Taking an endpoint out because live connections to it fail."""

    consecutive_failures: Count = 5
    eject_for: Duration = 30.0
    max_ejected: Annotated[float, values.share] = 0.5


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """One `[[relay]]` table; 0 and None: no bound, or not at all."""

    name: Annotated[str, values.name]
    listen: Annotated[tuple[ListenAddress, ...], values.listens]
    endpoints: Annotated[Endpoints, endpoints]
    balance: Annotated[str, values.one_of(*POLICIES)] = "round_robin"
    allow: Networks = ()
    deny: Networks = ()
    max_connections: Count = 0
    max_connections_per_source: Count = 0
    max_rate_per_source: Annotated[Rate | None, parse_rate] = None
    connect_timeout: Duration = 5.0
    connect_attempts: Annotated[int, values.whole(1, 100)] = 3
    handshake_timeout: Duration = 5.0
    idle_timeout: Duration = 350.0
    slow_start: Duration = 0.0
    splice: Flag = True
    proxy_protocol: Annotated[ProxyVersion | None, values.one_of(*get_args(ProxyVersion))] = None
    accept_proxy_protocol: Flag = False
    trusted_proxies: Networks = ()
    sni: Annotated[tuple[tuple[str, Endpoints], ...], server_names] = ()
    responses: Count = 0
    max_sessions: Count = 10_000
    health: Annotated[HealthConfig | None, values.table(HealthConfig)] = None
    outlier: Annotated[OutlierConfig, values.table(OutlierConfig)] = OutlierConfig()

    @property
    def transport(self) -> Transport:
        """What it relays; a relay's addresses are all of one kind."""
        return self.listen[0].transport


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The `[l4relay]` table: the process itself."""

    workers: Annotated[int, values.whole(1, 256)] = 1
    admin: Annotated[Address | None, values.loopback] = None
    drain: Duration = 30.0
    log: Annotated[Literal["json", "off"], values.one_of("json", "off")] = "json"


@dataclass(frozen=True, slots=True)
class Config:
    """What one file says to the relay."""

    process: ProcessConfig
    relays: tuple[RelayConfig, ...]
