"""What a file says to the relay; `docs/relay.md` is the reference of its keys. Durations are in seconds."""

from dataclasses import dataclass
from typing import Literal

from l4relay.addresses import Address, ListenAddress, Transport
from l4relay.config.quantities import Rate

ProxyVersion = Literal["v1", "v2", "v2-crc32c"]


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """One address of a relay's service.

    Attributes:
        address: Where it is; a name is resolved again as DNS says.
        weight: Its share of the traffic; 0 gives it nothing new.
        backup: Used only while no other is healthy.

    """

    address: Address
    weight: int = 1
    backup: bool = False


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Asking an endpoint whether it is well.

    Attributes:
        interval: Seconds between two questions.
        timeout: Seconds to wait for the connection, or the answer.
        healthy_after: Good answers in a row that bring a downed endpoint back.
        unhealthy_after: Bad ones in a row that take it down.
        send: Bytes to send; empty over TCP: connecting is enough; empty over UDP: an empty datagram, and
            only an ICMP refusal counts as bad.
        expect: Bytes that the answer to `send` begins with; empty: over UDP any answer does, over TCP none
            is awaited.

    """

    interval: float = 5.0
    timeout: float = 1.0
    healthy_after: int = 2
    unhealthy_after: int = 3
    send: bytes = b""
    expect: bytes = b""


@dataclass(frozen=True, slots=True)
class OutlierConfig:
    """Taking an endpoint out because live connections to it fail.

    Attributes:
        consecutive_failures: Failures in a row that eject it.
        eject_for: Seconds that it is out.
        max_ejected: The share of the endpoints that may be out at a time; one always may where there are two.

    """

    consecutive_failures: int = 5
    eject_for: float = 30.0
    max_ejected: float = 0.5


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """One `[[relay]]` table; 0 and None: no bound, or not at all."""

    name: str
    listen: tuple[ListenAddress, ...]
    endpoints: tuple[EndpointConfig, ...]
    balance: str = "round_robin"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_connections: int = 0
    max_connections_per_source: int = 0
    max_rate_per_source: Rate | None = None
    connect_timeout: float = 5.0
    connect_attempts: int = 3
    handshake_timeout: float = 5.0
    idle_timeout: float = 350.0
    slow_start: float = 0.0
    splice: bool = True
    proxy_protocol: ProxyVersion | None = None
    accept_proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    sni: tuple[tuple[str, tuple[EndpointConfig, ...]], ...] = ()
    responses: int = 0
    max_sessions: int = 10_000
    health: HealthConfig | None = None
    outlier: OutlierConfig = OutlierConfig()

    @property
    def transport(self) -> Transport:
        """What it relays; a relay's addresses are all of one kind."""
        return self.listen[0].transport


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The `[l4relay]` table.

    Attributes:
        workers: Processes that share the ports.
        admin: Loopback address of metrics and status; None: neither.
        drain: Seconds that a stop waits for connections to end.
        log: One line a connection on standard output, as JSON, or none.

    """

    workers: int = 1
    admin: Address | None = None
    drain: float = 30.0
    log: Literal["json", "off"] = "json"


@dataclass(frozen=True, slots=True)
class Config:
    """What one file says to the relay."""

    process: ProcessConfig
    relays: tuple[RelayConfig, ...]
