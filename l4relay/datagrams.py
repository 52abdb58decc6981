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
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound


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
        if sock.getsockname()[0] in _WILDCARDS:
            self._ask_for_packet_information()
            self.receive = self._receive_with_destination
            self.send_to = self._send_from_destination

    def _ask_for_packet_information(self) -> None:
        if self._sock.family == socket.AF_INET6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if self._sock.family == socket.AF_INET:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _receive_with_destination(self, size: int) -> tuple[bytes, ClientAddress]:
        datagram, ancillary, _, client = self._sock.recvmsg(size, _ANCILLARY_BYTES)
        for level, kind, content in ancillary:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                _, _, local = _IN_PKTINFO.unpack(content)
                return datagram, (*client, (level, kind, _IN_PKTINFO.pack(0, local, bytes(4))))
            if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                return datagram, (*client, (level, kind, content))
        return datagram, (*client, None)

    def _send_from_destination(self, datagram: bytes, client: ClientAddress) -> int:
        *address, packet_information = client
        ancillary = [packet_information] if packet_information is not None else []
        return self._sock.sendmsg([datagram], ancillary, 0, tuple(address))
