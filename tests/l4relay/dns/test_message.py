import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.dns.message import DnsMessageError, RecordType, Reply, decode_reply, encode_name, encode_query

NAME = encode_name("www.example.com")
QUERY = encode_query(0x1234, NAME, RecordType.A)


def record(name: bytes, kind: int, ttl_s: int, content: bytes, *, record_class: int = 1) -> bytes:
    numbers = ((kind, 2), (record_class, 2), (ttl_s, 4), (len(content), 2))
    return name + b"".join(number.to_bytes(size, "big") for number, size in numbers) + content


def reply(
    *answers: bytes, authority: tuple[bytes, ...] = (), query: bytes = QUERY, flags: int = 0x8180
) -> bytes:
    counts = (1, len(answers), len(authority), 0)
    header = query[:2] + b"".join(number.to_bytes(2, "big") for number in (flags, *counts))
    return header + query[12:] + b"".join(answers) + b"".join(authority)


def test_a_query_asks_for_recursion_in_class_in() -> None:
    assert (
        QUERY
        == b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01"
    )


def test_names_are_lower_case_and_idna() -> None:
    assert encode_name("WWW.Example.com.") == NAME
    assert encode_name("bücher.example") == b"\x0dxn--bcher-kva\x07example\x00"


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", ".a", "a" * 64, ".".join(["a" * 50] * 6), "ä" * 70, "\udc80.x"]
)
def test_an_impossible_name_is_an_error(name: str) -> None:
    with pytest.raises(DnsMessageError):
        encode_name(name)


def test_addresses_of_an_alias_are_found_with_the_shortest_ttl() -> None:
    target = encode_name("edge.example.net")
    message = reply(
        record(b"\xc0\x0c", RecordType.CNAME, 60, target),
        record(target, RecordType.A, 300, b"\xc0\x00\x02\x01"),
        record(target, RecordType.A, 90, b"\xc0\x00\x02\x02"),
        record(target, 99, 400, b"?"),
    )
    assert decode_reply(message, QUERY) == Reply(0, False, ("192.0.2.1", "192.0.2.2"), 60)


def test_the_order_of_aliases_does_not_matter() -> None:
    middle, last = encode_name("middle.example"), encode_name("last.example")
    message = reply(
        record(last, RecordType.A, 300, b"\xc0\x00\x02\x01"),
        record(middle, RecordType.CNAME, 50, last),
        record(b"\xc0\x0c", RecordType.CNAME, 60, middle),
    )
    assert decode_reply(message, QUERY) == Reply(0, False, ("192.0.2.1",), 50)


def test_addresses_of_other_names_are_passed_over() -> None:
    message = reply(record(encode_name("other.example"), RecordType.A, 300, b"\xc0\x00\x02\x01"))
    assert decode_reply(message, QUERY).addresses == ()


def test_an_alias_that_leads_nowhere_has_no_address() -> None:
    target = encode_name("edge.example.net")
    message = reply(record(b"\xc0\x0c", RecordType.CNAME, 60, target))
    assert decode_reply(message, QUERY) == Reply(0, False, (), 60)


def test_a_loop_of_aliases_ends() -> None:
    message = reply(record(b"\xc0\x0c", RecordType.CNAME, 60, b"\xc0\x0c"))
    assert decode_reply(message, QUERY).addresses == ()


def test_absence_is_a_reply_without_addresses() -> None:
    authority = (record(b"\0", 6, 900, b"\0\0" + bytes(20)),)
    for code in (0, 3):
        message = reply(authority=authority, flags=0x8180 | code)
        assert decode_reply(message, QUERY)[:3] == (code, False, ())


def test_a_truncated_reply_needs_no_whole_records() -> None:
    message = reply(record(b"\xc0\x0c", RecordType.A, 60, b"\xc0\x00\x02\x01"), flags=0x8380)
    assert decode_reply(message[:-3], QUERY).is_truncated


def test_records_of_other_classes_are_passed_over() -> None:
    message = reply(
        record(b"\xc0\x0c", RecordType.A, 60, b"\x01\x02\x03\x04", record_class=3),
        record(b"\xc0\x0c", RecordType.A, 70, b"\x01\x02\x03\x05"),
    )
    assert decode_reply(message, QUERY) == Reply(0, False, ("1.2.3.5",), 70)


A_RECORD = record(b"\xc0\x0c", RecordType.A, 60, b"\xc0\x00\x02\x01")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        QUERY,
        b"\x12\x35" + reply(A_RECORD)[2:],
        reply(A_RECORD, flags=0x9180),
        reply(A_RECORD, query=encode_query(0x1234, encode_name("other.example"), RecordType.A)),
        reply(A_RECORD, query=encode_query(0x1234, NAME, RecordType.AAAA)),
        reply(A_RECORD)[:-1],
        reply(A_RECORD)[:-5],
        reply(record(b"\xc0\x0c", RecordType.A, 60, b"\x01\x02\x03")),
        reply(record(b"\xc0\xff", RecordType.A, 1, b"\0\0\0\0")),
        reply(record(b"\xc0\x21", RecordType.A, 1, b"\0\0\0\0")),
        reply(record(b"\x40" + b"a" * 64 + b"\0", RecordType.A, 1, b"\0\0\0\0")),
        reply(record((b"\x3f" + b"a" * 63) * 4 + b"\0", RecordType.A, 1, b"\0\0\0\0")),
        reply(record(b"\xc0\x0c", RecordType.CNAME, 1, b"\x01a\0?")),
    ],
)
def test_what_is_no_reply_to_the_query_is_an_error(message: bytes) -> None:
    with pytest.raises(DnsMessageError):
        decode_reply(message, QUERY)


def test_the_case_of_the_question_does_not_matter() -> None:
    message = bytearray(reply(A_RECORD))
    message[13:16] = b"WwW"
    assert decode_reply(bytes(message), QUERY).addresses == ("192.0.2.1",)


@given(st.binary(max_size=120), st.integers(0, 300), st.integers(0, 255), st.booleans())
def test_any_bytes_are_a_reply_or_an_error(tail: bytes, position: int, octet: int, is_whole: bool) -> None:
    message = bytearray(reply(A_RECORD, record(b"\xc0\x0c", RecordType.CNAME, 1, b"\xc0\x10"), tail))
    message[position % len(message)] = octet
    if not is_whole:
        del message[position:]
    try:
        decode_reply(bytes(message), QUERY)
    except DnsMessageError:
        return


@given(st.lists(st.tuples(st.ip_addresses(), st.integers(0, 2**31 - 1)), max_size=8))
def test_addresses_come_back(listed: list[tuple[object, int]]) -> None:
    for kind, version in ((RecordType.A, 4), (RecordType.AAAA, 6)):
        query = encode_query(7, NAME, kind)
        mine = [(ip, ttl_s) for ip, ttl_s in listed if getattr(ip, "version", 0) == version]
        records = [record(b"\xc0\x0c", kind, ttl_s, ip.packed) for ip, ttl_s in mine]  # type: ignore[attr-defined]
        found = decode_reply(reply(*records, query=query), query)
        assert len(found.addresses) == len({ip for ip, _ in mine})
        assert found.ttl_s == min((ttl_s for _, ttl_s in mine), default=0)
