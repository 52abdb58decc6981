"""The PROXY protocol, versions 1 and 2: who the client is, told ahead of the connection's own bytes.

Section numbers are those of HAProxy's proxy-protocol.txt. Pure: bytes in, values out. Whether a peer may send
a header at all is the caller's decision (section 5: it must never be guessed from the bytes alone).
"""

import os
import re
import socket
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from l4relay.addresses import ip_bytes

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


MAX_V1_BYTES: Final = 107
"""The longest version 1 line with its CRLF (2.1)."""

MAX_V2_BYTES: Final = 4096
"""The default bound on a version 2 header; the format itself allows 65,551."""

MAX_UNIQUE_ID_BYTES: Final = 128

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_BYTES: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNIX_BYTES: Final = 108
_ADDRESS_BYTES: Final = {Family.UNSPEC: 0, Family.INET: 12, Family.INET6: 36, Family.UNIX: 216}
_FIXED: Final = struct.Struct("!12sBBH")
_INET_HEADER: Final = struct.Struct("!12sBBH4s4sHH")
_INET6_HEADER: Final = struct.Struct("!12sBBH16s16sHH")
_UNIX_HEADER: Final = struct.Struct("!12sBBH108s108s")
_INET_BLOCK: Final = struct.Struct("!4s4sHH")
_INET6_BLOCK: Final = struct.Struct("!16s16sHH")
_TLV: Final = struct.Struct("!BH")
_CRC32C_ROOM: Final = b"\x03\x00\x04\x00\x00\x00\x00"
_MAPPED_PREFIX: Final = b"\x00" * 10 + b"\xff\xff"

_V1_KEYWORD: Final = b"PROXY "
_V1_LINE: Final = re.compile(
    rb"PROXY TCP(?:4 ([0-9.]{7,15}) ([0-9.]{7,15})|6 ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_V1_UNKNOWN: Final = b"PROXY UNKNOWN"
_V1_STARTS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", _V1_UNKNOWN)
_V1_REST: Final = re.compile(rb"[0-9a-fA-F:. ]*\r?")


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


# ------------------------------------------------------------------------------------------------ reading


def parse(buffer: bytes | bytearray, max_v2_bytes: int = MAX_V2_BYTES) -> tuple[Header, int] | None:
    """Read the header at the start of `buffer`.

    Returns:
        The header and its length, or None when it is not complete yet.

    Raises:
        ProxyProtocolError: it is no header, is longer than allowed, or breaks the format; raised as soon as
            the bytes show it.

    """
    if buffer.startswith(SIGNATURE):
        return _parse_v2(bytes(buffer[: max(max_v2_bytes, _FIXED_BYTES)]), max_v2_bytes)
    if buffer.startswith(_V1_KEYWORD):
        return _parse_v1(bytes(buffer[:MAX_V1_BYTES]))
    if SIGNATURE.startswith(buffer) or _V1_KEYWORD.startswith(buffer):
        return None
    raise ProxyProtocolError("the connection does not begin with a PROXY header")


def _parse_v1(start: bytes) -> tuple[Header, int] | None:
    length = start.find(b"\r\n") + 2
    if length == 1:  # 2.1: a receiver may give up after 107 bytes without CRLF
        if len(start) >= MAX_V1_BYTES or not _can_become_v1(start):
            raise ProxyProtocolError("malformed PROXY version 1 line")
        return None
    if start.startswith((_V1_UNKNOWN + b" ", _V1_UNKNOWN + b"\r\n")):  # 2.1: what follows UNKNOWN is ignored
        return Header(transport=Transport.UNSPEC), length
    match = _V1_LINE.fullmatch(start, 0, length)
    if match is None:
        raise ProxyProtocolError("malformed PROXY version 1 line")
    source4, destination4, source6, destination6, source_port, destination_port = match.groups()
    if source4 is not None:
        family, source, destination = socket.AF_INET, source4.decode(), destination4.decode()
    else:
        family, source, destination = socket.AF_INET6, source6.decode(), destination6.decode()
    return Header(
        _v1_endpoint(family, source, source_port), _v1_endpoint(family, destination, destination_port)
    ), length


def _can_become_v1(start: bytes) -> bool:
    """Say whether a line without its CRLF yet may still turn out well."""
    for expected in _V1_STARTS:
        if expected.startswith(start):
            return True
        if start.startswith(expected):
            return expected == _V1_UNKNOWN or _V1_REST.fullmatch(start, len(expected)) is not None
    return False


def _v1_endpoint(family: socket.AddressFamily, address: str, port_digits: bytes) -> Endpoint:
    port = int(port_digits)
    if port > 0xFFFF:
        raise ProxyProtocolError(f"PROXY version 1: {port} is no port")
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address)), port
    except OSError as error:
        raise ProxyProtocolError(f"PROXY version 1: {address} is no address") from error


