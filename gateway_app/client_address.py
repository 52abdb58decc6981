"""The client's address behind trusted proxies, from X-Forwarded-For or Forwarded (RFC 7239).

Each proxy appends the address it was reached from, so the list is read from its right end: every entry that
is itself a trusted proxy is skipped, and the first that is not is the client. What stands further left was
written by the client and is never believed. An entry that is no IP address (`unknown`, `_hidden`, garbage)
ends the search at the last good address.

Where a request carries both, X-Forwarded-For counts: most proxies append to it and pass a `Forwarded` that
they do not know through as the client sent it.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from l4relay.addresses import NetworkSet, ip_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNIX: Final = "unix:"
"""In `trusted_proxies`: the peers of our Unix sockets. The socket's permissions decide who those are."""

MAX_HOPS: Final = 32
"""Entries looked at; a longer chain of trusted proxies does not exist, a longer field is an attack."""

_MAX_REMEMBERED_PEERS: Final = 4096

# RFC 7239 4: forwarded-pair = token "=" ( token / quoted-string ); RFC 9110 5.6.2 and 5.6.4. IPv6 addresses
# and ports must be quoted, but many senders leave the quotes out: unquoted values may hold ":", "[" and "]".
_PAIR: Final = re.compile(
    rb"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=
         (?: ([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+)
           | "((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*)" )
         [ \t]*(?:([;,])|\Z)""",
    re.VERBOSE,
)
_BLANK: Final = re.compile(rb"[ \t]*(?:([;,])|\Z)")
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
# RFC 7239 6: node = nodename [ ":" node-port ]
_NODE: Final = re.compile(
    r"(?: \[ ([0-9A-Fa-f:.]+) \] | ([0-9.]+) ) (?: : (?:[0-9]{1,5}|_[A-Za-z0-9._-]+) )?",
    re.VERBOSE | re.ASCII,
)


class Peer(NamedTuple):
    """Who is at the other end of the connection.

    Attributes:
        address: canonical IP address, "" for a Unix socket.
        is_trusted: whether its forwarding fields are believed.
        field: the X-Forwarded-For field that says that the request came from here, None for a Unix socket.

    """

    address: str
    is_trusted: bool
    field: tuple[bytes, bytes] | None


class TrustedProxies:
    """The proxies in front of the gateway whose forwarding fields are believed.

    Args:
        entries: networks (`10.0.0.0/8`), single addresses, and `unix:` for the peers of our Unix sockets.

    Raises:
        ValueError: an entry is none of these.

    """

    __slots__ = ("_networks", "_peers", "_unix")

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._networks = NetworkSet(entry for entry in entries if entry != UNIX)
        self._unix = Peer("", UNIX in entries, None)
        self._peers: dict[str, Peer] = {}

    def peer(self, client: Sequence[object] | None) -> Peer:
        """Return the peer for ASGI's `scope["client"]`; what is no IP address is a Unix socket's peer."""
        host = client[0] if client else None
        if not isinstance(host, str):
            return self._unix
        return self._peers.get(host) or self._remember(host)

    def client(self, chain: Sequence[str], peer: Peer) -> str:
        """Return the client's address as X-Forwarded-For tells it; `peer` is trusted."""
        return self._behind(chain, peer)[0]

    def client_element(self, elements: Sequence[Forwarded], peer: Peer) -> tuple[str, Forwarded]:
        """Return the client's address and the element of `Forwarded` that tells it; `peer` is trusted."""
        address, depth = self._behind([element.node for element in elements[:MAX_HOPS]], peer)
        return address, elements[depth - 1] if depth else Forwarded()

    def _behind(self, chain: Sequence[str], peer: Peer) -> tuple[str, int]:
        """Return the outermost address that can be believed, and how many entries of `chain` led to it.

        `chain` says where each proxy was reached from, the nearest first.
        """
        address, depth = peer.address, 0
        for node in chain:
            found = node_address(node)
            if found is None:
                break
            address, depth = found, depth + 1
            if address not in self._networks:
                break
        return address, depth

    def _remember(self, host: str) -> Peer:
        address = _canonical(host)
        if address is None:
            return self._unix
        peer = Peer(address, address in self._networks, (b"x-forwarded-for", address.encode()))
        if len(self._peers) >= _MAX_REMEMBERED_PEERS:
            self._peers.clear()  # cheaper than keeping an order: the common peers come back at once
        self._peers[host] = peer
        return peer


class Forwarded(NamedTuple):
    """One element of a Forwarded value: what one proxy saw. "" where it does not say."""

    node: str = ""
    proto: str = ""


def forwarded_for_chain(value: bytes) -> list[str]:
    """Return the nodes of X-Forwarded-For, the nearest first, no more than `MAX_HOPS`."""
    nodes = value.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
    nodes.reverse()
    return [node.strip(b" \t").decode("latin-1") for node in nodes]


def parse_forwarded(value: bytes) -> list[Forwarded] | None:
    """Return the elements of a Forwarded value (RFC 7239 4), the nearest first; None if it is malformed.

    One malformed element makes the whole untrustworthy: a quotation mark that a client left open would
    swallow what the proxies append.
    """
    elements: list[Forwarded] = []
    pairs: dict[bytes, str] = {}
    position, end = 0, len(value)
    while position < end:
        match = _PAIR.match(value, position)
        if match is not None:
            name = match[1].lower()
            if name in pairs:
                return None
            pairs[name] = _text(match[2], match[3])
            separator = match[4]
        elif (match := _BLANK.match(value, position)) is not None:  # an empty element, RFC 9110 5.6.1.2
            separator = match[1]
        else:
            return None
        position = match.end()
        if separator != b";" and pairs:
            elements.append(_element(pairs))
            pairs = {}
    if pairs:
        elements.append(_element(pairs))
    elements.reverse()
    return elements


def node_address(node: str) -> str | None:
    """Return the canonical IP address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.

    None for what names no IP address.
    """
    match = _NODE.fullmatch(node)
    return _canonical((match[1] or match[2]) if match is not None else node)


def forwarded_element(peer: Peer, scheme: str, host: bytes, pseudonym: str) -> bytes:
    """Return the element that this gateway appends to a Forwarded value."""
    node = f'"[{peer.address}]"' if ":" in peer.address else peer.address or "unknown"
    return f"for={node};by=_{pseudonym};proto={scheme}".encode() + host_parameter(host)


def host_parameter(host: bytes) -> bytes:
    """Return the end of our element of Forwarded: the host, if there is one."""
    quoted_host = host.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b';host="%b"' % quoted_host if host else b""


def _canonical(text: str) -> str | None:
    """One spelling for each address, so that a limit per client cannot be escaped by another spelling."""
    packed = ip_bytes(text)
    if packed is None:
        return None
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _element(pairs: dict[bytes, str]) -> Forwarded:
    return Forwarded(pairs.get(b"for", ""), pairs.get(b"proto", ""))


def _text(token: bytes | None, quoted: bytes | None) -> str:
    raw = token if token is not None else _QUOTED_PAIR.sub(rb"\1", quoted or b"")
    return raw.decode("latin-1")
