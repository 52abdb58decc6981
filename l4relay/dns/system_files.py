"""What the system's own files say about names: resolv.conf(5) and hosts(5).

The last text is remembered with what it says, so that a file may be read again for each question.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from l4relay.addresses import ip_bytes

_MAX_NAMESERVERS: Final = 3
_MAX_SEARCH: Final = 6


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf(5) says: each nameserver is tried `attempts` times, for `timeout_s` at most."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    ndots: int
    timeout_s: float
    attempts: int

    def names_to_try(self, host: str) -> list[str]:
        """Return the absolute names that `host` may stand for, the likeliest first."""
        if host.endswith("."):
            return [host]
        searched = [f"{host}.{suffix}" for suffix in self.search]
        return [host, *searched] if host.count(".") >= self.ndots else [*searched, host]


@lru_cache(maxsize=1)
def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf(5); what is not understood is passed over, as the system's resolver does."""
    nameservers: list[str] = []
    search: list[str] = []
    numbers = {"ndots": 1, "timeout": 2, "attempts": 2}
    for line in text.splitlines():
        match line.partition("#")[0].partition(";")[0].split():
            case ["nameserver", address, *_] if ip_bytes(address) is not None:
                nameservers.append(address)
            case ["search" | "domain", *suffixes]:
                search = [suffix.strip(".") for suffix in suffixes if suffix.strip(".")]
            case ["options", *options]:
                split = (option.partition(":") for option in options)
                numbers.update((name, int(value)) for name, _, value in split if value.isdecimal())
    return ResolvConf(
        tuple(nameservers[:_MAX_NAMESERVERS]),
        tuple(search[:_MAX_SEARCH]),
        ndots=min(numbers["ndots"], 15),
        timeout_s=min(max(numbers["timeout"], 1), 30),
        attempts=min(max(numbers["attempts"], 1), 5),
    )


@lru_cache(maxsize=1)
def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read a hosts(5): names in lower case to their addresses, IPv4 first."""
    addresses: dict[str, list[str]] = {}
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case [address, *names] if ip_bytes(address) is not None:
                for name in names:
                    addresses.setdefault(name.lower(), []).append(address)
    return {name: ipv4_first(listed) for name, listed in addresses.items()}


def ipv4_first(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses, each once, the IPv4 ones before the IPv6 ones."""
    return tuple(sorted(dict.fromkeys(addresses), key=lambda address: ":" in address))