def _parse_v2(start: bytes, max_bytes: int) -> tuple[Header, int] | None:
    if len(start) > 12 and start[12] not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"PROXY version 2: unexpected version or command 0x{start[12]:02x}")
    if len(start) < _FIXED_BYTES:
        return None
    length = _FIXED_BYTES + int.from_bytes(start[14:16], "big")
    if length > max_bytes:
        raise ProxyProtocolError(
            f"PROXY version 2: a header of {length} bytes, at most {max_bytes} are accepted"
        )
    if start[12] == _LOCAL:  # 2.2: the block is skipped, its family is ignored
        return (LOCAL, length) if len(start) >= length else None
    try:
        family, transport = Family(start[13] >> 4), Transport(start[13] & 15)
    except ValueError as error:
        raise ProxyProtocolError(f"PROXY version 2: unknown family or transport 0x{start[13]:02x}") from error
    tlvs_at = _FIXED_BYTES + _ADDRESS_BYTES[family]
    if tlvs_at > length:
        raise ProxyProtocolError(
            f"PROXY version 2: {length - _FIXED_BYTES} bytes are too few for {family.name}"
        )
    if len(start) < length:
        return None
    header = start[:length]
    tlvs = _parse_tlvs(header, tlvs_at)
    if family is Family.UNSPEC or transport is Transport.UNSPEC:  # 2.2: the addresses are to be ignored
        return Header(transport=transport, tlvs=tlvs), length
    source, destination = _v2_endpoints(family, header)
    return Header(source, destination, transport, tlvs), length


def _v2_endpoints(family: Family, header: bytes) -> tuple[Endpoint, Endpoint]:
    if family is Family.UNIX:
        middle = _FIXED_BYTES + _UNIX_BYTES
        return _unix_path(header[_FIXED_BYTES:middle]), _unix_path(header[middle : middle + _UNIX_BYTES])
    if family is Family.INET:
        block, system_family = _INET_BLOCK, socket.AF_INET
    else:
        block, system_family = _INET6_BLOCK, socket.AF_INET6
    source, destination, source_port, destination_port = block.unpack_from(header, _FIXED_BYTES)
    return (
        (socket.inet_ntop(system_family, source), source_port),
        (socket.inet_ntop(system_family, destination), destination_port),
    )


def _unix_path(field: bytes) -> str:
    if field.startswith(b"\0"):  # unnamed, or a name in Linux's abstract space
        return os.fsdecode(field.rstrip(b"\0"))
    return os.fsdecode(field.partition(b"\0")[0])


def _parse_tlvs(header: bytes, position: int) -> tuple[Tlv, ...]:
    tlvs: list[Tlv] = []
    has_checksum = False
    while position < len(header):
        value_at = position + 3
        end = value_at + int.from_bytes(header[position + 1 : value_at], "big")
        if value_at > len(header) or end > len(header):
            raise ProxyProtocolError("PROXY version 2: a TLV reaches over the end of the header")
        kind, value = header[position], header[value_at:end]
        if kind == TlvType.CRC32C:
            if has_checksum:
                raise ProxyProtocolError("PROXY version 2: more than one checksum")
            has_checksum = True
            _verify_checksum(header, value_at, value)
        elif kind == TlvType.UNIQUE_ID and len(value) > MAX_UNIQUE_ID_BYTES:
            raise ProxyProtocolError(f"PROXY version 2: a unique id of more than {MAX_UNIQUE_ID_BYTES} bytes")
        elif kind != TlvType.NOOP:
            tlvs.append((kind, value))
        position = end
    return tuple(tlvs)


def _verify_checksum(header: bytes, value_at: int, value: bytes) -> None:
    """Check the header's CRC32C, taken with zeros in the checksum's own place (2.2.3)."""
    if len(value) != 4 or crc32c(header[:value_at] + b"\0\0\0\0" + header[value_at + 4 :]) != int.from_bytes(
        value, "big"
    ):
        raise ProxyProtocolError("PROXY version 2: the CRC32C checksum does not match")


# ------------------------------------------------------------------------------------------------ writing


