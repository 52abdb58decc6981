"""Receiving from many UDP clients, and answering each from the address that it asked.

A socket bound to a wildcard address (0.0.0.0, ::) would answer from whatever address the route prefers; a
client that asked another one of this machine's drops such answers. So there the address that a datagram came
to is noted for its client (IP_PKTINFO, ip(7); IPV6_RECVPKTINFO, RFC 3542 6) and given with the reply.
"""

import socket
from collections.abc import Callable
from typing import Any, Final

ClientAddress = tuple[Any, ...]
"""As the socket gives it; on a wildcard socket the packet information comes behind."""

Receive = Callable[[int], tuple[bytes, ClientAddress]]
SendTo = Callable[[bytes, ClientAddress], int]

_IP_PKTINFO: Final = 8  # named in socket since 3.14
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
_WILDCARDS: Final = {
    "0.0.0.0": (socket.IPPROTO_IP, _IP_PKTINFO),  # noqa: S104 - recognised, not bound
    "::": (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}


def server_calls(sock: socket.socket) -> tuple[Receive, SendTo]:
    """Return what receives a datagram of at most so many bytes with its client, and what answers a client."""
    option = _WILDCARDS.get(sock.getsockname()[0])
    if option is None:
        return sock.recvfrom, sock.sendto
    sock.setsockopt(*option, 1)

    def receive(size: int) -> tuple[bytes, ClientAddress]:
        datagram, ancillary, _, client = sock.recvmsg(size, _ANCILLARY_BYTES)
        [(level, kind, content)] = ancillary  # nothing else was asked for
        if level == socket.IPPROTO_IP:  # of interface, local address and destination only the second
            content = bytes(4) + content[4:8] + bytes(4)
        return datagram, (*client, (level, kind, content))

    def send_to(datagram: bytes, client: ClientAddress) -> int:
        *address, packet_information = client
        return sock.sendmsg([datagram], [packet_information], 0, tuple(address))

    return receive, send_to
