"""DNS messages, as far as asking for addresses needs them (RFC 1035 4).

Pure: bytes in, values out. A name is kept in its wire form, lower case and uncompressed, which is unambiguous
whatever octets its labels hold. Sending and choosing among servers is `resolve`'s.
"""

import socket
import struct
from enum import IntEnum
from typing import Final, NamedTuple


class RecordType(IntEnum):
    """The record types that are understood (RFC 1035 3.2.2, RFC 3596 2.1)."""

    A = 1
    CNAME = 5
    AAAA = 28


class DnsMessageError(ValueError):
    """A name that DNS cannot carry, or bytes that are no reply to the query."""


class Reply(NamedTuple):
    """What a server says.

    Attributes:
        code: The response code (RFC 1035 4.1.1).
        is_truncated: The answer did not fit and is left out.
        addresses: Those at the end of the chain of aliases that begins with the name asked for.
        ttl_s: How long they hold: the least of the answer's records, which are that chain.
    """

    code: int
    is_truncated: bool
    addresses: tuple[str, ...]
    ttl_s: int


class _Record(NamedTuple):
    """A resource record; the content of a CNAME is its target."""

    owner: bytes
    kind: int
    ttl_s: int
    content: bytes


_FAMILIES: Final = {RecordType.A: socket.AF_INET, RecordType.AAAA: socket.AF_INET6}
_HEADER: Final = struct.Struct("!6H")
_RECORD_TAIL: Final = struct.Struct("!2HIH")
_IN: Final = 1
_IS_REPLY, _OPCODE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0200, 0x0100
_MAX_NAME_BYTES: Final = 255
_MAX_LABEL_BYTES: Final = 63


def encode_name(name: str) -> bytes:
    """Return the wire form of a host name; a non-ASCII one in its IDNA form.

    Raises:
        DnsMessageError: a label is empty or over 63 bytes, or the name over 255.
    """
    try:
        labels = name.rstrip(".").encode("idna").lower().split(b".")
    except UnicodeError as error:
        raise DnsMessageError(f"{name!r} is no host name: {error}") from error
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if not all(labels) or len(wire) > _MAX_NAME_BYTES:
        raise DnsMessageError(f"{name!r} is no host name: it is too long, or a part of it is empty")
    return wire


def encode_query(query_id: int, name: bytes, kind: RecordType) -> bytes:
    """Return a query with recursion desired for a wire name."""
    return _HEADER.pack(query_id, _RECURSION_DESIRED, 1, 0, 0, 0) + name + struct.pack("!2H", kind, _IN)


def decode_reply(message: bytes, query: bytes) -> Reply:
    """Read the reply to `query`.

    Raises:
        DnsMessageError: it is another query's (id or question differ: RFC 5452 9.1), or malformed.
    """
    try:
        return _decode_reply(message, query)
    except (struct.error, IndexError, ValueError) as error:
        raise DnsMessageError(f"no reply to the query: {error}") from error


def _decode_reply(message: bytes, query: bytes) -> Reply:
    _, flags, questions, answers, *_ = _HEADER.unpack_from(message)
    if message[:2] != query[:2] or flags & (_IS_REPLY | _OPCODE) != _IS_REPLY or questions != 1:
        raise ValueError("its header does not fit")
    if message[_HEADER.size : len(query)].lower() != query[_HEADER.size :]:
        raise ValueError("its question is another")
    code = flags & 0xF
    if flags & _TRUNCATED:  # its records may be cut anywhere
        return Reply(code, True, (), 0)
    records = _decode_records(message, len(query), answers)
    name, kind = query[_HEADER.size : -4], RecordType(int.from_bytes(query[-4:-2], "big"))
    aliases = {record.owner: record.content for record in records if record.kind == RecordType.CNAME}
    while name in aliases:
        name = aliases.pop(name)  # each is taken once, so that a loop ends
    found = [record.content for record in records if record.owner == name and record.kind == kind]
    addresses = dict.fromkeys(socket.inet_ntop(_FAMILIES[kind], packed) for packed in found)
    ttl_s = min((record.ttl_s for record in records), default=0)
    return Reply(code, False, tuple(addresses), ttl_s)


def _decode_records(message: bytes, position: int, count: int) -> list[_Record]:
    records = []
    for _ in range(count):
        owner, position = _decode_name(message, position)
        kind, record_class, ttl_s, length = _RECORD_TAIL.unpack_from(message, position)
        start = position + _RECORD_TAIL.size
        position = end = start + length
        if end > len(message):
            raise ValueError("a record reaches over the end")
        content = message[start:end]
        if kind == RecordType.CNAME:
            content, end = _decode_name(message, start)
        if end != position:
            raise ValueError("an alias does not end with its record")
        if record_class == _IN:
            records.append(_Record(owner, kind, ttl_s, content))
    return records


def _decode_name(message: bytes, position: int) -> tuple[bytes, int]:
    """Return a name and the position behind it; pointers (RFC 1035 4.1.4) must lead backwards."""
    name = b""
    end = 0
    lowest = position
    while length := message[position]:
        if length >= 0xC0:
            end = end or position + 2
            position = (length & 0x3F) << 8 | message[position + 1]
            if position >= lowest:
                raise ValueError("a name points forwards")
            lowest = position
        else:
            name += message[position : position + 1 + length]
            position += 1 + length
            if length > _MAX_LABEL_BYTES or len(name) >= _MAX_NAME_BYTES:
                raise ValueError("a name is too long")
    return name.lower() + b"\0", end or position + 1