def serialise_v1(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """Return the version 1 line; ``UNKNOWN`` where the ends are not both TCP over IP (2.1)."""
    if isinstance(source, tuple) and isinstance(destination, tuple):
        family, packed_source, packed_destination = _common_family(source[0], destination[0])
        name, system_family = ("4", socket.AF_INET) if family is Family.INET else ("6", socket.AF_INET6)
        source_text = socket.inet_ntop(system_family, packed_source)
        destination_text = socket.inet_ntop(system_family, packed_destination)
        return f"PROXY TCP{name} {source_text} {destination_text} {source[1]} {destination[1]}\r\n".encode()
    return b"PROXY UNKNOWN\r\n"


def serialise_v2(
    source: Endpoint | None,
    destination: Endpoint | None,
    *,
    transport: Transport = Transport.STREAM,
    tlvs: Iterable[Tlv] = (),
    with_crc32c: bool = False,
) -> bytes:
    """Return the version 2 header for a relayed connection (2.2).

    Where the ends are not of one kind, or not known, the family is UNSPEC and only the TLVs are told. An
    IPv4 and an IPv6 end are both written as IPv6.

    Args:
        source: The client's end, as `Header.source`.
        destination: The end that the client connected to.
        transport: STREAM, or DGRAM for UDP.
        tlvs: Further fields, such as `unique_id_tlv`; not CRC32C.
        with_crc32c: Append a checksum (2.2.3).

    Raises:
        ValueError: an address is no IP address, a Unix path is over 108 bytes, or a TLV over 65,535.

    """
    trailer = b"".join([_TLV.pack(kind, len(value)) + value for kind, value in tlvs]) if tlvs else b""
    if with_crc32c:
        trailer += _CRC32C_ROOM
    if isinstance(source, tuple) and isinstance(destination, tuple):
        family, packed_source, packed_destination = _common_family(source[0], destination[0])
        layout = _INET_HEADER if family is Family.INET else _INET6_HEADER
        start = layout.pack(
            SIGNATURE,
            _PROXY,
            family << 4 | transport,
            layout.size - _FIXED_BYTES + len(trailer),
            packed_source,
            packed_destination,
            source[1],
            destination[1],
        )
    elif isinstance(source, str) and isinstance(destination, str):
        start = _UNIX_HEADER.pack(
            SIGNATURE,
            _PROXY,
            Family.UNIX << 4 | transport,
            2 * _UNIX_BYTES + len(trailer),
            _unix_field(source),
            _unix_field(destination),
        )
    else:
        start = _FIXED.pack(SIGNATURE, _PROXY, 0, len(trailer))
    if not with_crc32c:
        return start + trailer
    header = start + trailer
    return header[:-4] + crc32c(header).to_bytes(4, "big")


LOCAL_V2: Final = _FIXED.pack(SIGNATURE, _LOCAL, 0, 0)
"""The version 2 header of a connection of our own, such as a health check (2.2)."""


def serialise(header: Header, *, version: int = 2, with_crc32c: bool = False) -> bytes:
    """Return `header` in the given version; version 1 has no room for TLVs, and says UNKNOWN for LOCAL.

    Raises:
        ValueError: as `serialise_v2`.

    """
    if version == 1:
        if header.transport is not Transport.STREAM:
            return serialise_v1(None, None)
        return serialise_v1(header.source, header.destination)
    if header.is_local:
        return LOCAL_V2
    return serialise_v2(
        header.source,
        header.destination,
        transport=header.transport,
        tlvs=header.tlvs,
        with_crc32c=with_crc32c,
    )


def unique_id_tlv(unique_id: bytes) -> Tlv:
    """Return the TLV that carries a connection's unique id (2.2.5).

    Raises:
        ValueError: it has more than 128 bytes.

    """
    if len(unique_id) > MAX_UNIQUE_ID_BYTES:
        raise ValueError(f"a unique id has at most {MAX_UNIQUE_ID_BYTES} bytes, not {len(unique_id)}")
    return TlvType.UNIQUE_ID, unique_id


def _common_family(source: str, destination: str) -> tuple[Family, bytes, bytes]:
    packed_source, packed_destination = ip_bytes(source), ip_bytes(destination)
    if packed_source is None or packed_destination is None:
        raise ValueError(f"{source!r} and {destination!r} are not both IP addresses")
    if len(packed_source) == len(packed_destination):
        return (Family.INET if len(packed_source) == 4 else Family.INET6), packed_source, packed_destination
    return Family.INET6, _as_ipv6(packed_source), _as_ipv6(packed_destination)


def _as_ipv6(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED_PREFIX + packed


def _unix_field(path: str) -> bytes:
    encoded = os.fsencode(path)
    if len(encoded) > _UNIX_BYTES:
        raise ValueError(f"the path of a Unix socket has at most {_UNIX_BYTES} bytes: {path!r}")
    return encoded


# ------------------------------------------------------------------------------------------------ CRC32C


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for remainder in range(256):
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


_CRC32C_TABLE: Final = _crc32c_table()


def crc32c(buffer: bytes) -> int:
    """Return the CRC32C (Castagnoli) checksum of RFC 9260 Appendix A (formerly RFC 4960 Appendix B)."""
    table = _CRC32C_TABLE
    remainder = 0xFFFFFFFF
    for byte in buffer:
        remainder = remainder >> 8 ^ table[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF
