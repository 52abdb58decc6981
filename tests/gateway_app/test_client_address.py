import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.client_address import (
    MAX_HOPS,
    Forwarded,
    TrustedProxies,
    forwarded_element,
    forwarded_for_chain,
    node_address,
    parse_forwarded,
)

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])


def client_of(forwarded_for: bytes, peer: str = "10.0.0.1") -> str:
    return PROXIES.client(forwarded_for_chain(forwarded_for), PROXIES.peer((peer, 1)))


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"192.0.2.7", "192.0.2.7"),
        (b"192.0.2.7:4711", "192.0.2.7"),
        (b"192.0.2.7, 10.1.1.1", "192.0.2.7"),
        (b"6.6.6.6, 192.0.2.7, 10.1.1.1,10.2.2.2", "192.0.2.7"),
        (b"2001:4860::8888", "2001:4860::8888"),
        (b"[2001:4860:0:0::8888]:443", "2001:4860::8888"),
        (b"::ffff:192.0.2.7", "192.0.2.7"),
        (b"10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (b"192.0.2.7, unknown, 10.2.2.2", "10.2.2.2"),
        (b"192.0.2.7, 10.2.2.2, <script>", "10.0.0.1"),
        (b"192.0.2.7, 10.2.2.2,", "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b"192.0.2.999", "10.0.0.1"),
        (b"192.0.2.7:66666666", "10.0.0.1"),
        (b"\xff\xfe", "10.0.0.1"),
    ],
)
def test_client_is_the_rightmost_address_that_is_no_trusted_proxy(value: bytes, client: str) -> None:
    assert client_of(value) == client


def test_a_chain_is_followed_for_a_bounded_number_of_hops() -> None:
    chain = b"192.0.2.7" + b", 10.1.1.1" * MAX_HOPS
    assert client_of(chain) == "10.1.1.1"
    assert client_of(b"192.0.2.7" + b", 10.1.1.1" * (MAX_HOPS - 1)) == "192.0.2.7"


@given(st.binary(max_size=200))
def test_any_chain_gives_an_address(value: bytes) -> None:
    ipaddress.ip_address(client_of(value))


@given(st.ip_addresses(), st.binary(max_size=60), st.sampled_from(["", ":1234"]))
def test_what_a_client_wrote_itself_does_not_count(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, written_by_client: bytes, port: str
) -> None:
    text = f"[{address}]" if address.version == 6 else str(address)
    expected = node_address(text)
    assert expected is not None
    chain = written_by_client + b"," + (text + port).encode()
    if any(
        ipaddress.ip_address(expected) in ipaddress.ip_network(net) for net in ("10.0.0.0/8", "2001:db8::/32")
    ):
        return
    assert client_of(chain) == expected


def test_peers() -> None:
    assert PROXIES.peer(("10.0.0.1", 80)).is_trusted
    assert PROXIES.peer(("::ffff:10.0.0.1", 80)).address == "10.0.0.1"
    assert PROXIES.peer(("::ffff:10.0.0.1", 80)).is_trusted
    assert not PROXIES.peer(("192.0.2.1", 80)).is_trusted
    assert PROXIES.peer(("192.0.2.1", 80)).field == (b"x-forwarded-for", b"192.0.2.1")


@pytest.mark.parametrize("client", [None, ("", 0), ("/run/gateway.sock", None), [None, None]])
def test_unix_peers_are_trusted_only_if_named(client: object) -> None:
    assert not PROXIES.peer(client).is_trusted  # type: ignore[arg-type]  # servers differ
    assert TrustedProxies(["unix:"]).peer(client).is_trusted  # type: ignore[arg-type]
    assert PROXIES.peer(client).address == ""  # type: ignore[arg-type]


def test_memory_of_peers_is_bounded() -> None:
    proxies = TrustedProxies([])
    for number in range(10_000):
        proxies.peer((str(ipaddress.IPv4Address(number)), 1))
    assert len(proxies._peers) <= 4096


def test_a_wrong_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="is no network"):
        TrustedProxies(["nginx"])


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"for=192.0.2.60;proto=http;by=203.0.113.43", [("192.0.2.60", "http")]),
        (b'For="[2001:db8:cafe::17]:4711"', [("[2001:db8:cafe::17]:4711", "")]),
        (b"for=192.0.2.43, for=198.51.100.17", [("198.51.100.17", ""), ("192.0.2.43", "")]),
        (b'for=a;host="x,y;z\\"q"', [("a", "")]),
        (b"for=[::1]:80", [("[::1]:80", "")]),
        (b", ,for=a,", [("a", "")]),
        (b" for=a ; proto=https ", [("a", "https")]),
        (b"", []),
    ],
)
def test_forwarded(value: bytes, elements: list[tuple[str, str]]) -> None:
    assert parse_forwarded(value) == [Forwarded(*element) for element in elements]


@pytest.mark.parametrize(
    "value",
    [
        b'for="',
        b"for",
        b"for=a b",
        b"for=a;for=b",
        b"for==a",
        b'for="a"b',
        b"f or=a",
        b'for="\x00"',
        b"for=a\n",
    ],
)
def test_malformed_forwarded(value: bytes) -> None:
    assert parse_forwarded(value) is None


@given(st.binary(max_size=300))
def test_forwarded_takes_any_bytes(value: bytes) -> None:
    elements = parse_forwarded(value)
    assert elements is None or len(elements) <= len(value)


@given(
    st.lists(
        st.tuples(st.ip_addresses(), st.sampled_from(["http", "https"]), st.binary(max_size=20)), min_size=1
    )
)
def test_forwarded_reads_what_it_writes(
    hops: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, str, bytes]],
) -> None:
    written, expected = [], []
    for address, scheme, host in hops:
        visible = bytes(byte for byte in host if 0x20 <= byte < 0x7F)
        peer = PROXIES.peer((str(address), 1))
        written.append(forwarded_element(peer, scheme, visible, "gw"))
        expected.append((peer.address, scheme))
    elements = parse_forwarded(b", ".join(written))
    assert elements is not None
    assert [(node_address(element.node), element.proto) for element in reversed(elements)] == expected


def test_client_and_protocol_come_from_the_same_element() -> None:
    elements = parse_forwarded(b"for=6.6.6.6;proto=ftp, for=192.0.2.7;proto=https, for=10.1.1.1;proto=http")
    assert elements is not None
    client, element = PROXIES.client_element(elements, PROXIES.peer(("10.0.0.1", 1)))
    assert (client, element.proto) == ("192.0.2.7", "https")
