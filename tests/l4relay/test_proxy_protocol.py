import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.proxy_protocol import (
    LOCAL_V2,
    MAX_V1_BYTES,
    SIGNATURE,
    Endpoint,
    Header,
    ProxyProtocolError,
    Tlv,
    crc32c,
    parse,
    serialise_v1,
    serialise_v2,
)

# What HAProxy 2.6 sends with `send-proxy-v2 proxy-v2-options crc32c,unique-id`.
FROM_HAPROXY = (
    b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00#\x7f\x00\x00\x01\x7f\x00\x00\x01\x87\xfaqI"
    b"\x03\x00\x04\xf7\xe3x:\x05\x00\rabc-127.0.0.1"
)

AUTHORITY, CRC32C, NOOP, UNIQUE_ID = 2, 3, 4, 5


def v2(command: int, family: int, block: bytes, *, signature: bytes = SIGNATURE) -> bytes:
    return signature + bytes((command, family)) + struct.pack("!H", len(block)) + block


def parsed(buffer: bytes) -> Header:
    result = parse(buffer)
    assert result is not None
    header, consumed = result
    assert consumed == len(buffer)
    return header


ports = st.integers(0, 65535)


def endpoints(addresses: st.SearchStrategy[str]) -> st.SearchStrategy[Endpoint]:
    return st.tuples(addresses, ports)


ipv4_ends = endpoints(st.ip_addresses(v=4).map(str))
# An address that is IPv4-mapped is written as IPv4, so it does not come back as it went in.
ipv6_ends = endpoints(st.ip_addresses(v=6).map(str).filter(lambda ip: not ip.startswith("::ffff:")))
unix_ends: st.SearchStrategy[Endpoint] = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=27
)
tlv_lists = st.lists(
    st.tuples(
        st.integers(0, 255).filter(lambda kind: kind not in (CRC32C, NOOP, UNIQUE_ID)),
        st.binary(max_size=128),
    ),
    max_size=5,
).map(tuple)
pairs = st.one_of(*(st.tuples(ends, ends) for ends in (ipv4_ends, ipv6_ends, unix_ends)))


class TestVersion1:
    @pytest.mark.parametrize(
        ("line", "source", "destination"),
        [
            (
                b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                ("192.168.0.1", 56324),
                ("192.168.0.11", 443),
            ),
            (b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", ("2001:db8::1", 1), ("::1", 65535)),
            (b"PROXY UNKNOWN\r\n", None, None),
            (b"PROXY UNKNOWN ffff::1 \n whatever 1\r\n", None, None),
        ],
    )
    def test_reads(self, line: bytes, source: Endpoint | None, destination: Endpoint | None) -> None:
        header = parsed(line)
        assert (header.source, header.destination) == (source, destination)

    def test_the_longest_line_is_accepted(self) -> None:
        line = b"PROXY UNKNOWN".ljust(MAX_V1_BYTES - 2) + b"\r\n"
        assert parsed(line).source is None
        assert parse(line[:-1]) is None

    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP6 ::1%lo ::2 1 2\r\n",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY\r\n",
            b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n" + b"GET / HTTP/1.1\r\n",
            b"PROXY UNKNOWN".ljust(MAX_V1_BYTES - 1) + b"\r\n",
        ],
    )
    def test_refuses(self, line: bytes) -> None:
        with pytest.raises(ProxyProtocolError):
            parse(line)

    @pytest.mark.parametrize(
        "start",
        [b"G", b"PROXX", b"PROXY TCP5", b"PROXY A", b"PROXY TCP4 1.1.1.1 x", b"PROXY TCP4 1\r1", b"PROXY\n"],
    )
    def test_refuses_as_soon_as_the_bytes_show_it(self, start: bytes) -> None:
        with pytest.raises(ProxyProtocolError):
            parse(start)

    def test_what_it_cannot_say_is_unknown(self) -> None:
        assert serialise_v1("/run/a", "/run/b") == serialise_v1(None, None) == b"PROXY UNKNOWN\r\n"

    @given(st.one_of(st.tuples(ipv4_ends, ipv4_ends), st.tuples(ipv6_ends, ipv6_ends)))
    def test_comes_back(self, ends: tuple[Endpoint, Endpoint]) -> None:
        line = serialise_v1(*ends)
        assert len(line) <= MAX_V1_BYTES
        assert parsed(line) == Header(*ends)


