"""Reading a PROXY header of version 1 or 2: bytes in, `Header` out."""

import os
import re
import socket
import struct
from typing import Final

from l4relay.proxy_protocol.crc32c import crc32c
from l4relay.proxy_protocol.header import (
    FIXED_BYTES,
    LOCAL,
    LOCAL_COMMAND,
    MAX_UNIQUE_ID_BYTES,
    PROXY_COMMAND,
    SIGNATURE,
    UNIX_PATH_BYTES,
    V1_KEYWORD,
    V1_UNKNOWN,
    Endpoint,
    Family,
    Header,
    ProxyProtocolError,
    Tlv,
    TlvType,
    Transport,
)

MAX_V1_BYTES: Final = 107
"""The longest version 1 line with its CRLF (2.1)."""
MAX_V2_BYTES: Final = 4096
"""The default bound on a version 2 header; the format itself allows 65,551."""

_V1_LINE: Final = re.compile(
    rb"PROXY TCP(?:4 ([0-9.]{7,15}) ([0-9.]{7,15})|6 ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_V1_STARTS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", V1_UNKNOWN)
_V1_REST: Final = re.compile(rb"[0-9a-fA-F:. ]*\r?")
_ADDRESS_BYTES: Final = {Family.UNSPEC: 0, Family.INET: 12, Family.INET6: 36, Family.UNIX: 216}
_INET_BLOCK: Final = struct.Struct("!4s4sHH")
_INET6_BLOCK: Final = struct.Struct("!16s16sHH")


def parse(buffer: bytes | bytearray, max_v2_bytes: int = MAX_V2_BYTES) -> tuple[Header, int] | None:
    """Read the header at the start of `buffer`.

    Returns:
        The header and its length, or None when it is not complete yet.

    Raises:
        ProxyProtocolError: it is no header, is longer than allowed, or breaks the format; raised as soon as
            the bytes show it.

    """
    if buffer.startswith(SIGNATURE):
        return _parse_v2(bytes(buffer[: max(max_v2_bytes, FIXED_BYTES)]), max_v2_bytes)
    if buffer.startswith(V1_KEYWORD):
        return _parse_v1(bytes(buffer[:MAX_V1_BYTES]))
    if SIGNATURE.startswith(buffer) or V1_KEYWORD.startswith(buffer):
        return None
    raise ProxyProtocolError("the connection does not begin with a PROXY header")


def _parse_v1(start: bytes) -> tuple[Header, int] | None:
    length = start.find(b"\r\n") + 2
    if length == 1:  # 2.1: a receiver may give up after 107 bytes without CRLF
        if len(start) >= MAX_V1_BYTES or not _can_become_v1(start):
            raise ProxyProtocolError("malformed PROXY version 1 line")
        return None
    if start.startswith((V1_UNKNOWN + b" ", V1_UNKNOWN + b"\r\n")):  # 2.1: what follows UNKNOWN is ignored
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
            return expected == V1_UNKNOWN or _V1_REST.fullmatch(start, len(expected)) is not None
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
    if len(start) > 12 and start[12] not in (LOCAL_COMMAND, PROXY_COMMAND):
        raise ProxyProtocolError(f"PROXY version 2: unexpected version or command 0x{start[12]:02x}")
    if len(start) < FIXED_BYTES:
        return None
    length = FIXED_BYTES + int.from_bytes(start[14:16], "big")
    if length > max_bytes:
        raise ProxyProtocolError(
            f"PROXY version 2: a header of {length} bytes, at most {max_bytes} are accepted"
        )
    if start[12] == LOCAL_COMMAND:  # 2.2: the block is skipped, its family is ignored
        return (LOCAL, length) if len(start) >= length else None
    try:
        family, transport = Family(start[13] >> 4), Transport(start[13] & 15)
    except ValueError as error:
        raise ProxyProtocolError(f"PROXY version 2: unknown family or transport 0x{start[13]:02x}") from error
    tlvs_at = FIXED_BYTES + _ADDRESS_BYTES[family]
    if tlvs_at > length:
        raise ProxyProtocolError(
            f"PROXY version 2: {length - FIXED_BYTES} bytes are too few for {family.name}"
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
        middle = FIXED_BYTES + UNIX_PATH_BYTES
        return _unix_path(header[FIXED_BYTES:middle]), _unix_path(header[middle : middle + UNIX_PATH_BYTES])
    if family is Family.INET:
        block, system_family = _INET_BLOCK, socket.AF_INET
    else:
        block, system_family = _INET6_BLOCK, socket.AF_INET6
    source, destination, source_port, destination_port = block.unpack_from(header, FIXED_BYTES)
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
