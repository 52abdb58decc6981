"""Who a connection's client is: what the kernel says, or the PROXY header of somebody who is believed."""

import socket

from l4relay.config.model import ProxyVersion
from l4relay.proxy_protocol import (
    Endpoint,
    Header,
    Tlv,
    TlvType,
    serialise_v1,
    serialise_v2,
    unique_id_tlv,
)


class Client:
    """The client's end of one connection.

    Attributes:
        source: Its IP address; over a Unix socket the path, which is "" as a rule.
        port: Its port; 0 over a Unix socket, or where a PROXY header tells none.
        id: The connection's id, which goes on to the endpoint.
        proxy: Who told all this, if not the kernel.

    """

    __slots__ = ("_header", "_is_unix", "id", "port", "proxy", "source")

    def __init__(self, source: str, port: int, id: str) -> None:
        self.source = source
        self.port = port
        self.id = id
        self.proxy = ""
        self._header: Header | None = None
        self._is_unix = not source

    def __str__(self) -> str:
        if self._is_unix:
            return f"unix:{self.source}"
        return f"[{self.source}]:{self.port}" if ":" in self.source else f"{self.source}:{self.port}"

    def believe(self, header: Header) -> None:
        """Take the client's end and the connection's id from a PROXY header."""
        self._header = header
        self.proxy = str(self)
        if isinstance(header.source, tuple):
            (self.source, self.port), self._is_unix = header.source, False
        elif header.source is not None:
            self.source, self.port, self._is_unix = header.source, 0, True
        unique_id = header.unique_id
        if unique_id:
            self.id = printable_id(unique_id)

    def proxy_header(self, version: ProxyVersion, sock: socket.socket) -> bytes:
        """Return what the endpoint is told; fields that came in go on.

        Args:
            version: As the endpoint expects it.
            sock: The client's socket, which knows the address that was connected to.

        """
        received = self._header
        source: Endpoint = self.source if self._is_unix else (self.source, self.port)
        destination: Endpoint
        if received is not None and received.destination is not None:
            destination = received.destination
        else:
            name = sock.getsockname()
            destination = name if isinstance(name, str) else (name[0], name[1])
        if version == "v1":
            return serialise_v1(source, destination)
        tlvs: list[Tlv] = [unique_id_tlv(self.id.encode())]
        if received is not None:
            tlvs += [tlv for tlv in received.tlvs if tlv[0] != TlvType.UNIQUE_ID]
        return serialise_v2(source, destination, tlvs=tlvs, with_crc32c=version == "v2-crc32c")


def printable_id(unique_id: bytes) -> str:
    """Return a connection's id as it stands in log lines: as it is where it can, else in hexadecimal."""
    is_text = unique_id.isascii() and unique_id.decode().isprintable()
    is_plain = is_text and b'"' not in unique_id and b"\\" not in unique_id
    return unique_id.decode() if is_plain else unique_id.hex()
