"""What the system's own files say about names: resolv.conf(5) and hosts(5)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from l4relay.addresses import ip_bytes

_MAX_NAMESERVERS: Final = 3
_MAX_SEARCH: Final = 6


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf(5) says: each nameserver is tried `attempts` times, for `timeout_s` at most."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 2.0
    attempts: int = 2

    def names_to_try(self, host: str) -> list[str]:
        """Return the absolute names that `host` may stand for, the likeliest first."""
        if host.endswith("."):
            return [host]
        searched = [f"{host}.{suffix}" for suffix in self.search]
        return [host, *searched] if host.count(".") >= self.ndots else [*searched, host]


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf(5); what is not understood is passed over, as the system's resolver does."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        match line.partition("#")[0].partition(";")[0].split():
            case ["nameserver", address, *_] if ip_bytes(address) is not None:
                nameservers.append(address)
            case ["search" | "domain", *suffixes]:
                search = tuple(suffix.strip(".") for suffix in suffixes if suffix.strip("."))
            case ["options", *options]:
                split = (option.partition(":") for option in options)
                numbers.update((name, int(value)) for name, _, value in split if value.isdecimal())
    return ResolvConf(
        tuple(nameservers[:_MAX_NAMESERVERS]),
        search[:_MAX_SEARCH],
        ndots=min(numbers.get("ndots", 1), 15),
        timeout_s=min(max(numbers.get("timeout", 2), 1), 30),
        attempts=min(max(numbers.get("attempts", 2), 1), 5),
    )


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Read a hosts(5): names in lower case to their addresses, IPv4 first."""
    addresses: dict[str, list[str]] = {}
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case [address, *names] if ip_bytes(address) is not None:
                for name in names:
                    addresses.setdefault(name.lower(), []).append(address)
    return {name: tuple(sorted(dict.fromkeys(listed), key=is_ipv6)) for name, listed in addresses.items()}


def is_ipv6(address: str) -> bool:
    """Say which family an address is of."""
    return ":" in address


class WatchedFile:
    """A file's text, read again when it changes; empty where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._text = ""

    def text(self) -> tuple[str, bool]:
        """Return the text, and whether it is new."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return self._text, False
            self._text = self._path.read_text(errors="replace")
        except OSError:
            stamp = (0, 0, 0)
            self._text = ""
        is_new = stamp != self._stamp
        self._stamp = stamp
        return self._text, is_new
