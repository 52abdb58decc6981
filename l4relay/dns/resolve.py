"""Names to addresses, with the time that they hold: what a relay that runs for months needs to follow DNS.

`getaddrinfo` tells no TTL, so the nameservers of resolv.conf(5) are asked here, and `getaddrinfo` only where
none of them answers. Literal addresses and hosts(5) come first. Results are not kept: whoever asks knows when
to ask again (`expires_in_s`) and whether stale addresses are better than none.
"""

import asyncio
import contextlib
import math
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from l4relay.addresses import ip_bytes
from l4relay.dns.message import (
    MAX_ALIASES,
    DnsMessageError,
    RecordType,
    Reply,
    ResponseCode,
    decode_reply,
    encode_name,
    encode_query,
    follow_aliases,
)
from l4relay.dns.system_files import ResolvConf, WatchedFile, is_ipv6, parse_hosts, parse_resolv_conf

_MAX_UDP_BYTES: Final = 4096
_LOCALHOST: Final = {"localhost": ("127.0.0.1", "::1")}
"""Known without asking (RFC 6761 6.3); hosts(5) may say otherwise."""
LOCAL_EXPIRY_S: Final = 30.0
"""How long an answer holds that came without a TTL, from hosts(5) or getaddrinfo."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses of a name, IPv4 before IPv6, and how long they hold; literal ones for ever."""

    addresses: tuple[str, ...]
    expires_in_s: float


