"""The requested host in one form, and the host patterns of routes.

Hosts are compared in lower case, without port and without the root's trailing dot (RFC 9110 4.2.3). Names
are compared as they travel, in ASCII: an internationalised name is its ``xn--`` form (RFC 5890 2.3.2.1).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from gateway_app.problem import Cause, GatewayError

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_AUTHORITY: Final = re.compile(
    rf"(?:(?P<name>{_NAME})\.?|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{{0,5}}))?", re.ASCII
)
_HOST: Final = re.compile(rf"{_NAME}|\[[0-9a-f:.]+\]", re.ASCII)
_MAX_AUTHORITY_BYTES: Final = 261
"""A name of 253 characters, its trailing dot, a colon and a port, with a little room for an IPv6 literal."""
_MAX_NAME_LENGTH: Final = 253
_MAX_PORT: Final = 65_535


class HostError(GatewayError):
    """The Host field, or the authority of the target, names no host; the client is told so (400)."""


class HostReader:
    """Brings the hosts of requests into the normal form, and remembers those it has seen.

    A gateway is asked for few hosts again and again. The memory is bounded: when it is full (a client that
    invents names) it is emptied, which the real hosts do not notice.
    """

    __slots__ = ("_seen",)

    MAX_REMEMBERED: Final = 1024

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def read(self, authority: bytes) -> str:
        """Return `normalise_host` of a Host field's value.

        Raises:
            HostError: it names no host.

        """
        host = self._seen.get(authority)
        if host is None:
            host = normalise_host(authority)
            if len(self._seen) >= self.MAX_REMEMBERED:
                self._seen.clear()
            self._seen[authority] = host
        return host


def normalise_host(authority: bytes) -> str:
    """Return the host of ``host[:port]`` in lower case, an IPv6 address compressed and in brackets.

    An empty value is the empty host: a client whose URI has no authority sends it (RFC 9112 3.2).

    Raises:
        HostError: it is no name, IPv4 address or bracketed IPv6 address, has user information, or a wrong
            port.

    """
    if not authority:
        return ""
    if len(authority) > _MAX_AUTHORITY_BYTES:
        raise HostError(Cause.MALFORMED, "the host is too long")
    parts = _AUTHORITY.fullmatch(authority.decode("latin-1").lower())
    if parts is None:
        hint = ": user information is not accepted" if b"@" in authority else ""
        raise HostError(Cause.MALFORMED, f"the Host field names no host{hint}")
    name, ipv6, port = parts.groups()
    if port and int(port) > _MAX_PORT:
        raise HostError(Cause.MALFORMED, "the Host field has a port that does not exist")
    if name is not None:
        if len(name) > _MAX_NAME_LENGTH:
            raise HostError(Cause.MALFORMED, "the host is too long")
        return str(name)
    try:
        return f"[{ipaddress.IPv6Address(ipv6)}]"
    except ValueError as error:
        raise HostError(
            Cause.MALFORMED, "the Host field has no valid IPv6 address in its brackets"
        ) from error


@dataclass(frozen=True, slots=True)
class HostPattern:
    """What a route says about the host.

    Attributes:
        host: the host itself, or for a wildcard what must stand behind the first labels (``.example.com``);
            "" for any host.
        is_wildcard: whether one or more labels stand before `host`.

    """

    host: str = ""
    is_wildcard: bool = False

    def matches(self, host: str) -> bool:
        """Whether a host in its normal form is one of those meant."""
        if self.is_wildcard:
            return len(host) > len(self.host) and host.endswith(self.host)
        return not self.host or host == self.host

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts patterns by precedence: exact, wildcards from the longest, any host."""
        if not self.host:
            return (2, 0)
        return (1, -len(self.host)) if self.is_wildcard else (0, 0)

    def __str__(self) -> str:
        return f"*{self.host}" if self.is_wildcard else self.host or "*"


ANY_HOST: Final = HostPattern()


def parse_host_pattern(text: str | None) -> HostPattern:
    """Return what a route's ``host`` means; None and ``*`` are any host.

    Raises:
        ValueError: it is no host and no wildcard; the message says what to write instead.

    """
    if text is None or text == "*":
        return ANY_HOST
    if not text.isascii():
        raise ValueError(f"{text!r}: names are compared in ASCII; write {_ascii_form(text)}")
    host, is_wildcard = text.lower().removesuffix("."), False
    if host.startswith("*."):
        host, is_wildcard = host[2:], True
    if not is_wildcard and ":" in host:
        host = _checked_ipv6(text, host)
    if not _HOST.fullmatch(host) or len(host) > _MAX_NAME_LENGTH or (is_wildcard and host.startswith("[")):
        raise ValueError(
            f'{text!r} is no host; accepted are "api.example.com", "*.example.com", "192.0.2.1" or "[::1]"'
        )
    return HostPattern(f".{host}" if is_wildcard else host, is_wildcard)


def _checked_ipv6(text: str, host: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    except ValueError as error:
        raise ValueError(
            f'{text!r} is no host; the name is written alone, without "https://" and ":port"'
        ) from error


def _ascii_form(text: str) -> str:
    try:
        return repr(text.encode("idna").decode("ascii"))
    except UnicodeError:
        return 'its "xn--" form'
