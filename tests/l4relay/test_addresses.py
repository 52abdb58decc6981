import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.addresses import (
    Address,
    InetAddress,
    ListenAddress,
    NetworkSet,
    UnixAddress,
    ip_bytes,
    parse_address,
    parse_listen_address,
    parse_network,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", InetAddress("127.0.0.1", 8080)),
        ("[::1]:8080", InetAddress("::1", 8080)),
        ("[fe80::1%eth0]:53", InetAddress("fe80::1%eth0", 53)),
        ("db.internal:5432", InetAddress("db.internal", 5432)),
        ("db_1:1", InetAddress("db_1", 1)),
        ("example.com.:65535", InetAddress("example.com.", 65535)),
        ("unix:/run/db.sock", UnixAddress("/run/db.sock")),
        ("unix:relative/db.sock", UnixAddress("relative/db.sock")),
    ],
)
def test_an_address_reads_and_prints_as_it_is_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no address with a port"),
        ("127.0.0.1", "no address with a port"),
        (":8080", "neither an IP address nor a host name"),
        ("127.0.0.1:", "no address with a port"),
        ("127.0.0.1:http", "no address with a port"),
        ("127.0.0.1:65536", "from 1 to 65535"),
        ("127.0.0.1:0", "from 1 to 65535"),
        ("127.0.0.1:+1", "no address with a port"),
        ("127.0.0.1:\u0661", "no address with a port"),
        ("127.0.0.256:1", "no IPv4 address"),
        ("1.2.3:1", "no IPv4 address"),
        ("::1:8080", "in brackets"),
        ("[::g]:1", "no IPv6 address"),
        ("[127.0.0.1]:1", "no IPv6 address"),
        ("a..b:1", "neither an IP address nor a host name"),
        ("-a:1", "neither an IP address nor a host name"),
        ("a b:1", "neither an IP address nor a host name"),
        ("http://a:1", "neither an IP address nor a host name"),
        (f"{'a' * 64}:1", "neither an IP address nor a host name"),
        ("unix:", "unix:/path"),
        ("unix:/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_an_error_says_what_is_accepted(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint.replace("[", r"\[")):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "transport", "address"),
    [
        ("tcp://127.0.0.1:15432", "tcp", InetAddress("127.0.0.1", 15432)),
        ("udp://[::]:53", "udp", InetAddress("::", 53)),
        ("127.0.0.1:0", "tcp", InetAddress("127.0.0.1", 0)),
        ("unix:/run/relay.sock", "tcp", UnixAddress("/run/relay.sock")),
    ],
)
def test_a_listener_may_say_its_transport(text: str, transport: str, address: Address) -> None:
    listen = parse_listen_address(text)
    assert (listen.transport, listen.address) == (transport, address)
    assert parse_listen_address(str(listen)) == listen


def test_a_listener_without_a_scheme_is_tcp() -> None:
    assert parse_listen_address("[::1]:53") == ListenAddress("tcp", InetAddress("::1", 53))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://127.0.0.1:80", "accepted are"),
        ("udp://unix:/x", "without"),
        ("tcp://", "no address with a port"),
    ],
)
def test_a_listener_error_says_what_is_accepted(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_listen_address(text)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


def test_networks_contain_by_prefix_in_both_families() -> None:
    networks = NetworkSet(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"])
    inside = ["10.1.2.3", "192.0.2.7", "2001:db8:1::2", "::1", "::ffff:10.0.0.1", "2001:db8::1%eth0"]
    outside = ["11.0.0.0", "192.0.2.8", "2001:db9::", "::2", "", "unix:/x", "10.0.0", "a\0b", "\udc80"]
    for _ in range(2):  # the second answer comes from memory
        assert all(ip in networks for ip in inside)
        assert not any(ip in networks for ip in outside)


def test_an_ipv4_mapped_network_is_the_ipv4_network() -> None:
    assert "10.1.2.3" in NetworkSet(["::ffff:10.0.0.0/104"])


def test_everything_and_nothing() -> None:
    assert "203.0.113.9" in NetworkSet(["0.0.0.0/0"])
    assert "::1" not in NetworkSet(["0.0.0.0/0"])
    assert "203.0.113.9" not in NetworkSet([])
    assert not NetworkSet([])
    assert NetworkSet(["::/0"])


def test_what_is_remembered_is_bounded() -> None:
    networks = NetworkSet(["10.0.0.0/30"])
    for number in range(NetworkSet.MAX_REMEMBERED * 2 + 5):
        assert (str(ipaddress.IPv4Address(0x0A000000 + number)) in networks) == (number < 4)
    assert len(networks._remembered) <= NetworkSet.MAX_REMEMBERED


@given(
    st.lists(
        st.tuples(st.ip_addresses(), st.integers(0, 128)).map(
            lambda pair: ipaddress.ip_network(
                (pair[0], min(pair[1], pair[0].max_prefixlen)),
                strict=False,
            )
        ),
        max_size=6,
    ),
    st.ip_addresses(),
    st.integers(0, 5),
)
def test_membership_agrees_with_the_ipaddress_module(
    listed: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    pick: int,
) -> None:
    if pick < len(listed):
        ip = listed[pick].broadcast_address
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return
    folded = [folded_to_ipv4(network) or network for network in listed]
    assert (str(ip) in NetworkSet(map(str, listed))) == any(ip in network for network in folded)


def folded_to_ipv4(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | None:
    """The IPv4 network that one of IPv4-mapped addresses stands for."""
    mapped = ipaddress.IPv6Network("::ffff:0:0/96")
    if isinstance(network, ipaddress.IPv4Network) or not network.subnet_of(mapped):
        return None
    last_four = network.network_address.packed[12:]
    return ipaddress.IPv4Network((last_four, network.prefixlen - 96))


@pytest.mark.parametrize(
    ("text", "hint"),
    [("10.0.0.1/8", "did you mean '10.0.0.0/8'"), ("10.0.0.0/33", "accepted are"), ("local", "accepted are")],
)
def test_a_bad_network_says_what_is_accepted(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_network(text)


def test_ip_bytes_folds_mapped_addresses() -> None:
    assert ip_bytes("127.0.0.1") == ip_bytes("::ffff:127.0.0.1") == b"\x7f\x00\x00\x01"
    assert ip_bytes("::1") == b"\x00" * 15 + b"\x01"
    assert ip_bytes("localhost") is None
