"""The PROXY protocol, versions 1 and 2: who the client is, told ahead of the connection's own bytes.

Section numbers are those of HAProxy's proxy-protocol.txt. Pure: bytes in, values out. Whether a peer may send
a header at all is the caller's decision (section 5: it must never be guessed from the bytes alone).
"""

import os
import re
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from l4relay.addresses import MAPPED_PREFIX, ip_bytes

Endpoint = tuple[str, int] | str
"""One end of a connection: address and port, or a Unix socket's path ("" where it is unnamed)."""

Tlv = tuple[int, bytes]

MAX_V1_BYTES: Final = 107
"""The longest version 1 line with its CRLF (2.1)."""
MAX_V2_BYTES: Final = 4096
"""The bound on a version 2 header; the format itself allows 65,551."""
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"

_V1_ENDS: Final = rb"([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
_V1_LINE: Final = re.compile(rb"PROXY (?:TCP([46]) " + _V1_ENDS + rb"|UNKNOWN(?: .*)?)\r\n", re.DOTALL)
_V1_START: Final = re.compile(rb"PROXY (?:TCP[46] [0-9a-fA-F:. ]*\r?|UNKNOWN.*)", re.DOTALL)
_V1_KEYWORDS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")

_FIXED: Final = struct.Struct("!12sBBH")
"""Signature, version and command, family and transport, and the length of what follows (2.2)."""
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_MAX_TRANSPORT: Final = 2
_INET_ENDS: Final = struct.Struct("!4s4sHH")
_INET6_ENDS: Final = struct.Struct("!16s16sHH")
_UNIX_ENDS: Final = struct.Struct("!108s108s")
_ENDS: Final = (struct.Struct("!"), _INET_ENDS, _INET6_ENDS, _UNIX_ENDS)
"""By family, the upper half of the 14th byte."""

_TLV: Final = struct.Struct("!BH")
_CRC32C, _NOOP, _UNIQUE_ID = 3, 4, 5
_MAX_UNIQUE_ID_BYTES: Final = 128

LOCAL_V2: Final = _FIXED.pack(SIGNATURE, _LOCAL, _UNSPEC, 0)
"""The version 2 header of a connection of our own, such as a health check (2.2)."""


class ProxyProtocolError(ValueError):
    """The bytes are no PROXY header, or can no longer become one: the connection is to be closed (2)."""


