"""What the relay reads from `routes.toml`: the `[[relay]]` tables and `[l4relay]`, the process itself.

Everything wrong is reported at once, each with file, line, key and what was expected. The other tables of the
file are the gateway's and are not looked at, but for `[gateway] trusted_proxies`, which says for both whose
PROXY headers are believed.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from l4relay.addresses import (
    Address,
    ListenAddress,
    Transport,
    UnixAddress,
    parse_address,
    parse_listen_address,
    parse_network,
)
from l4relay.balance import POLICIES
from l4relay.quantities import Rate, parse_duration, parse_rate
from l4relay.table import ConfigError, Problems, Table

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
    """One `[[relay]]` table; `docs/relay.md` is the reference of its keys. Durations are in seconds."""

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


_TCP_ONLY: Final = (
    *("connect_timeout", "connect_attempts", "handshake_timeout", "splice", "proxy_protocol"),
    *("accept_proxy_protocol", "trusted_proxies", "sni", "max_connections", "max_connections_per_source"),
)
_UDP_ONLY: Final = ("responses", "max_sessions")
_DEFAULT_UDP_IDLE_TIMEOUT_S: Final = 60.0
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def load(path: Path) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: with everything that is wrong.
        OSError: it cannot be read.

    """
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, file: str) -> Config:
    """Check a document; `file` is its name in messages.

    Raises:
        ConfigError: with everything that is wrong.

    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file}: not valid TOML: {error}"]) from error
    problems = Problems(file, text)
    process = _process(Table(problems, ("l4relay",), document.get("l4relay", {})))
    gateway = document.get("gateway")
    trusted = gateway.get("trusted_proxies", []) if isinstance(gateway, dict) else []
    tables = document.get("relay", [])
    if not isinstance(tables, list) or not tables:
        problems.add(("relay",), "expected at least one [[relay]] table")
        tables = []
    relays = [_relay(Table(problems, ("relay", index), raw), trusted) for index, raw in enumerate(tables)]
    _check_apart(problems, relays)
    problems.raise_all()
    return Config(process, tuple(relays))


def _process(table: Table) -> ProcessConfig:
    process = ProcessConfig(
        workers=table.take("workers", _whole(1, 256), 1),
        admin=table.take("admin", _loopback, None),
        drain=table.take("drain", parse_duration, 30.0),
        log=table.take("log", _one_of("json", "off"), "json"),
    )
    table.refuse_others(_names(ProcessConfig))
    return process


def _relay(table: Table, gateway_trusted: object) -> RelayConfig:
    listen = table.require("listen", _listen, ())
    is_udp = bool(listen) and listen[0].transport == "udp"
    for key in _TCP_ONLY if is_udp else _UDP_ONLY:
        if table.has(key):
            table.problem(key, f"has no meaning for a {'UDP' if is_udp else 'TCP'} relay")
    accepts = table.take("accept_proxy_protocol", _boolean, False)
    trusted = table.take("trusted_proxies", _networks, gateway_trusted if accepts else [])
    if accepts and not trusted:
        table.problem(
            "accept_proxy_protocol", 'needs trusted_proxies = ["10.0.0.0/8", …]: who may send a header'
        )
    relay = RelayConfig(
        name=table.require("name", _name, ""),
        listen=listen,
        endpoints=table.require("endpoints", _endpoints(table, "endpoints"), ()),
        balance=table.take("balance", _one_of(*POLICIES), "round_robin"),
        allow=table.take("allow", _networks, ()),
        deny=table.take("deny", _networks, ()),
        max_connections=table.take("max_connections", _whole(1), 0),
        max_connections_per_source=table.take("max_connections_per_source", _whole(1), 0),
        max_rate_per_source=table.take("max_rate_per_source", parse_rate, None),
        connect_timeout=table.take("connect_timeout", parse_duration, 5.0),
        connect_attempts=table.take("connect_attempts", _whole(1, 100), 3),
        handshake_timeout=table.take("handshake_timeout", parse_duration, 5.0),
        idle_timeout=table.take(
            "idle_timeout", parse_duration, _DEFAULT_UDP_IDLE_TIMEOUT_S if is_udp else 350.0
        ),
        slow_start=table.take("slow_start", parse_duration, 0.0),
        splice=table.take("splice", _boolean, True),
        proxy_protocol=table.take("proxy_protocol", _one_of("v1", "v2", "v2-crc32c"), None),
        accept_proxy_protocol=accepts,
        trusted_proxies=tuple(trusted),
        sni=_sni(table),
        responses=table.take("responses", _whole(1), 0),
        max_sessions=table.take("max_sessions", _whole(1), 10_000),
        health=_health(table),
        outlier=_outlier(table),
    )
    table.refuse_others(_names(RelayConfig))
    return relay


def _sni(table: Table) -> tuple[tuple[str, tuple[EndpointConfig, ...]], ...]:
    names = table.child("sni")
    if names is None:
        return ()
    return tuple(
        (_server_name(names, name), names.require(name, _endpoints(names, name), ())) for name in names
    )


def _server_name(table: Table, name: str) -> str:
    if "*" in name.removeprefix("*.") or not name.removeprefix("*."):
        table.problem(name, 'expected a host name such as "a.example.com" or "*.example.com"')
    return name.lower().rstrip(".")


def _health(table: Table) -> HealthConfig | None:
    health = table.child("health")
    if health is None:
        return None
    config = HealthConfig(
        interval=health.take("interval", parse_duration, 5.0),
        timeout=health.take("timeout", parse_duration, 1.0),
        healthy_after=health.take("healthy_after", _whole(1), 2),
        unhealthy_after=health.take("unhealthy_after", _whole(1), 3),
        send=health.take("send", _bytes, b""),
        expect=health.take("expect", _bytes, b""),
    )
    health.refuse_others(_names(HealthConfig))
    return config


def _outlier(table: Table) -> OutlierConfig:
    outlier = table.child("outlier")
    if outlier is None:
        return OutlierConfig()
    config = OutlierConfig(
        consecutive_failures=outlier.take("consecutive_failures", _whole(1), 5),
        eject_for=outlier.take("eject_for", parse_duration, 30.0),
        max_ejected=outlier.take("max_ejected", _share, 0.5),
    )
    outlier.refuse_others(_names(OutlierConfig))
    return config


def _check_apart(problems: Problems, relays: list[RelayConfig]) -> None:
    """Two relays can share neither a name nor an address."""
    names: dict[str, int] = {}
    listeners: dict[ListenAddress, str] = {}
    for index, relay in enumerate(relays):
        first = names.setdefault(relay.name, index)
        if relay.name and first != index:
            problems.add(("relay", index, "name"), f"{relay.name!r} is relay {first + 1}'s name already")
        for address in relay.listen:
            owner = listeners.setdefault(address, relay.name)
            if owner != relay.name and not _is_any_port(address):
                problems.add(("relay", index, "listen"), f'"{address}" is taken by relay {owner!r}')


def _is_any_port(listen: ListenAddress) -> bool:
    return not isinstance(listen.address, UnixAddress) and listen.address.port == 0


# ---------------------------------------------------------------- one value: converted, or ValueError


def _names(model: type) -> list[str]:
    return [field.name for field in fields(model)]


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"expected true or false, not {raw!r}")
    return raw


def _whole(least: int, most: int = 1 << 31) -> Callable[[object], int]:
    def convert(raw: object) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool) or not least <= raw <= most:
            bound = f"of at least {least}" if most == 1 << 31 else f"from {least} to {most}"
            raise ValueError(f"expected a whole number {bound}, not {raw!r}")
        return raw

    return convert


def _share(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 1:
        raise ValueError(f"expected a share from 0 to 1, not {raw!r}")
    return float(raw)


def _one_of(*words: str) -> Callable[[object], Any]:
    def convert(raw: object) -> str:
        if raw not in words:
            raise ValueError(f"expected {' or '.join(repr(word) for word in words)}, not {raw!r}")
        return str(raw)

    return convert


def _name(raw: object) -> str:
    if not isinstance(raw, str) or not raw or not raw.isprintable():
        raise ValueError(f"expected a name, not {raw!r}")
    return raw


def _bytes(raw: object) -> bytes:
    if not isinstance(raw, str) or not raw:
        raise ValueError(f'expected text such as "PING\\r\\n", not {raw!r}')
    try:
        return raw.encode("latin-1")  # "\\u0000" to "\\u00ff" stand for the single bytes
    except UnicodeEncodeError as error:
        raise ValueError('write each byte above 0x7f as "\\u0080" to "\\u00ff"') from error


def _loopback(raw: object) -> Address:
    address = parse_address(_text(raw), port_zero_allowed=True)
    if not isinstance(address, UnixAddress) and address.host not in _LOOPBACK:
        raise ValueError(f'expected a loopback address such as "127.0.0.1:9091", not {raw!r}')
    return address


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected text in quotes, not {raw!r}")
    return raw


def _networks(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple):
        raise ValueError(f'expected a list such as ["10.0.0.0/8"], not {raw!r}')
    for network in raw:
        parse_network(_text(network))
    return tuple(raw)


def _listen(raw: object) -> tuple[ListenAddress, ...]:
    texts = raw if isinstance(raw, list) and raw else [raw]
    addresses = tuple(parse_listen_address(_text(text)) for text in texts)
    if len({address.transport for address in addresses}) > 1:
        raise ValueError("TCP and UDP want a relay each: settings and life cycle differ")
    return addresses


def _endpoints(table: Table, key: str) -> Callable[[object], tuple[EndpointConfig, ...]]:
    """Return a converter of a list of endpoints; each element reports its own problems."""

    def convert(raw: object) -> tuple[EndpointConfig, ...]:
        if not isinstance(raw, list) or not raw:
            raise ValueError(f'expected a list such as ["127.0.0.1:5432"], not {raw!r}')
        endpoints = [_endpoint(table.element(key, index, each)) for index, each in enumerate(raw)]
        addresses = [endpoint.address for endpoint in endpoints if endpoint is not None]
        for address in {address for address in addresses if addresses.count(address) > 1}:
            raise ValueError(f'"{address}" is listed twice; write a weight instead')
        return tuple(endpoint for endpoint in endpoints if endpoint is not None)

    return convert


def _endpoint(table: Table) -> EndpointConfig | None:
    address = table.require("address", lambda raw: parse_address(_text(raw)), None)
    weight = table.take("weight", _whole(0, 1_000_000), 1)
    backup = table.take("backup", _boolean, False)
    table.refuse_others(_names(EndpointConfig))
    return EndpointConfig(address, weight, backup) if address is not None else None
