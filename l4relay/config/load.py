"""Reading a file: its `[[relay]]` tables and `[l4relay]`, the process itself.

Everything wrong is reported at once, each with file, line, key and what was expected. The other tables of the
file are the gateway's and are not looked at, but for `[gateway] trusted_proxies`, which says for both whose
PROXY headers are believed.
"""

import difflib
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from l4relay.addresses import ListenAddress
from l4relay.config.model import Config, ProcessConfig, RelayConfig
from l4relay.config.toml_lines import Lines, key_text
from l4relay.config.values import Mistakes, listens, mapping, name, table

_TCP_ONLY: Final = (
    *("connect_timeout", "connect_attempts", "handshake_timeout", "splice", "proxy_protocol"),
    *("accept_proxy_protocol", "trusted_proxies", "sni", "max_connections", "max_connections_per_source"),
)
_UDP_ONLY: Final = ("responses", "max_sessions")
_UDP_IDLE_TIMEOUT: Final = "60s"


class ConfigError(ValueError):
    """A file that cannot be used, with every reason in a line of its own, in the file's order."""


def load(path: Path) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: with everything that is wrong.
        OSError: it cannot be read.

    """
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(document: str, file: str) -> Config:
    """Check a document; `file` is its name in messages.

    Raises:
        ConfigError: with everything that is wrong.

    """
    try:
        tables = tomllib.loads(document)
    except (ValueError, RecursionError) as error:  # ValueError: a number of over 4,300 digits, too
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    mistakes = Mistakes()
    for key in tables.keys() - {"l4relay", "relay"}:
        if near := difflib.get_close_matches(key.lower(), ("l4relay", "relay"), n=1, cutoff=0.8):
            mistakes.add(f'is no known table; did you mean "{near[0]}"?', key)
    with mistakes.at():
        config = read_tables(tables)
    if mistakes.found:
        lines = Lines(document)
        found = sorted(mistakes.found, key=lambda mistake: lines.of(mistake[0]))
        reasons = [f"{file}:{lines.of(at)}: {key_text(at)}: {message}" for at, message in found]
        raise ConfigError("\n".join(reasons))
    return config


def read_tables(tables: Mapping[str, Any]) -> Config:
    """Check the relay's tables in a file; the names of others are not looked at.

    Raises:
        Mistakes: with everything that is wrong.

    """
    mistakes = Mistakes()
    with mistakes.at("l4relay"):
        process = table(ProcessConfig)(tables.get("l4relay", {}))
    gateway = tables.get("gateway")
    trusted = gateway.get("trusted_proxies", []) if isinstance(gateway, dict) else []
    if isinstance(trusted, list):  # the peers of our Unix sockets are believed anyway
        trusted = [proxy for proxy in trusted if proxy != "unix:"]
    found = tables.get("relay")
    if not isinstance(found, list) or not found:
        mistakes.add("expected at least one [[relay]] table", "relay")
        found = []
    relays = []
    for index, raw in enumerate(found):
        with mistakes.at("relay", index):
            relays.append(_relay(raw, trusted))
    _check_apart(found, mistakes)
    mistakes.raise_any()
    return Config(process, tuple(relays))


def _relay(raw: object, gateway_trusted: object) -> RelayConfig:
    mistakes = Mistakes()
    keys = dict(mapping(raw))
    is_udp = _is_udp(keys.get("listen"))
    for key in _TCP_ONLY if is_udp else _UDP_ONLY:
        if key in keys:
            mistakes.add(f"has no meaning for a {'UDP' if is_udp else 'TCP'} relay", key)
    if is_udp:
        keys.setdefault("idle_timeout", _UDP_IDLE_TIMEOUT)
    if keys.get("accept_proxy_protocol") is True and not keys.setdefault("trusted_proxies", gateway_trusted):
        remedy = 'needs trusted_proxies = ["10.0.0.0/8", …]: who may send a header'
        mistakes.add(remedy, "accept_proxy_protocol")
    with mistakes.at():
        relay = table(RelayConfig)(keys)
    mistakes.raise_any()
    return relay


def _is_udp(listen: object) -> bool:
    first = listen[0] if isinstance(listen, list) and listen else listen
    return isinstance(first, str) and first.startswith("udp://")


def _check_apart(relays: list[Any], mistakes: Mistakes) -> None:
    """Two relays can share neither a name nor an address, whatever else is wrong with them."""
    names: dict[str, int] = {}
    listeners: dict[ListenAddress, str] = {}
    for index, relay in enumerate(relays):
        with suppress(ValueError):  # said already
            own_name = name(mapping(relay).get("name"))
            first = names.setdefault(own_name, index)
            if first != index:
                mistakes.add(f"{own_name!r} is relay {first + 1}'s name already", "relay", index, "name")
            for address in listens(relay.get("listen")):
                if address in listeners:
                    message = f'"{address}" is taken by relay {listeners[address]!r}'
                    mistakes.add(message, "relay", index, "listen")
                listeners[address] = own_name
