"""Who a connection's client is: what the kernel says, or the PROXY header of somebody who is believed."""

import re
import socket
from typing import Final

from l4relay.addresses import InetAddress
from l4relay.config.model import ProxyVersion
from l4relay.proxy_protocol import Endpoint, Header, serialise_v1, serialise_v2

_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f\x7f-\xff]*')
_NO_HEADER: Final = Header()


class Client:
    """The client's end of one connection.

    Attributes:
        source: Its IP address; over a Unix socket the path, which is "" as a rule.
        id: The connection's id, which goes on to the endpoint.
        proxy: Who told all this, if not the kernel.

    """

    __slots__ = ("_end", "_header", "id", "proxy", "source")

    def __init__(self, source: str, port: int, id: str) -> None:
        self.source = source
        self.id = id
        self.proxy = ""
        self._end: Endpoint = (source, port) if source else ""
        self._header = _NO_HEADER

    def __str__(self) -> str:
        return f"unix:{self._end}" if isinstance(self._end, str) else str(InetAddress(*self._end))

    def believe(self, header: Header) -> None:
        """Take the client's end and the connection's id from a PROXY header."""
        self._header = header
        self.proxy = str(self)
        if header.source is not None:
            self._end = header.source
            self.source = header.source if isinstance(header.source, str) else header.source[0]
        if header.unique_id:
            self.id = printable_id(header.unique_id)

    def proxy_header(self, version: ProxyVersion, sock: socket.socket) -> bytes:
        """Return what the endpoint is told; fields that came in go on.

        Args:
            version: As the endpoint expects it.
            sock: The client's socket, which knows the address that was connected to.

        """
        destination = self._header.destination
        if destination is None:
            name = sock.getsockname()
            destination = name if isinstance(name, str) else name[:2]
        if version == "v1":
            return serialise_v1(self._end, destination)
        return serialise_v2(
            self._end,
            destination,
            unique_id=self._header.unique_id or self.id.encode(),
            tlvs=self._header.tlvs,
            with_crc32c=version == "v2-crc32c",
        )


def printable_id(unique_id: bytes) -> str:
    """Return a connection's id as it stands in log lines: as it is where it can, else in hexadecimal."""
    return unique_id.decode() if _PLAIN.fullmatch(unique_id) else unique_id.hex()
