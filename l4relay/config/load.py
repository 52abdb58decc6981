"""Reading a file: its `[[relay]]` tables and `[l4relay]`, the process itself.

Everything wrong is reported at once, each with file, line, key and what was expected. The other tables of the
file are the gateway's and are not looked at, but for `[gateway] trusted_proxies`, which says for both whose
PROXY headers are believed.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from l4relay.addresses import ListenAddress, UnixAddress, parse_address
from l4relay.balance import POLICIES
from l4relay.config.model import (
    Config,
    EndpointConfig,
    HealthConfig,
    OutlierConfig,
    ProcessConfig,
    RelayConfig,
)
from l4relay.config.table import ConfigError, Problem, Problems, Table
from l4relay.config.values import (
    boolean,
    duration,
    latin1,
    listens,
    loopback,
    name,
    networks,
    one_of,
    rate,
    share,
    text,
    whole,
)

_TCP_ONLY: Final = (
    *("connect_timeout", "connect_attempts", "handshake_timeout", "splice", "proxy_protocol"),
    *("accept_proxy_protocol", "trusted_proxies", "sni", "max_connections", "max_connections_per_source"),
)
_UDP_ONLY: Final = ("responses", "max_sessions")
_UDP_IDLE_TIMEOUT: Final = "60s"
_SERVER_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}", re.ASCII)

Endpoints = tuple[EndpointConfig, ...]


def load(path: Path) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: with everything that is wrong.
        OSError: it cannot be read.

    """
    return parse(path.read_text(encoding="utf-8"), str(path), is_alone=True)


def parse(document: str, file: str, *, is_alone: bool = False) -> Config:
    """Check a document; `file` is its name in messages.

    With `is_alone` nobody else checks the names of tables, so one that is nearly the relay's is a mistake.

    Raises:
        ConfigError: with everything that is wrong.

    """
    try:
        tables = tomllib.loads(document)
    except (ValueError, RecursionError) as error:  # ValueError: a number of over 4,300 digits, too
        raise ConfigError([Problem(file, 0, "", f"not valid TOML: {error}")]) from error
    problems = Problems(file, document)
    process = Table(problems, ("l4relay",), tables.get("l4relay", {})).fill(
        ProcessConfig, workers=whole(1, 256), admin=loopback, drain=duration, log=one_of("json", "off")
    )
    for key in tables.keys() - {"l4relay", "relay"} if is_alone else ():
        if near := difflib.get_close_matches(key.lower(), ("l4relay", "relay"), n=1, cutoff=0.8):
            problems.add((key,), f'is no known table; did you mean "{near[0]}"?')
    found = tables.get("relay", [])
    if not isinstance(found, list) or not found:
        problems.add(("relay",), "expected at least one [[relay]] table")
        found = []
    gateway = tables.get("gateway")
    trusted = gateway.get("trusted_proxies", []) if isinstance(gateway, dict) else []
    if isinstance(trusted, list):  # the peers of our Unix sockets are believed anyway
        trusted = [proxy for proxy in trusted if proxy != "unix:"]
    relays = [_relay(Table(problems, ("relay", at), each), trusted) for at, each in enumerate(found)]
    _check_apart(problems, relays)
    problems.raise_all()
    return Config(process or ProcessConfig(), tuple(relay for relay in relays if relay is not None))


