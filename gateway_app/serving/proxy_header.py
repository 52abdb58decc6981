"""The PROXY header ahead of a connection's requests: who the client is, and the connection's id.

HAProxy's proxy-protocol.txt, versions 1 and 2. What is in front of the gateway (the relay, HAProxy, a cloud's
load balancer) tells with it whom it has accepted. Who may send one is decided by address, never by the bytes
(section 5): from a trusted proxy it is required, and everybody else's first bytes are a request.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from l4relay.client import printable_id
from l4relay.proxy_protocol import ProxyProtocolError, parse

if TYPE_CHECKING:
    from l4relay.proxy_protocol import Header

HEADER_TIMEOUT_S: Final = 5.0
"""How long a trusted proxy may take; it has the header at hand when it connects."""

STATE_KEY: Final = "connection_id"
"""Where the connection's id stands in ASGI's `scope["state"]`, if the header had one."""

_SHORTEST: Final = 15
"""Bytes of the shortest header, `PROXY UNKNOWN` and its line break: so much can be read of any of them."""
_V2_FIXED: Final = 16

SocketAddress = tuple[str, int] | str
IsExpected = Callable[[Sequence[object] | str | None], bool]
"""Says whether a connection from this address, as a socket tells it, has to begin with a header."""


class Told:
    """What a header told of a connection, in place of its socket: as much as a server asks one.

    Attributes:
        family: of the addresses.
        connection_id: as in the sender's log, "" if the header has none.
    """

    __slots__ = ("_own", "_peer", "connection_id", "family")

    def __init__(self, header: Header, sock: socket.socket) -> None:
        self.connection_id = printable_id(header.unique_id)
        self.family: int = sock.family
        self._peer: SocketAddress = sock.getpeername()
        self._own: SocketAddress = sock.getsockname()
        if isinstance(header.source, tuple) and isinstance(header.destination, tuple):
            self.family = socket.AF_INET6 if ":" in header.source[0] else socket.AF_INET
            self._peer, self._own = header.source, header.destination
        elif header.source is not None:
            self.family = socket.AF_UNIX
            self._peer, self._own = "", ""

    def getpeername(self) -> SocketAddress:
        """Return the client's address."""
        return self._peer

    def getsockname(self) -> SocketAddress:
        """Return the address that the client connected to."""
        return self._own


async def read_header(reader: asyncio.StreamReader) -> Header:
    """Read a header and not a byte more.

    Raises:
        ProxyProtocolError: what comes is none, ends too soon, or takes too long.
        OSError: the connection is broken.

    """
    received = bytearray()
    try:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            while (parsed := parse(received)) is None:
                piece = await reader.read(_missing(received))
                if not piece:
                    raise ProxyProtocolError("the connection ended within the PROXY header")
                received += piece
    except TimeoutError as error:
        raise ProxyProtocolError(f"no PROXY header within {HEADER_TIMEOUT_S:g} s") from error
    return parsed[0]


def _missing(received: bytearray) -> int:
    """Return how much can be read without reading beyond the header."""
    if len(received) < _SHORTEST:
        return _SHORTEST - len(received)
    if received.startswith(b"PROXY ") or len(received) < _V2_FIXED:
        return 1
    return _V2_FIXED + int.from_bytes(received[14:16], "big") - len(received)