class TestVersion2:
    def test_reads_what_haproxy_sends(self) -> None:
        header = parsed(FROM_HAPROXY)
        assert header.source == ("127.0.0.1", 34810)
        assert header.destination == ("127.0.0.1", 29001)
        assert header.unique_id == b"abc-127.0.0.1"

    @pytest.mark.parametrize("position", range(16, len(FROM_HAPROXY)))
    def test_a_changed_byte_fails_the_checksum(self, position: int) -> None:
        changed = bytearray(FROM_HAPROXY)
        changed[position] ^= 0x40
        if 28 <= position < 31:  # the checksum's own type and length: it is not there any more, or misplaced
            return
        with pytest.raises(ProxyProtocolError):
            parse(changed)

    def test_local_ignores_its_family_and_skips_its_block(self) -> None:
        assert parsed(LOCAL_V2) == Header()
        assert parsed(v2(0x20, 0xFF, b"anything")) == Header()

    def test_datagrams_are_read_like_streams(self) -> None:
        block = bytes((192, 0, 2, 7, 192, 0, 2, 1, 0, 80, 0, 90))
        assert parsed(v2(0x21, 0x12, block)) == Header(("192.0.2.7", 80), ("192.0.2.1", 90))
        assert parsed(v2(0x21, 0x12, block)) == parsed(v2(0x21, 0x11, block))

    def test_an_unspecified_family_or_transport_leaves_the_addresses_out(self) -> None:
        assert parsed(v2(0x21, 0x00, b"")).source is None
        header = parsed(v2(0x21, 0x10, bytes(12) + b"\x05\x00\x02id"))
        assert (header.source, header.unique_id) == (None, b"id")

    def test_unknown_fields_are_kept_and_padding_is_dropped(self) -> None:
        header = parsed(
            v2(0x21, 0x11, bytes(12) + b"\xe0\x00\x01x" + b"\x04\x00\x02\x00\x00" + b"\x02\x00\x01h")
        )
        assert header.tlvs == ((0xE0, b"x"), (AUTHORITY, b"h"))
        assert header.unique_id == b""

    def test_a_mixed_pair_is_written_as_ipv6(self) -> None:
        header = parsed(serialise_v2(("1.2.3.4", 1), ("2001:db8::1", 2)))
        assert header.source == ("::ffff:1.2.3.4", 1)
        assert header.destination == ("2001:db8::1", 2)

    def test_a_mapped_pair_is_written_as_ipv4_and_a_zone_is_left_out(self) -> None:
        assert parsed(serialise_v2(("::ffff:1.2.3.4", 1), ("::ffff:5.6.7.8", 2))).source == ("1.2.3.4", 1)
        assert parsed(serialise_v2(("fe80::1%eth0", 1), ("fe80::2%eth0", 2))).source == ("fe80::1", 1)

    def test_ends_of_two_kinds_tell_only_the_fields(self) -> None:
        header = parsed(serialise_v2("", ("127.0.0.1", 1), unique_id=b"7"))
        assert (header.source, header.unique_id) == (None, b"7")

    def test_unix_names_of_all_kinds_come_back(self) -> None:
        for name in ("", "/run/a.sock", "\0abstract", "/" + "x" * 107):
            assert parsed(serialise_v2(name, "/run/b")).source == name

    @pytest.mark.parametrize(
        "buffer",
        [
            v2(0x31, 0x11, bytes(12)),
            v2(0x11, 0x11, bytes(12)),
            v2(0x22, 0x11, bytes(12)),
            v2(0x21, 0x41, bytes(12)),
            v2(0x21, 0x13, bytes(12)),
            v2(0x21, 0x11, bytes(11)),
            v2(0x21, 0x21, bytes(35)),
            v2(0x21, 0x31, bytes(215)),
            v2(0x21, 0x11, bytes(12) + b"\x01"),
            v2(0x21, 0x11, bytes(12) + b"\x01\x00\x02x"),
            v2(0x21, 0x11, bytes(12) + b"\x03\x00\x03\x00\x00\x00"),
            v2(0x21, 0x11, bytes(12) + b"\x05\x00\x81" + bytes(129)),
            v2(0x21, 0x11, bytes(4081)),
            SIGNATURE + b"\x22",
            SIGNATURE + b"\x21\x11\xff\xff",
            SIGNATURE[:11] + b"\r",
        ],
    )
    def test_refuses(self, buffer: bytes) -> None:
        with pytest.raises(ProxyProtocolError):
            parse(buffer)

    def test_two_checksums_are_refused(self) -> None:
        once = serialise_v2(("1.1.1.1", 1), ("2.2.2.2", 2), with_crc32c=True)
        with pytest.raises(ProxyProtocolError):
            parse(v2(0x21, 0x11, once[16:] + once[-7:]))

    def test_4096_bytes_are_accepted_and_not_one_more(self) -> None:
        def padded(size: int) -> bytes:
            return v2(0x21, 0x11, bytes(12) + b"\x04" + struct.pack("!H", size) + bytes(size))

        longest = 4096 - 16 - 12 - 3
        assert parsed(padded(longest)).source == ("0.0.0.0", 0)
        with pytest.raises(ProxyProtocolError, match="at most 4096"):
            parse(padded(longest + 1)[:16])

    def test_a_name_is_no_end(self) -> None:
        with pytest.raises(ValueError, match="not both IP addresses"):
            serialise_v2(("localhost", 1), ("127.0.0.1", 2))

    @given(pairs, st.binary(max_size=128), tlv_lists, st.booleans())
    def test_comes_back(
        self, ends: tuple[Endpoint, Endpoint], unique_id: bytes, tlvs: tuple[Tlv, ...], with_crc32c: bool
    ) -> None:
        written = serialise_v2(*ends, unique_id=unique_id, tlvs=tlvs, with_crc32c=with_crc32c)
        assert parsed(written) == Header(*ends, unique_id, tlvs)