def _relay(table: Table, gateway_trusted: object) -> RelayConfig | None:
    is_udp = _is_udp(table.get("listen"))
    for key in _TCP_ONLY if is_udp else _UDP_ONLY:
        if key in table:
            table.problem(key, f"has no meaning for a {'UDP' if is_udp else 'TCP'} relay")
    if is_udp:
        table.set_default("idle_timeout", _UDP_IDLE_TIMEOUT)
    if table.get("accept_proxy_protocol") is True:
        table.set_default("trusted_proxies", gateway_trusted)
        if not table.get("trusted_proxies"):
            remedy = 'needs trusted_proxies = ["10.0.0.0/8", …]: who may send a header'
            table.problem("accept_proxy_protocol", remedy)
    return table.fill(
        RelayConfig,
        name=name,
        listen=listens,
        endpoints=_endpoints(table, "endpoints"),
        balance=one_of(*POLICIES),
        allow=networks,
        deny=networks,
        max_connections=whole(1),
        max_connections_per_source=whole(1),
        max_rate_per_source=rate,
        connect_timeout=duration,
        connect_attempts=whole(1, 100),
        handshake_timeout=duration,
        idle_timeout=duration,
        slow_start=duration,
        splice=boolean,
        proxy_protocol=one_of("v1", "v2", "v2-crc32c"),
        accept_proxy_protocol=boolean,
        trusted_proxies=networks,
        sni=lambda _: tuple(_sni(table.child("sni"))),
        responses=whole(1),
        max_sessions=whole(1),
        health=lambda _: table.child("health").fill(
            HealthConfig,
            interval=duration,
            timeout=duration,
            healthy_after=whole(1),
            unhealthy_after=whole(1),
            send=latin1,
            expect=latin1,
        ),
        outlier=lambda _: table.child("outlier").fill(
            OutlierConfig, consecutive_failures=whole(1), eject_for=duration, max_ejected=share
        ),
    )


def _is_udp(listen: object) -> bool:
    first = listen[0] if isinstance(listen, list) and listen else listen
    return isinstance(first, str) and first.startswith("udp://")


def _sni(names: Table) -> Iterator[tuple[str, Endpoints]]:
    known: dict[str, str] = {}
    for pattern in names:
        name = pattern.lower().rstrip(".")
        if not _SERVER_NAME.fullmatch(pattern):
            names.problem(pattern, 'expected a host name such as "a.example.com" or "*.example.com"')
        elif known.setdefault(name, pattern) != pattern:
            names.problem(pattern, f'is the same name as "{known[name]}"')
        yield name, names.take(pattern, _endpoints(names, pattern)) or ()


def _endpoints(table: Table, key: str) -> Callable[[object], Endpoints]:
    """Return a converter of a list of endpoints; each element reports its own problems."""

    def convert(raw: object) -> Endpoints:
        if not isinstance(raw, list) or not raw:
            raise ValueError(f'expected a list such as ["127.0.0.1:5432"], not {raw!r}')
        found = [_endpoint(table.element(key, at, each)) for at, each in enumerate(raw)]
        endpoints = tuple(endpoint for endpoint in found if endpoint is not None)
        addresses = [endpoint.address for endpoint in endpoints]
        for address in {address for address in addresses if addresses.count(address) > 1}:
            raise ValueError(f'"{address}" is listed twice; write a weight instead')
        return endpoints

    return convert


def _endpoint(table: Table) -> EndpointConfig | None:
    def address(raw: object) -> Any:
        return parse_address(text(raw))

    return table.fill(EndpointConfig, address=address, weight=whole(0, 1_000_000), backup=boolean)


def _check_apart(problems: Problems, relays: list[RelayConfig | None]) -> None:
    """Two relays can share neither a name nor an address."""
    names: dict[str, int] = {}
    listeners: dict[ListenAddress, str] = {}
    for index, relay in enumerate(relays):
        if relay is None:
            continue
        first = names.setdefault(relay.name, index)
        if first != index:
            problems.add(("relay", index, "name"), f"{relay.name!r} is relay {first + 1}'s name already")
        for address in relay.listen:
            if address in listeners and not _is_any_port(address):
                problems.add(
                    ("relay", index, "listen"), f'"{address}" is taken by relay {listeners[address]!r}'
                )
            listeners[address] = relay.name


def _is_any_port(listen: ListenAddress) -> bool:
    return not isinstance(listen.address, UnixAddress) and listen.address.port == 0
