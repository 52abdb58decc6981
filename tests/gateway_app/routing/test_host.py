"""Hosts of requests in one form, and the host patterns of routes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_app.routing.host import HostError, HostReader, normalise_host, parse_host_pattern


@pytest.mark.parametrize(
    ("written", "host"),
    [
        (b"", ""),
        (b"example.com", "example.com"),
        (b"API.Example.COM", "api.example.com"),
        (b"example.com.", "example.com"),
        (b"example.com.:8080", "example.com"),
        (b"example.com:8080", "example.com"),
        (b"example.com:", "example.com"),
        (b"localhost", "localhost"),
        (b"my_service-1", "my_service-1"),
        (b"192.0.2.1:80", "192.0.2.1"),
        (b"[::1]", "[::1]"),
        (b"[0:0:0:0:0:0:0:1]:443", "[::1]"),
        (b"[2001:DB8::A]", "[2001:db8::a]"),
        (b"XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
    ],
)
def test_a_host_is_compared_in_one_form(written: bytes, host: str) -> None:
    assert normalise_host(written) == host


@pytest.mark.parametrize(
    "written",
    [
        b".",
        b".example.com",
        b"a..b",
        b"example.com..",
        b"-a.example",
        b"a-.example",
        b"a b",
        b"example.com:http",
        b"example.com:99999",
        b"example.com:-1",
        b"example.com:80:80",
        b"user@example.com",
        b"user:pass@example.com",
        b"example.com/x",
        b"example.com#x",
        b"exa%6dple.com",
        b"b\xc3\xbccher.example",
        b"b\xfccher.example",
        b"\xe2\x84\xaa.example",
        b"a,b",
        b"*.example.com",
        b"::1",
        b"[::1",
        b"[::1]x",
        b"[::1%25eth0]",
        b"[v1.x]",
        b"[1.2.3.4]",
        b"[:::]",
        b"a\x00b",
        b"example.com\n",
        b"a" * 64,
        b"a." * 127 + b"a",
        b"1" * 300,
    ],
)
def test_what_names_no_host_is_refused(written: bytes) -> None:
    with pytest.raises(HostError):
        normalise_host(written)


@settings(deadline=None)
@given(st.binary(max_size=24))
def test_any_bytes_are_a_host_or_refused(written: bytes) -> None:
    try:
        host = normalise_host(written)
    except HostError:
        return
    assert normalise_host(host.encode()) == host == host.lower()


def test_a_reader_remembers_a_bounded_number() -> None:
    reader = HostReader()
    for number in range(2500):
        assert reader.read(b"H%d.example:80" % number) == f"h{number}.example"
    assert len(reader._seen) <= HostReader.MAX_REMEMBERED
    with pytest.raises(HostError):
        reader.read(b"a b")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (None, ["", "a", "a.b", "[::1]"], []),
        ("*", ["", "a.b"], []),
        ("Example.com", ["example.com"], ["", "a.example.com", "example.co"]),
        ("example.com.", ["example.com"], []),
        ("*.example.com", ["a.example.com", "b.a.example.com"], ["example.com", "aexample.com", ""]),
        ("::1", ["[::1]"], ["[::2]"]),
        ("[0:0::1]", ["[::1]"], []),
    ],
)
def test_a_pattern_means_hosts(pattern: str | None, inside: list[str], outside: list[str]) -> None:
    parsed = parse_host_pattern(pattern)
    assert all(parsed.matches(host) for host in inside)
    assert not any(parsed.matches(host) for host in outside)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("example.com:80", "the name is written alone"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*example.com", "accepted are"),
        ("a.*.com", "accepted are"),
        ("*.[::1]", "accepted are"),
        ("", "accepted are"),
        ("http://a", "the name is written alone"),
        ("a b", "accepted are"),
    ],
)
def test_a_pattern_that_means_none_says_what_to_write(pattern: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_host_pattern(pattern)
    assert hint in str(error.value)
