"""Names to addresses, with the time that they hold: what a relay that runs for months needs to follow DNS.

`getaddrinfo` tells no TTL, so the nameservers of resolv.conf(5) are asked here, and `getaddrinfo` only where
none of them answers. hosts(5) comes first. Results are not kept: whoever asks knows when to ask again
(`expires_in_s`) and whether stale addresses are better than none.
"""

import asyncio
import contextlib
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from l4relay.dns.message import DnsMessageError, RecordType, Reply, decode_reply, encode_name, encode_query
from l4relay.dns.system_files import ResolvConf, ipv4_first, parse_hosts, parse_resolv_conf

MIN_TTL_S: Final = 1.0
"""Shorter TTLs are raised to this, so that a TTL of 0 is no storm of queries."""
MAX_TTL_S: Final = 300.0
"""Longer TTLs are cut to this."""
LOCAL_EXPIRY_S: Final = 30.0
"""How long an answer holds that came without a TTL, from hosts(5) or getaddrinfo."""
RETRY_S: Final = 10.0
"""When to ask again for a name that could not be resolved."""
_MAX_UDP_BYTES: Final = 4096
_SETTLED: Final = (0, 3)
"""No error, or no such name (RFC 1035 4.1.1); with any other response code the next nameserver is asked."""
_LOCALHOST: Final = {"localhost": ("127.0.0.1", "::1")}
"""Known without asking (RFC 6761 6.3); hosts(5) may say otherwise."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses of a name, IPv4 before IPv6, and how long they hold."""

    addresses: tuple[str, ...]
    expires_in_s: float


class ResolveError(OSError):
    """A name has no address, or nobody could be asked; worth asking again after `RETRY_S`."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Looks names up as the system's configuration says, and tells how long the answer holds.

    Attributes:
        resolv_conf: The nameservers and how to ask them.
        hosts: Names that need no nameserver.
        nameserver_port: Where the nameservers listen.
    """

    resolv_conf: Path = Path("/etc/resolv.conf")
    hosts: Path = Path("/etc/hosts")
    nameserver_port: int = 53

    async def resolve(self, host: str) -> Resolution:
        """Return the addresses of a host name.

        Raises:
            ResolveError: there are none, or nobody could be asked.
        """
        key = host.lower().rstrip(".")
        known = parse_hosts(_text(self.hosts)).get(key) or _LOCALHOST.get(key)
        if known:
            return Resolution(known, LOCAL_EXPIRY_S)
        conf = parse_resolv_conf(_text(self.resolv_conf))
        for name in conf.names_to_try(host):
            try:
                wire = encode_name(name)
            except DnsMessageError:  # too long with this suffix
                continue
            replies = await asyncio.gather(
                self._ask(conf, wire, RecordType.A), self._ask(conf, wire, RecordType.AAAA)
            )
            found = [reply for reply in replies if reply and reply.addresses]
            if found:  # one family that nobody answers for does not spoil the other's answer
                return _resolution(found)
            if None in replies:
                return await _ask_system(host)
        raise ResolveError(f"{host}: no such name, or it has no address")

    async def _ask(self, conf: ResolvConf, name: bytes, kind: RecordType) -> Reply | None:
        """Ask one question of one nameserver after the other; None if nobody settles it."""
        for nameserver in conf.nameservers * conf.attempts:
            query = encode_query(secrets.randbits(16), name, kind)  # not to be guessed: RFC 5452 9.2
            # Refused, unreachable, silent, garbled: in each case the next one is asked.
            with contextlib.suppress(OSError, EOFError, DnsMessageError):
                async with asyncio.timeout(conf.timeout_s):
                    reply = await _ask_over_udp(nameserver, self.nameserver_port, query)
                    if reply.is_truncated:
                        reply = await _ask_over_tcp(nameserver, self.nameserver_port, query)
                if reply.code in _SETTLED and not reply.is_truncated:
                    return reply
        return None


async def _ask_over_udp(nameserver: str, port: int, query: bytes) -> Reply:
    """Send the query from a fresh random port, and wait for its reply; forged and stray ones are passed over.

    The socket is connected, so only the nameserver's datagrams arrive, and a refusal is known at once.
    """
    loop = asyncio.get_running_loop()
    with _udp_socket(nameserver) as udp:
        udp.connect((nameserver, port))
        udp.send(query)
        while True:
            message = await loop.sock_recv(udp, _MAX_UDP_BYTES)
            with contextlib.suppress(DnsMessageError):
                return decode_reply(message, query)


async def _ask_over_tcp(nameserver: str, port: int, query: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(nameserver, port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return decode_reply(await reader.readexactly(length), query)
    finally:
        writer.close()


async def _ask_system(host: str) -> Resolution:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ResolveError(f"{host}: {error}") from error
    return Resolution(ipv4_first(str(address[0]) for *_, address in found), LOCAL_EXPIRY_S)


def _resolution(found: list[Reply]) -> Resolution:
    """Join the answers; addresses without a route (RFC 6724 6, rule 1) are left out if there are others."""
    addresses = tuple(address for reply in found for address in reply.addresses)
    reachable = tuple(address for address in addresses if _has_route(address))
    ttl_s = min(reply.ttl_s for reply in found)
    return Resolution(reachable or addresses, min(max(ttl_s, MIN_TTL_S), MAX_TTL_S))


def _has_route(address: str) -> bool:
    with contextlib.suppress(OSError), _udp_socket(address) as probe:
        probe.connect((address, 53))  # which sends nothing
        return True
    return False


def _udp_socket(peer: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
