"""PROXY headers ahead of requests: read whole and no further, however they are split."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.serving import proxy_header
from gateway_app.serving.proxy_header import Told, read_header
from l4relay.proxy_protocol import (
    LOCAL_V2,
    Header,
    ProxyProtocolError,
    serialise_v1,
    serialise_v2,
)

CLIENT, SERVICE = ("192.0.2.7", 4711), ("192.0.2.1", 443)
CLIENT6, SERVICE6 = ("2001:db8::7", 4711), ("2001:db8::1", 443)
HEADERS = {
    "v1": serialise_v1(CLIENT, SERVICE),
    "v1 of IPv6": serialise_v1(CLIENT6, SERVICE6),
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v2": serialise_v2(CLIENT, SERVICE),
    "v2 of IPv6": serialise_v2(CLIENT6, SERVICE6, unique_id=b"one", with_crc32c=True),
    "v2 local": LOCAL_V2,
    "v2 of a Unix socket": serialise_v2("/run/a.sock", "/run/b.sock"),
}
REQUEST = b"GET /who HTTP/1.1\r\nhost: localhost\r\n\r\n"
FILE = """
[gateway]
listen = ["127.0.0.1:PORT"]
trusted_proxies = ["127.0.0.1"]
accept_proxy_protocol = true

[[routes]]
name = "who"
match = { path = "/who" }
respond = { body = "{client}\\n" }
"""


def read_all(pieces: list[bytes]) -> tuple[Header, bytes]:
    """The header, and what was left behind it."""

    async def read() -> tuple[Header, bytes]:
        reader = asyncio.StreamReader()
        task = asyncio.create_task(read_header(reader))
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()
        return await task, await reader.read()

    return asyncio.run(read())


@given(st.sampled_from(sorted(HEADERS)), st.data())
def test_any_split_gives_the_header_and_leaves_the_request_whole(kind: str, data: st.DataObject) -> None:
    sent = HEADERS[kind] + REQUEST
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=6)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    header, rest = read_all(pieces)
    assert rest == REQUEST
    assert header == read_all([HEADERS[kind]])[0]


@pytest.mark.parametrize("cut", [1, 6, 14, 20])
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_a_header_that_ends_too_soon_is_none(kind: str, cut: int) -> None:
    with pytest.raises(ProxyProtocolError, match="ended within"):
        read_all([HEADERS[kind][:cut]])


async def test_who_says_nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_header, "HEADER_TIMEOUT_S", 0.05)
    with pytest.raises(ProxyProtocolError, match=r"no PROXY header within 0\.05 s"):
        await asyncio.wait_for(read_header(asyncio.StreamReader()), 5)


def test_what_a_header_does_not_tell_is_the_socket_s() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        for kind in ("v1 unknown", "v2 local"):
            told = Told(read_all([HEADERS[kind]])[0], sock)
            assert (told.family, told.getpeername()) == (socket.AF_INET, sock.getpeername())
            assert told.connection_id == ""
        told = Told(read_all([HEADERS["v2 of IPv6"]])[0], sock)
        assert (told.family, told.getpeername(), told.getsockname()) == (
            socket.AF_INET6,
            CLIENT6,
            SERVICE6,
        )
        assert told.connection_id == "one"
        told = Told(read_all([HEADERS["v2 of a Unix socket"]])[0], sock)
        assert (told.family, told.getpeername()) == (socket.AF_UNIX, "")