def first_answer(buffer: bytes, step: int) -> tuple[Header, int] | str:
    """Offer the bytes as they would arrive, `step` at a time."""
    for end in range(step, len(buffer) + step, step):
        try:
            result = parse(buffer[:end])
        except ProxyProtocolError:
            return "refused"
        if result is not None:
            return result
    return "incomplete"


headers = st.one_of(
    pairs.flatmap(lambda ends: tlv_lists.map(lambda tlvs: serialise_v2(*ends, tlvs=tlvs, with_crc32c=True))),
    st.tuples(ipv4_ends, ipv4_ends).map(lambda ends: serialise_v1(*ends)),
    st.just(LOCAL_V2),
    st.just(b"PROXY UNKNOWN\r\n"),
)


@given(headers, st.binary(max_size=40), st.integers(1, 50))
def test_any_split_gives_the_same_header_and_leaves_the_rest(header: bytes, rest: bytes, step: int) -> None:
    whole = parse(header)
    assert whole is not None
    assert whole[1] == len(header)
    assert first_answer(header + rest, step) == whole


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + b"\x21\x11" + rest),
        st.binary(max_size=120).map(lambda rest: b"PROXY TCP4 " + rest),
        st.tuples(headers, st.integers(0, 400), st.integers(1, 255)).map(
            lambda change: bytes(
                byte ^ change[2] if index == change[1] % len(change[0]) else byte
                for index, byte in enumerate(change[0])
            )
        ),
    ),
    st.integers(1, 50),
)
def test_any_bytes_are_answered_alike_however_they_arrive(buffer: bytes, step: int) -> None:
    assert first_answer(buffer, step) == first_answer(buffer, 1)


def test_crc32c_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
