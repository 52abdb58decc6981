"""Addresses that the file gives to more than one listener, of which only the first could have it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway_app.config.tables import table_of, tables_in, texts_in
from l4relay.config.toml_lines import key_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_app.config.errors import ConfigError
    from gateway_app.config.source import Source
    from l4relay.config.toml_lines import KeyPath

_ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  # nothing is bound here
_ANY_IPV6: Final = "[::]"
_IS_NUMBER: Final = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")


def check_listeners(source: Source) -> Iterator[ConfigError]:
    """Yield an error for each address that is taken already; two relays are left to the relay's own check."""
    owners: list[tuple[str, KeyPath]] = []
    for path, address in _addresses(source):
        for taken, owner in owners:
            tables = {owner[0], path[0]}
            if tables != {"relay"} and _overlap(address, taken, is_one_table=len(tables) == 1):
                line = source.lines.of(owner)
                yield source.error(path, f'"{address}" is taken already, by {key_text(owner)} in line {line}')
                break
        owners.append((address, path))


def _overlap(one: str, other: str, *, is_one_table: bool) -> bool:
    """Whether only one of two addresses can be had: they are the same, or one is the whole machine's.

    [::] is IPv4 as well, unless its own table lists 0.0.0.0.
    """
    if one == other:
        return True
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if port != other_port or not (_IS_NUMBER.fullmatch(host) and _IS_NUMBER.fullmatch(other_host)):
        return False
    hosts = {host, other_host}
    if _ANY_IPV6 in hosts:
        return not (is_one_table and _ANY_IPV4 in hosts)
    return _ANY_IPV4 in hosts and not any(each.startswith("[") for each in hosts)


def _addresses(source: Source) -> Iterator[tuple[KeyPath, str]]:
    """Yield each TCP or Unix address that is listened on, and where it is written."""
    for path, text in _texts(source):
        address = text.removeprefix("tcp://").lower()
        is_any_port = address.endswith(":0")
        if not is_any_port and not address.startswith("udp://"):
            yield path, address


def _texts(source: Source) -> Iterator[tuple[KeyPath, str]]:
    for place, text in texts_in(table_of(source.tables.get("gateway")).get("listen")):
        yield ("gateway", "listen", place), text
    for table, key in (("admin", "listen"), ("l4relay", "admin")):
        address = table_of(source.tables.get(table)).get(key)
        if isinstance(address, str):
            yield (table, key), address
    for place, relay in tables_in(source.tables.get("relay")):
        listen = relay.get("listen")
        if isinstance(listen, str):
            yield ("relay", place, "listen"), listen
        for index, text in texts_in(listen):
            yield ("relay", place, "listen", index), text
