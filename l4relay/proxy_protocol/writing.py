"""Writing a PROXY header of version 1 or 2."""

import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

from l4relay.addresses import MAPPED_PREFIX, ip_bytes
from l4relay.proxy_protocol.crc32c import crc32c
from l4relay.proxy_protocol.header import (
    FIXED_BYTES,
    LOCAL_COMMAND,
    MAX_UNIQUE_ID_BYTES,
    PROXY_COMMAND,
    SIGNATURE,
    UNIX_PATH_BYTES,
    Endpoint,
    Family,
    Tlv,
    TlvType,
    Transport,
)

_FIXED: Final = struct.Struct("!12sBBH")
_INET_HEADER: Final = struct.Struct("!12sBBH4s4sHH")
_INET6_HEADER: Final = struct.Struct("!12sBBH16s16sHH")
_UNIX_HEADER: Final = struct.Struct("!12sBBH108s108s")
_TLV: Final = struct.Struct("!BH")
_CRC32C_ROOM: Final = b"\x03\x00\x04\x00\x00\x00\x00"


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
            PROXY_COMMAND,
            family << 4 | transport,
            layout.size - FIXED_BYTES + len(trailer),
            packed_source,
            packed_destination,
            source[1],
            destination[1],
        )
    elif isinstance(source, str) and isinstance(destination, str):
        start = _UNIX_HEADER.pack(
            SIGNATURE,
            PROXY_COMMAND,
            Family.UNIX << 4 | transport,
            2 * UNIX_PATH_BYTES + len(trailer),
            _unix_field(source),
            _unix_field(destination),
        )
    else:
        start = _FIXED.pack(SIGNATURE, PROXY_COMMAND, 0, len(trailer))
    if not with_crc32c:
        return start + trailer
    header = start + trailer
    return header[:-4] + crc32c(header).to_bytes(4, "big")


LOCAL_V2: Final = _FIXED.pack(SIGNATURE, LOCAL_COMMAND, 0, 0)
"""The version 2 header of a connection of our own, such as a health check (2.2)."""


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
    return packed if len(packed) == 16 else MAPPED_PREFIX + packed


def _unix_field(path: str) -> bytes:
    encoded = os.fsencode(path)
    if len(encoded) > UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket has at most {UNIX_PATH_BYTES} bytes: {path!r}")
    return encoded
