"""A UDP listener's socket, and answering from the address that was asked.

A socket bound to a wildcard address (0.0.0.0, ::) would answer from whatever address the route prefers; a
client that asked another one of this machine's drops such answers. So there the address that a datagram came
to is noted for its client (IP_PKTINFO, ip(7); IPV6_RECVPKTINFO, RFC 3542 6) and given with the reply.
"""

import socket
import struct
from collections.abc import Callable
from typing import Any, Final

ClientAddress = tuple[Any, ...]
"""As the socket gives it; on a wildcard socket the packet information comes behind."""

_IP_PKTINFO: Final = 8  # named in socket since 3.14
_IN_PKTINFO: Final = struct.Struct("=i4s4s")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
_WILDCARDS: Final = {
    "0.0.0.0": (socket.IPPROTO_IP, _IP_PKTINFO),  # noqa: S104 - recognised, not bound
    "::": (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}


class DatagramSocket:
    """Receives from many clients and answers each.

    Attributes:
        receive: Returns a datagram of at most so many bytes, and whose it is.
        send_to: Sends a datagram to a client.

    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.receive: Callable[[int], tuple[bytes, ClientAddress]] = sock.recvfrom
        self.send_to: Callable[[bytes, ClientAddress], int] = sock.sendto
        option = _WILDCARDS.get(sock.getsockname()[0])
        if option is not None:
            sock.setsockopt(*option, 1)
            self.receive = self._receive_with_destination
            self.send_to = self._send_from_destination

    def _receive_with_destination(self, size: int) -> tuple[bytes, ClientAddress]:
        datagram, ancillary, _, client = self._sock.recvmsg(size, _ANCILLARY_BYTES)
        [(level, kind, content)] = ancillary  # nothing else was asked for
        if level == socket.IPPROTO_IP:
            _, _, local = _IN_PKTINFO.unpack(content)
            content = _IN_PKTINFO.pack(0, local, bytes(4))
        return datagram, (*client, (level, kind, content))

    def _send_from_destination(self, datagram: bytes, client: ClientAddress) -> int:
        *address, packet_information = client
        return self._sock.sendmsg([datagram], [packet_information], 0, tuple(address))
