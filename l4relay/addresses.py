"""Addresses as an operator writes them, and sets of networks to test a peer against.

An endpoint is written ``127.0.0.1:8080``, ``[::1]:8080``, ``db.internal:5432`` or ``unix:/run/db.sock``;
a listener may say its transport first: ``tcp://…``, ``udp://…``. Resolving names is left to `resolve`.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

Transport = Literal["tcp", "udp"]

_ACCEPTED: Final = '"127.0.0.1:8080", "[::1]:8080", "name.example:8080" or "unix:/path"'
_MAX_NAME_LENGTH: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?", re.IGNORECASE | re.ASCII)
_ALL_NUMERIC: Final = re.compile(r"[0-9.]+", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_MAX_PORT: Final = 65_535
_MAX_UNIX_PATH: Final = 107
"""Linux keeps 108 bytes for a socket's path, the closing zero among them (unix(7))."""

MAPPED_PREFIX: Final = b"\x00" * 10 + b"\xff\xff"
"""What an IPv4 address begins with in its IPv6 form (RFC 4291 2.5.5.2)."""


@dataclass(frozen=True, slots=True)
class InetAddress:
    """A host, as a name or an IP literal without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = InetAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen, and for what. A Unix socket is always ``tcp``: a stream."""

    transport: Transport
    address: Address

    @property
    def ipv4_twin(self) -> "ListenAddress | None":
        """Return ``0.0.0.0`` for ``[::]``, which stands for both; None for others, and for ports unknown."""
        if not isinstance(self.address, InetAddress) or self.address.host != "::" or not self.address.port:
            return None
        return ListenAddress(self.transport, InetAddress("0.0.0.0", self.address.port))  # noqa: S104

    def __str__(self) -> str:
        scheme = "" if isinstance(self.address, UnixAddress) else f"{self.transport}://"
        return f"{scheme}{self.address}"


def parse_address(text: str, *, port_zero_allowed: bool = False) -> Address:
    """Return the address that `text` names.

    Raises:
        ValueError: `text` is no address; the message says what is accepted.

    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f'{text!r} has no path; a Unix socket is written "unix:/path"')
        if len(path.encode("utf-8", "surrogateescape")) > _MAX_UNIX_PATH:
            raise ValueError(f"{text!r}: the path of a Unix socket has at most {_MAX_UNIX_PATH} bytes")
        return UnixAddress(path)
    host, separator, port_text = text.rpartition(":")
    if not separator or not _PORT.fullmatch(port_text):
        raise ValueError(f"{text!r} is no address with a port; accepted are {_ACCEPTED}")
    least = 0 if port_zero_allowed else 1
    if not least <= int(port_text) <= _MAX_PORT:
        raise ValueError(f"{text!r}: a port is a number from {least} to {_MAX_PORT}")
    return InetAddress(_checked_host(text, host), int(port_text))


def parse_listen_address(text: str) -> ListenAddress:
    """Return where to listen; port 0 lets the system choose one.

    Raises:
        ValueError: `text` is no address; the message says what is accepted.

    """
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("tcp", "udp"):
        raise ValueError(
            f'{text!r}: {scheme + "://"!r} is not known here; accepted are "tcp://" and "udp://"'
        )
    address = parse_address(rest, port_zero_allowed=True)
    if separator and isinstance(address, UnixAddress):
        raise ValueError(f'{text!r}: a Unix socket is written without "{scheme}://": {str(address)!r}')
    return ListenAddress("udp" if scheme == "udp" else "tcp", address)


def ip_bytes(text: str) -> bytes | None:
    """Return an IP address's 4 or 16 bytes, or None where `text` is none.

    An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2), which a dual-stack socket shows for an IPv4 peer, gives
    the 4 bytes; a zone (``%eth0``) is left out.
    """
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):  # ValueError: an embedded zero or a surrogate
        return None
    return packed[12:] if packed.startswith(MAPPED_PREFIX) else packed


class NetworkSet:
    """A set of IP networks with a fast ``in`` for a peer's address.

    Networks are kept by prefix length, so that a test costs one look-up for each length, and answers are
    remembered. An IPv4-mapped IPv6 address counts as the IPv4 address; what is no IP address (the name of
    a Unix socket's peer) is in no set.

    Args:
        networks: ``10.0.0.0/8``, ``2001:db8::/32`` or single addresses.

    Raises:
        ValueError: an entry is no network, or has bits set behind its prefix.

    """

    MAX_REMEMBERED: Final = 4096

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(parse_network, networks))
        self._remembered: dict[str, bool] = {}
        self._by_length: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for network in self._networks:
            host_bits = network.max_prefixlen - network.prefixlen
            prefixes = self._by_length[network.max_prefixlen // 8].setdefault(host_bits, set())
            prefixes.add(int(network.network_address) >> host_bits)

    def __contains__(self, ip: str) -> bool:
        answer = self._remembered.get(ip)
        return self._look_up(ip) if answer is None else answer

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _look_up(self, ip: str) -> bool:
        packed = ip_bytes(ip)
        if packed is None:
            return False
        number = int.from_bytes(packed, "big")
        by_length = self._by_length[len(packed)]
        answer = any(number >> host_bits in prefixes for host_bits, prefixes in by_length.items())
        if len(self._remembered) >= self.MAX_REMEMBERED:
            self._remembered.clear()  # cheaper than keeping an order: the common peers come back at once
        self._remembered[ip] = answer
        return answer


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network; a single address is a network of one.

    Raises:
        ValueError: `text` is no network, or has bits set behind its prefix.

    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        hint = ""
        if "host bits" in str(error):
            hint = f"; did you mean {str(ipaddress.ip_network(text, strict=False))!r}?"
        raise ValueError(
            f'{text!r} is no network; accepted are "10.0.0.0/8", "2001:db8::/32" or a single address{hint}'
        ) from error
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:  # peers are compared in their IPv4 form, so the network must be too
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _checked_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _checked_ip(text, host[1:-1], version=6)
    if _ALL_NUMERIC.fullmatch(host):
        return _checked_ip(text, host, version=4)
    if ":" in host and "/" not in host:
        raise ValueError(f'{text!r}: an IPv6 address is written in brackets, as in "[::1]:8080"')
    if len(host) > _MAX_NAME_LENGTH or not _HOST_NAME.fullmatch(host):
        raise ValueError(
            f"{text!r}: {host!r} is neither an IP address nor a host name; accepted are {_ACCEPTED}"
        )
    return host


def _checked_ip(text: str, host: str, *, version: int) -> str:
    with suppress(ValueError):
        if ipaddress.ip_address(host).version == version:
            return host
    raise ValueError(f"{text!r}: {host!r} is no IPv{version} address")
