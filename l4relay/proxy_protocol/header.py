"""What a PROXY header says, and the numbers that version 2 says it with (2.2 of proxy-protocol.txt)."""

from enum import IntEnum
from typing import Final, NamedTuple

Endpoint = tuple[str, int] | str
"""One end of a connection: address and port, or a Unix socket's path ("" where it is unnamed)."""

Tlv = tuple[int, bytes]


class Family(IntEnum):
    """Address family, the upper half of version 2's 14th byte (2.2)."""

    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3


class Transport(IntEnum):
    """Transport protocol, the lower half of version 2's 14th byte (2.2)."""

    UNSPEC = 0
    STREAM = 1
    DGRAM = 2


class TlvType(IntEnum):
    """The types that mean something here (2.2.1 to 2.2.5); all others are kept as they came."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05


MAX_UNIQUE_ID_BYTES: Final = 128

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES: Final = 16
"""Signature, version and command, family and transport, and the length of what follows."""
LOCAL_COMMAND, PROXY_COMMAND = 0x20, 0x21
UNIX_PATH_BYTES: Final = 108
V1_KEYWORD: Final = b"PROXY "
V1_UNKNOWN: Final = b"PROXY UNKNOWN"


class ProxyProtocolError(ValueError):
    """The bytes are no PROXY header, or can no longer become one: the connection is to be closed (2)."""


class Header(NamedTuple):
    """What a PROXY header says.

    Attributes:
        source: The client's end; None where the header does not tell (LOCAL, UNKNOWN), and then the
            connection's own ends count.
        destination: The end that the client connected to; None together with `source`.
        transport: What the client speaks.
        tlvs: Version 2's type-length-value fields but CRC32C and NOOP, in order, unknown types among them.
        is_local: The sender's own connection, such as a health check (2.2, command LOCAL).

    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
    transport: Transport = Transport.STREAM
    tlvs: tuple[Tlv, ...] = ()
    is_local: bool = False

    @property
    def unique_id(self) -> bytes | None:
        """The connection's unique id (2.2.5), None where there is none."""
        return next((value for kind, value in self.tlvs if kind == TlvType.UNIQUE_ID), None)


LOCAL: Final = Header(transport=Transport.UNSPEC, is_local=True)