class Header(NamedTuple):
    """What a PROXY header says.

    Attributes:
        source: The client's end; None where the header does not tell (LOCAL, UNKNOWN), and then the
            connection's own ends count.
        destination: The end that the client connected to; None together with `source`.
        unique_id: The connection's id (2.2.5), empty where there is none.
        tlvs: Version 2's other type-length-value fields, in order; not CRC32C and NOOP.

    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
    unique_id: bytes = b""
    tlvs: tuple[Tlv, ...] = ()


def parse(buffer: bytes | bytearray) -> tuple[Header, int] | None:
    """Read the header at the start of `buffer`.

    Returns:
        The header and its length, or None when it is not complete yet.

    Raises:
        ProxyProtocolError: it is no header, is longer than allowed, or breaks the format; raised as soon as
            the bytes show it.

    """
    if SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
        return _parse_v2(bytes(buffer[:MAX_V2_BYTES]))
    return _parse_v1(bytes(buffer[:MAX_V1_BYTES]))


def _parse_v1(start: bytes) -> tuple[Header, int] | None:
    length = start.find(b"\r\n") + 2
    if length == 1 and len(start) < MAX_V1_BYTES and _can_become_v1(start):
        return None
    match = _V1_LINE.fullmatch(start, 0, length)
    if match is None:
        raise ProxyProtocolError("the connection does not begin with a well-formed PROXY header")
    version, source, destination, source_port, destination_port = match.groups()
    if version is None:  # 2.1: what follows UNKNOWN is ignored
        return Header(), length
    family = socket.AF_INET if version == b"4" else socket.AF_INET6
    ends = _v1_endpoint(family, source, source_port), _v1_endpoint(family, destination, destination_port)
    return Header(*ends), length


def _can_become_v1(start: bytes) -> bool:
    """Say whether a line without its CRLF may still turn out well; what lacks of a keyword is added."""
    return any(_V1_START.fullmatch(start + keywords[len(start) :]) for keywords in _V1_KEYWORDS)


def _v1_endpoint(family: socket.AddressFamily, address: bytes, port_digits: bytes) -> Endpoint:
    port = int(port_digits)
    if port > 0xFFFF:
        raise ProxyProtocolError(f"PROXY version 1: {port} is no port")
    try:
        return _address_text(socket.inet_pton(family, address.decode())), port
    except OSError as error:
        raise ProxyProtocolError(f"PROXY version 1: {address.decode()} is no address") from error


def _parse_v2(start: bytes) -> tuple[Header, int] | None:
    if len(start) > 12 and start[12] not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"PROXY version 2: unexpected version or command 0x{start[12]:02x}")
    if len(start) < _FIXED.size:
        return None
    _, command, kind, size = _FIXED.unpack_from(start)
    length = _FIXED.size + size
    if length > MAX_V2_BYTES:
        raise ProxyProtocolError(
            f"PROXY version 2: a header of {length} bytes, at most {MAX_V2_BYTES} are accepted"
        )
    if command == _LOCAL:  # 2.2: the block is skipped, its family is ignored
        return (Header(), length) if len(start) >= length else None
    family, transport = kind >> 4, kind & 15
    if family >= len(_ENDS) or transport > _MAX_TRANSPORT or size < _ENDS[family].size:
        raise ProxyProtocolError(f"PROXY version 2: no family and transport 0x{kind:02x} of {size} bytes")
    if len(start) < length:
        return None
    header = start[:length]
    unique_id, tlvs = _parse_tlvs(header, _FIXED.size + _ENDS[family].size)
    if not family or not transport:  # 2.2: unspecified; the addresses are to be ignored
        return Header(unique_id=unique_id, tlvs=tlvs), length
    source, destination, *ports = _ENDS[family].unpack_from(header, _FIXED.size)
    if not ports:
        return Header(_unix_path(source), _unix_path(destination), unique_id, tlvs), length
    ends = (_address_text(source), ports[0]), (_address_text(destination), ports[1])
    return Header(*ends, unique_id, tlvs), length


def _unix_path(field: bytes) -> str:
    if field.startswith(b"\0"):  # unnamed, or a name in Linux's abstract space
        return os.fsdecode(field.rstrip(b"\0"))
    return os.fsdecode(field.partition(b"\0")[0])


def _parse_tlvs(header: bytes, position: int) -> tuple[bytes, tuple[Tlv, ...]]:
    unique_id = b""
    tlvs: list[Tlv] = []
    has_checksum = False
    while position < len(header):
        value_at = position + _TLV.size
        end = value_at + int.from_bytes(header[position + 1 : value_at], "big")
        if end > len(header):
            raise ProxyProtocolError("PROXY version 2: a TLV reaches over the end of the header")
        kind, value = header[position], header[value_at:end]
        if kind == _CRC32C:
            if has_checksum or value != _checksum(header, value_at):
                raise ProxyProtocolError("PROXY version 2: the CRC32C checksum does not match")
            has_checksum = True
        elif kind == _UNIQUE_ID:
            if len(value) > _MAX_UNIQUE_ID_BYTES:
                raise ProxyProtocolError(
                    f"PROXY version 2: a unique id of more than {_MAX_UNIQUE_ID_BYTES} bytes"
                )
            unique_id = unique_id or value
        elif kind != _NOOP:
            tlvs.append((kind, value))
        position = end
    return unique_id, tuple(tlvs)


def serialise_v1(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """Return the version 1 line; ``UNKNOWN`` where the ends are not both TCP over IP (2.1)."""
    if not isinstance(source, tuple) or not isinstance(destination, tuple):
        return b"PROXY UNKNOWN\r\n"
    addresses = _in_one_family(source[0], destination[0])
    version = 4 if len(addresses[0]) == 4 else 6
    texts = " ".join(map(_address_text, addresses))
    return f"PROXY TCP{version} {texts} {source[1]} {destination[1]}\r\n".encode()


def serialise_v2(
    source: Endpoint | None,
    destination: Endpoint | None,
    *,
    unique_id: bytes = b"",
    tlvs: Iterable[Tlv] = (),
    with_crc32c: bool = False,
) -> bytes:
    """Return the version 2 header for a relayed stream (2.2).

    Where the ends are not of one kind, or not known, the family is UNSPEC and only the TLVs are told. An
    IPv4 and an IPv6 end are both written as IPv6.

    Args:
        source: The client's end, as `Header.source`.
        destination: The end that the client connected to.
        unique_id: The connection's id, at most 128 bytes.
        tlvs: Further fields, as `Header.tlvs`.
        with_crc32c: Append a checksum (2.2.3).

    Raises:
        ValueError: an address is no IP address.

    """
    if isinstance(source, tuple) and isinstance(destination, tuple):
        addresses = _in_one_family(source[0], destination[0])
        kind, layout = (_TCP4, _INET_ENDS) if len(addresses[0]) == 4 else (_TCP6, _INET6_ENDS)
        block = layout.pack(*addresses, source[1], destination[1])
    elif isinstance(source, str) and isinstance(destination, str):
        kind, block = _UNIX_STREAM, _UNIX_ENDS.pack(os.fsencode(source), os.fsencode(destination))
    else:
        kind, block = _UNSPEC, b""
    if unique_id:
        block += _TLV.pack(_UNIQUE_ID, len(unique_id)) + unique_id
    for field, value in tlvs:
        block += _TLV.pack(field, len(value)) + value
    if with_crc32c:
        block += _TLV.pack(_CRC32C, 4) + bytes(4)
    header = _FIXED.pack(SIGNATURE, _PROXY, kind, len(block)) + block
    return header[:-4] + _checksum(header, len(header) - 4) if with_crc32c else header


def _in_one_family(source: str, destination: str) -> tuple[bytes, bytes]:
    packed_source, packed_destination = ip_bytes(source), ip_bytes(destination)
    if packed_source is None or packed_destination is None:
        raise ValueError(f"{source!r} and {destination!r} are not both IP addresses")
    if len(packed_source) == len(packed_destination):
        return packed_source, packed_destination
    return (MAPPED_PREFIX + packed_source)[-16:], (MAPPED_PREFIX + packed_destination)[-16:]


def _address_text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _remainder(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    return number


_REMAINDERS: Final = tuple(map(_remainder, range(256)))


def crc32c(buffer: bytes) -> int:
    """Return the CRC32C (Castagnoli) checksum of RFC 9260 Appendix A, which the standard library lacks."""
    remainders = _REMAINDERS
    remainder = 0xFFFFFFFF
    for byte in buffer:
        remainder = remainder >> 8 ^ remainders[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF


def _checksum(header: bytes, value_at: int) -> bytes:
    """Return the header's CRC32C, taken with zeros in the checksum's own place (2.2.3)."""
    return crc32c(header[:value_at] + bytes(4) + header[value_at + 4 :]).to_bytes(4, "big")
