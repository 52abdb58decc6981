"""DNS messages, as far as asking for addresses needs them: RFC 1035 4, negative answers by RFC 2308.

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
    SOA = 6
    AAAA = 28


class ResponseCode(IntEnum):
    """The two response codes that settle a question (RFC 1035 4.1.1); with others another server is asked."""

    NO_ERROR = 0
    NAME_ERROR = 3


class DnsMessageError(ValueError):
    """A name that DNS cannot carry, or bytes that are no reply to the query."""


class Record(NamedTuple):
    """A resource record of the answer: `value` is an address as text, or a CNAME's target as a wire name."""

    name: bytes
    kind: int
    ttl_s: int
    value: str | bytes


class Reply(NamedTuple):
    """What a server says.

    `negative_ttl_s` tells how long the absence of an answer holds (RFC 2308 5), None where that is not said.
    """

    code: int
    is_truncated: bool
    records: tuple[Record, ...]
    negative_ttl_s: int | None


class Addresses(NamedTuple):
    """The addresses at the end of a chain of aliases; with none, `name` is where the chain ends."""

    addresses: tuple[str, ...]
    ttl_s: int
    name: bytes


_HEADER: Final = struct.Struct("!6H")
_QUESTION_TAIL: Final = struct.Struct("!2H")
_RECORD_TAIL: Final = struct.Struct("!2HIH")
_IN: Final = 1
_IS_REPLY, _OPCODE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0200, 0x0100
_MAX_NAME_BYTES: Final = 255
_MAX_LABEL_BYTES: Final = 63
_MAX_TTL_S: Final = 2**31 - 1
MAX_ALIASES: Final = 8


def encode_name(name: str) -> bytes:
    """Return the wire form of a host name; a non-ASCII one in its IDNA form.

    Raises:
        DnsMessageError: a label is empty or over 63 bytes, or the name over 255.
    """
    try:
        labels = [
            label.encode("ascii" if label.isascii() else "idna").lower()
            for label in name.rstrip(".").split(".")
        ]
    except UnicodeError as error:
        raise DnsMessageError(f"{name!r} is no host name: {error}") from error
    if not all(0 < len(label) <= _MAX_LABEL_BYTES for label in labels):
        raise DnsMessageError(f"{name!r} is no host name: each part has from 1 to {_MAX_LABEL_BYTES} bytes")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > _MAX_NAME_BYTES:
        raise DnsMessageError(f"{name!r} is no host name: it has more than {_MAX_NAME_BYTES} bytes")
    return wire


def encode_query(query_id: int, name: bytes, kind: RecordType) -> bytes:
    """Return a query with recursion desired for a wire name."""
    return _HEADER.pack(query_id, _RECURSION_DESIRED, 1, 0, 0, 0) + name + _QUESTION_TAIL.pack(kind, _IN)


def decode_reply(message: bytes, query: bytes) -> Reply:
    """Read the reply to `query`.

    Raises:
        DnsMessageError: it is another query's (id or question differ: RFC 5452 9.1), or malformed.
    """
    try:
        reply_id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(message)
        if reply_id != int.from_bytes(query[:2], "big") or flags & (_IS_REPLY | _OPCODE) != _IS_REPLY:
            raise DnsMessageError("not the reply to this query")
        name, position = _decode_name(message, _HEADER.size)
        end = position + _QUESTION_TAIL.size
        if questions != 1 or name + message[position:end] != query[_HEADER.size :]:
            raise DnsMessageError("the reply to another question")
        if flags & _TRUNCATED:  # its records may be cut anywhere, and are not used
            return Reply(flags & 0xF, True, (), None)
        records, position = _decode_records(message, end, answers)
        authority, _ = _decode_records(message, position, authorities)
    except (struct.error, IndexError) as error:
        raise DnsMessageError("the message ends early") from error
    negative = [record.ttl_s for record in authority if record.kind == RecordType.SOA]
    return Reply(flags & 0xF, False, tuple(records), min(negative, default=None))


def follow_aliases(reply: Reply, name: bytes, kind: RecordType) -> Addresses:
    """Follow the reply's CNAMEs from `name` to its addresses (RFC 1034 3.6.2); the shortest TTL counts.

    Raises:
        DnsMessageError: the chain is longer than 8.
    """
    ttl_s = _MAX_TTL_S
    for _ in range(MAX_ALIASES + 1):
        found = [record for record in reply.records if record.name == name and record.kind == kind]
        if found:
            addresses = tuple(dict.fromkeys(str(record.value) for record in found))
            return Addresses(addresses, min(ttl_s, *(record.ttl_s for record in found)), name)
        alias = next((r for r in reply.records if r.name == name and r.kind == RecordType.CNAME), None)
        if alias is None:
            return Addresses((), ttl_s, name)
        assert isinstance(alias.value, bytes)
        name, ttl_s = alias.value, min(ttl_s, alias.ttl_s)
    raise DnsMessageError(f"more than {MAX_ALIASES} aliases in a row")


def _decode_records(message: bytes, position: int, count: int) -> tuple[list[Record], int]:
    records = []
    for _ in range(count):
        name, position = _decode_name(message, position)
        kind, record_class, ttl_s, length = _RECORD_TAIL.unpack_from(message, position)
        start = position + _RECORD_TAIL.size
        position = start + length
        if position > len(message):
            raise DnsMessageError("a record reaches over the end of the message")
        if ttl_s > _MAX_TTL_S:  # RFC 2181 8
            ttl_s = 0
        if record_class == _IN:
            records += _decode_record(message, Record(name, kind, ttl_s, message[start:position]), start)
    return records, position


def _decode_record(message: bytes, record: Record, start: int) -> list[Record]:
    octets = record.value
    assert isinstance(octets, bytes)
    if record.kind == RecordType.A and len(octets) == 4:
        return [record._replace(value=socket.inet_ntop(socket.AF_INET, octets))]
    if record.kind == RecordType.AAAA and len(octets) == 16:
        return [record._replace(value=socket.inet_ntop(socket.AF_INET6, octets))]
    if record.kind == RecordType.CNAME:
        target, end = _decode_name(message, start)
        if end != start + len(octets):
            raise DnsMessageError("an alias does not end with its record")
        return [record._replace(value=target)]
    if (
        record.kind == RecordType.SOA and len(octets) >= 4
    ):  # RFC 2308 5: the lesser of its TTL and its MINIMUM
        return [record._replace(ttl_s=min(record.ttl_s, int.from_bytes(octets[-4:], "big")))]
    return []


def _decode_name(message: bytes, position: int) -> tuple[bytes, int]:
    """Return a name and the position behind it; pointers (RFC 1035 4.1.4) must lead backwards."""
    labels: list[bytes] = []
    size = 1
    end = 0
    lowest = position
    while length := message[position]:
        if length >= 0xC0:
            end = end or position + 2
            position = (length & 0x3F) << 8 | message[position + 1]
            if position >= lowest:
                raise DnsMessageError("a name points forwards")
            lowest = position
            continue
        next_position = position + 1 + length
        size += 1 + length
        if length > _MAX_LABEL_BYTES or size > _MAX_NAME_BYTES or next_position > len(message):
            raise DnsMessageError("a name is too long")
        labels.append(message[position:next_position].lower())
        position = next_position
    return b"".join(labels) + b"\0", end or position + 1