class ResolveError(OSError):
    """A name has no address, or nobody could be asked; not worth asking again for `expires_in_s`."""

    def __init__(self, message: str, expires_in_s: float) -> None:
        super().__init__(message)
        self.expires_in_s = expires_in_s


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one question came to; without addresses, `ttl_s` is how long there are none."""

    addresses: tuple[str, ...]
    ttl_s: float


class _NoAnswerError(Exception):
    """No nameserver gave a usable reply."""


class Resolver:
    """Looks names up as the system's configuration says, and tells how long the answer holds.

    Args:
        resolv_conf: The nameservers and how to ask them; read again when it changes, as is `hosts`.
        hosts: Names that need no nameserver.
        nameserver_port: Where the nameservers listen.
        min_ttl_s: Shorter TTLs are raised to this, so that a TTL of 0 is no storm of queries.
        max_ttl_s: Longer TTLs are cut to this.
        max_negative_ttl_s: The same for the absence of an answer.
        rng: Chooses query ids, which a forger must not guess (RFC 5452 9.2); the system's by default.
    """

    def __init__(
        self,
        *,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        hosts: Path = Path("/etc/hosts"),
        nameserver_port: int = 53,
        min_ttl_s: float = 1.0,
        max_ttl_s: float = 300.0,
        max_negative_ttl_s: float = 30.0,
        rng: random.Random | None = None,
    ) -> None:
        self._resolv_conf_file = WatchedFile(resolv_conf)
        self._hosts_file = WatchedFile(hosts)
        self._nameserver_port = nameserver_port
        self._min_ttl_s = min_ttl_s
        self._max_ttl_s = max_ttl_s
        self._max_negative_ttl_s = max_negative_ttl_s
        self._rng = rng or random.SystemRandom()
        self._conf = ResolvConf()
        self._host_names: dict[str, tuple[str, ...]] = {}

    async def resolve(self, host: str, port: int) -> Resolution:
        """Return the addresses of `host`; `port` matters to `getaddrinfo` alone.

        Raises:
            ResolveError: there are none, or nobody could be asked.
        """
        if ip_bytes(host) is not None:
            return Resolution((host,), math.inf)
        self._read_files()
        local = self._host_names.get(host.lower().rstrip("."))
        if local:
            return Resolution(local, LOCAL_EXPIRY_S)
        if not self._conf.nameservers:
            return await _ask_system(host, port)
        try:
            return await self._ask_nameservers(host)
        except _NoAnswerError:
            return await _ask_system(host, port)

    def _read_files(self) -> None:
        text, is_new = self._resolv_conf_file.text()
        if is_new:
            self._conf = parse_resolv_conf(text)
        text, is_new = self._hosts_file.text()
        if is_new:
            self._host_names = _LOCALHOST | parse_hosts(text)

    async def _ask_nameservers(self, host: str) -> Resolution:
        negative_ttl_s = self._max_negative_ttl_s
        for name in self._conf.names_to_try(host):
            try:
                answer = await self._look_up(encode_name(name))
            except DnsMessageError as error:  # the name itself is impossible, with this suffix at least
                if name.rstrip(".") == host.rstrip("."):
                    raise ResolveError(str(error), self._max_negative_ttl_s) from error
                continue
            if answer.addresses:
                return Resolution(answer.addresses, min(max(answer.ttl_s, self._min_ttl_s), self._max_ttl_s))
            negative_ttl_s = min(negative_ttl_s, answer.ttl_s)
        raise ResolveError(
            f"{host}: no such name, or it has no address", max(negative_ttl_s, self._min_ttl_s)
        )

    async def _look_up(self, name: bytes) -> _Answer:
        """Ask for both families at once; one that nobody answers for does not spoil the other's answer."""
        answers = await asyncio.gather(
            self._ask(name, RecordType.A), self._ask(name, RecordType.AAAA), return_exceptions=True
        )
        given = [answer for answer in answers if isinstance(answer, _Answer)]
        for failure in answers:
            if isinstance(failure, BaseException) and (not given or not isinstance(failure, _NoAnswerError)):
                raise failure
        found = [answer for answer in given if answer.addresses]
        if not found and len(given) < len(answers):
            raise _NoAnswerError
        addresses = tuple(address for answer in found for address in answer.addresses)
        reachable = tuple(address for address in addresses if _has_route(address))
        return _Answer(reachable or addresses, min(answer.ttl_s for answer in found or given))

    async def _ask(self, name: bytes, kind: RecordType) -> _Answer:
        """Ask one question, and again for an alias that the reply leaves open."""
        ttl_s = math.inf
        for _ in range(MAX_ALIASES + 1):
            reply = await self._first_reply(name, kind)
            try:
                end = follow_aliases(reply, name, kind)
            except DnsMessageError as error:
                raise _NoAnswerError from error
            ttl_s = min(ttl_s, end.ttl_s)
            if end.addresses:
                return _Answer(end.addresses, ttl_s)
            if end.name == name or reply.code == ResponseCode.NAME_ERROR or reply.negative_ttl_s is not None:
                negative_ttl_s = self._min_ttl_s if reply.negative_ttl_s is None else reply.negative_ttl_s
                return _Answer((), min(ttl_s, negative_ttl_s))
            name = end.name
        raise _NoAnswerError

    async def _first_reply(self, name: bytes, kind: RecordType) -> Reply:
        conf = self._conf
        for _ in range(conf.attempts):
            for nameserver in conf.nameservers:
                query = encode_query(self._rng.getrandbits(16), name, kind)
                # Refused, unreachable, silent, garbled: in each case the next one is asked.
                with contextlib.suppress(OSError, EOFError, DnsMessageError):
                    async with asyncio.timeout(conf.timeout_s):
                        reply = await self._ask_one(nameserver, query)
                    if not reply.is_truncated and reply.code in tuple(ResponseCode):
                        return reply
        raise _NoAnswerError

    async def _ask_one(self, nameserver: str, query: bytes) -> Reply:
        reply = await _ask_over_udp(nameserver, self._nameserver_port, query)
        return await _ask_over_tcp(nameserver, self._nameserver_port, query) if reply.is_truncated else reply


async def _ask_over_udp(nameserver: str, port: int, query: bytes) -> Reply:
    """Send the query from a fresh random port, and wait for its reply; forged and stray ones are passed over.

    The socket is connected, so only the nameserver's datagrams arrive, and a refusal is known at once.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if is_ipv6(nameserver) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
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


async def _ask_system(host: str, port: int) -> Resolution:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ResolveError(f"{host}: {error}", LOCAL_EXPIRY_S) from error
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return Resolution(tuple(sorted(addresses, key=is_ipv6)), LOCAL_EXPIRY_S)


def _has_route(address: str) -> bool:
    """Say whether the system knows a way to `address` (RFC 6724 6, rule 1); nothing is sent."""
    try:
        with socket.socket(
            socket.AF_INET6 if is_ipv6(address) else socket.AF_INET, socket.SOCK_DGRAM
        ) as probe:
            probe.connect((address, 53))
    except OSError:
        return False
    return True
