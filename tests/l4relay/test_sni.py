import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.config.load import parse
from l4relay.endpoints import Registry
from l4relay.sni import MAX_BYTES, ClientHelloReader, Names

NEEDS_MORE = "needs more"
RELAY = """
[[relay]]
name = "tls"
listen = "127.0.0.1:443"
endpoints = ["127.0.0.1:1"]
[relay.sni]
"a.example.com" = ["127.0.0.1:2"]
"*.example.com" = ["127.0.0.1:3"]
"*.b.example.com" = ["127.0.0.1:4"]
"""


def real_hello(server_name: str | None, *, versions: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if versions is not None:
        context.maximum_version = versions
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def hello(extensions: bytes | None) -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    return b"\x01" + vector(3, body + (b"" if extensions is None else vector(2, extensions)))


def server_name(*names: tuple[int, bytes]) -> bytes:
    entries = b"".join(bytes((kind,)) + vector(2, name) for kind, name in names)
    return b"\x00\x00" + vector(2, vector(2, entries))


def in_records(message: bytes, size: int = 16384) -> bytes:
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def fed(buffer: bytes, step: int) -> str | None:
    """The name that is known as soon as anything is, for bytes that arrive `step` at a time."""
    reader = ClientHelloReader()
    for end in range(step, len(buffer) + step, step):
        if reader.read(buffer[:end]):
            return reader.server_name
    return NEEDS_MORE


def read_server_name(buffer: bytes) -> str | None:
    return fed(buffer, len(buffer))


@pytest.mark.parametrize("versions", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [1, 2, 7, 100, 10_000])
def test_the_name_of_a_real_hello_is_found_in_any_segments(versions: ssl.TLSVersion, step: int) -> None:
    buffer = real_hello("Shop.Example.COM", versions=versions)
    assert fed(buffer, step) == "shop.example.com"
    assert fed(buffer[:-1], step) == NEEDS_MORE


def test_a_real_hello_without_a_name() -> None:
    assert read_server_name(real_hello(None)) is None


def test_a_hello_without_extensions_has_no_name() -> None:
    assert read_server_name(in_records(hello(None))) is None
    assert read_server_name(in_records(hello(b""))) is None


def test_early_data_behind_the_hello_is_not_looked_at() -> None:
    buffer = in_records(hello(server_name((0, b"a.example"))))
    assert read_server_name(buffer + b"\x17\x03\x03\x00\x05early") == "a.example"
    assert read_server_name(buffer + b"junk") == "a.example"


def test_other_kinds_of_names_are_passed_over() -> None:
    assert read_server_name(in_records(hello(server_name((9, b"?"), (0, b"a.example."))))) == "a.example"
    assert read_server_name(in_records(hello(server_name((9, b"?"))))) is None


@pytest.mark.parametrize("name", [b"", b"a b", b"a\0b", b"a\nb", "ä.example".encode(), b"a" * 254, b"."])
def test_a_name_that_is_no_host_name_is_none(name: bytes) -> None:
    assert read_server_name(in_records(hello(server_name((0, name))))) is None


@pytest.mark.parametrize(
    "buffer",
    [
        b"G",
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02",  # an SSLv2 hello
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x02",
        b"\x16\x03\x01\x00\x01\x01\x17",
        in_records(b"\x01" + vector(3, b"")),
        in_records(b"\x01" + vector(3, b"\x03\x03" + bytes(32) + b"\xff")),
        in_records(hello(b"\x00\x00\x00\x05abc")),
        in_records(hello(b"\x00\x00" + vector(2, b"\x00\x09\x00\x00\x01a"))),
        in_records(hello(b"\x00")),
    ],
)
def test_what_is_not_tls_or_breaks_its_own_lengths_is_known_at_once(buffer: bytes) -> None:
    assert read_server_name(buffer) is None
    assert fed(buffer, 1) is None


def test_size_is_bounded() -> None:
    padded = hello(b"\x00\x15" + vector(2, bytes(14_000)) + server_name((0, b"a.example")))
    assert fed(in_records(padded, 1000), 500) == "a.example"
    too_long = hello(b"\x00\x15" + vector(2, bytes(20_000)) + server_name((0, b"a.example")))
    assert read_server_name(in_records(too_long)[:100]) == NEEDS_MORE  # its record is not complete
    assert fed(in_records(too_long, 90), 95) is None  # its length is told at once
    assert fed(in_records(padded, 1), 1) is None  # records of one byte spend the bound on headers


def test_a_message_length_over_the_bound_is_answered_early() -> None:
    assert read_server_name(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff") is None


@given(st.binary(max_size=200), st.integers(1, 60))
def test_any_bytes_have_an_answer_that_does_not_depend_on_the_split(tail: bytes, step: int) -> None:
    for start in (b"", b"\x16\x03\x01\x00", b"\x16\x03\x01\x00\x40\x01\x00\x00", in_records(hello(tail))):
        buffer = start + tail
        if not buffer:
            continue
        assert fed(buffer, step) == fed(buffer, 1) or fed(buffer, step) == read_server_name(buffer)


@given(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}\.){1,4}[a-z]{2,8}", fullmatch=True),
    st.integers(1, 300),
    st.integers(1, 600),
    st.lists(st.tuples(st.integers(1, 65535), st.binary(max_size=40)), max_size=5),
)
def test_any_records_and_segments_give_the_name(
    name: str, record: int, segment: int, others: list[tuple[int, bytes]]
) -> None:
    extensions = b"".join(struct.pack("!H", kind) + vector(2, content) for kind, content in others)
    buffer = in_records(hello(extensions + server_name((0, name.encode()))), record)
    assert fed(buffer, segment) == name


@given(st.integers(0, 400), st.integers(1, 255), st.integers(1, 400))
def test_a_changed_byte_never_raises(position: int, change: int, step: int) -> None:
    buffer = bytearray(in_records(hello(server_name((0, b"a.example")) + b"\x00\x0d\x00\x02\x00\x00"), 30))
    buffer[position % len(buffer)] ^= change
    assert fed(bytes(buffer), step) == fed(bytes(buffer), 1)


def test_bytes_in_tiny_segments_are_bounded() -> None:
    start = b"\x16\x03\x01\x40\x00\x01\x00\x3f\x00"
    buffer = start + bytes(MAX_BYTES - len(start))
    assert fed(buffer[:-1], 1) == NEEDS_MORE
    assert fed(buffer, 1) is None


@pytest.mark.parametrize(
    ("name", "port"),
    [
        (None, 1),
        ("", 1),
        ("example.com", 1),
        ("a.example.org", 1),
        ("a.example.com", 2),
        ("z.example.com", 3),
        ("z.y.a.example.com", 3),
        ("b.example.com", 3),
        ("z.y.b.example.com", 4),
    ],
)
def test_an_exact_name_wins_over_a_wildcard_and_a_longer_one_over_a_shorter(
    name: str | None, port: int
) -> None:
    [config] = parse(RELAY, "routes.toml").relays
    [endpoint] = Names(config, Registry(), lambda changed: None).find(name).endpoints
    assert endpoint.key == f"127.0.0.1:{port}"
