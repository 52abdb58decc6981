"""The PROXY protocol on real connections: read, sent, and passed on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from l4relay.proxy_protocol import LOCAL_V2, Header, parse, serialise_v2

CLIENT = ("192.0.2.7", 4711)
SERVICE = ("198.51.100.1", 443)


class Service:
    """Reads a PROXY header and then echoes."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.header_bytes: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = b""
        while (parsed := parse(start)) is None:
            segment = await reader.read(65536)
            if not segment:
                return
            start += segment
        header, length = parsed
        self.headers.append(header)
        self.header_bytes.append(start[:length])
        writer.write(start[length:])
        while segment := await reader.read(65536):
            writer.write(segment)
            await writer.drain()


@pytest.mark.parametrize("version", ["v1", "v2", "v2-crc32c"])
async def test_the_endpoint_learns_the_client(start_relay: Any, start_server: Any, version: str) -> None:
    service = Service()
    relay = await start_relay(endpoints=[await start_server(service.serve)], proxy_protocol=version)
    assert await relay.exchange(b"hello") == b"hello"
    [header] = service.headers
    [line] = await relay.ended()
    assert isinstance(header.source, tuple)
    assert line["client"] == f"{header.source[0]}:{header.source[1]}"
    assert header.destination == ("127.0.0.1", relay.port)
    assert line["sent"] == 5  # the header is not the client's
    if version != "v1":
        assert header.unique_id == line["id"].encode()


@pytest.mark.parametrize("cut", [1, 12, 20, 40])
async def test_a_header_is_believed_and_goes_on_with_its_id_and_fields(
    start_relay: Any, start_server: Any, cut: int
) -> None:
    service = Service()
    relay = await start_relay(
        endpoints=[await start_server(service.serve)],
        proxy_protocol="v2",
        accept_proxy_protocol=True,
        trusted_proxies=["127.0.0.0/8"],
    )
    unknown = (0xE0, b"unknown")
    header_in = serialise_v2(CLIENT, SERVICE, unique_id=b"from-the-edge", tlvs=[unknown], with_crc32c=True)
    start = header_in + b"hello"
    reader, writer = await relay.connect()
    writer.write(start[:cut])
    await asyncio.sleep(0.02)
    writer.write(start[cut:])
    assert await asyncio.wait_for(reader.read(5), 5) == b"hello"
    writer.close()
    [header] = service.headers
    assert (header.source, header.destination) == (CLIENT, SERVICE)
    assert header.unique_id == b"from-the-edge"
    assert header.tlvs == (unknown,)
    [line] = await relay.ended()
    assert (line["client"], line["id"]) == ("192.0.2.7:4711", "from-the-edge")
    assert line["proxy"].startswith("127.0.0.1:")


async def test_a_header_without_a_port_has_an_address(start_relay: Any, start_server: Any) -> None:
    """Some senders do not know the client's port and write 0."""
    service = Service()
    relay = await start_relay(
        endpoints=[await start_server(service.serve)],
        proxy_protocol="v2",
        accept_proxy_protocol=True,
        trusted_proxies=["127.0.0.0/8"],
    )
    assert await relay.exchange(serialise_v2(("192.0.2.7", 0), SERVICE) + b"hello") == b"hello"
    [line] = await relay.ended()
    assert (line["client"], service.headers[0].source) == ("192.0.2.7:0", ("192.0.2.7", 0))


async def test_an_id_of_any_bytes_goes_on_as_it_came(start_relay: Any, start_server: Any) -> None:
    service = Service()
    relay = await start_relay(
        endpoints=[await start_server(service.serve)],
        proxy_protocol="v2",
        accept_proxy_protocol=True,
        trusted_proxies=["127.0.0.0/8"],
    )
    longest = bytes(range(128))
    assert await relay.exchange(serialise_v2(CLIENT, SERVICE, unique_id=longest) + b"hello") == b"hello"
    [line] = await relay.ended()
    assert (service.headers[0].unique_id, line["id"]) == (longest, longest.hex())


async def test_the_client_in_the_header_is_who_is_admitted(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(
        endpoints=[await start_server()],
        accept_proxy_protocol=True,
        trusted_proxies=["127.0.0.0/8"],
        deny=["192.0.2.0/24"],
    )
    reader, writer = await relay.connect()
    writer.write(serialise_v2(CLIENT, SERVICE))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    [line] = await relay.ended()
    assert line["end"] == "denied"


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 x\r\n", LOCAL_V2[:12] + b"\x31\0\0\0"])
async def test_what_is_no_header_closes_at_once(start_relay: Any, start_server: Any, start: bytes) -> None:
    relay = await start_relay(
        endpoints=[await start_server()], accept_proxy_protocol=True, trusted_proxies=["127.0.0.0/8"]
    )
    reader, writer = await relay.connect()
    writer.write(start)
    assert await asyncio.wait_for(reader.read(), 4) == b""
    writer.close()
    [line] = await relay.ended()
    assert (line["end"], line["endpoint"]) == ("bad_proxy_header", "")


async def test_a_header_that_does_not_come_is_not_awaited_for_ever(
    start_relay: Any, start_server: Any
) -> None:
    relay = await start_relay(
        endpoints=[await start_server()],
        accept_proxy_protocol=True,
        trusted_proxies=["127.0.0.0/8"],
        handshake_timeout="200ms",
    )
    reader, writer = await relay.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    [line] = await relay.ended()
    assert line["end"] == "handshake_timeout"


async def test_from_elsewhere_a_header_is_only_bytes(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(
        endpoints=[await start_server()], accept_proxy_protocol=True, trusted_proxies=["10.0.0.0/8"]
    )
    start = serialise_v2(CLIENT, SERVICE)
    assert await relay.exchange(start) == start
    [line] = await relay.ended()
    assert line["client"].startswith("127.0.0.1:")


async def test_two_relays_keep_one_id(start_relay: Any, start_server: Any) -> None:
    inner = await start_relay(
        endpoints=[await start_server()], accept_proxy_protocol=True, trusted_proxies=["127.0.0.0/8"]
    )
    outer = await start_relay(endpoints=[f"127.0.0.1:{inner.port}"], proxy_protocol="v2")
    assert await outer.exchange() == b"hello"
    [first], [second] = await outer.ended(), await inner.ended()
    assert (first["id"], first["client"]) == (second["id"], second["client"])


async def test_over_unix_sockets(start_relay: Any, start_server: Any, tmp_path: Path) -> None:
    service = Service()
    relay = await start_relay(
        listen=f"unix:{tmp_path}/down", endpoints=[await start_server(service.serve)], proxy_protocol="v2"
    )
    reader, writer = await asyncio.open_unix_connection(tmp_path / "down")
    writer.write(b"hello")
    assert await reader.read(5) == b"hello"
    writer.close()
    await relay.ended()
    assert service.headers[0].destination == f"{tmp_path}/down"


async def test_health_checks_say_that_they_are_local(start_relay: Any, start_server: Any, until: Any) -> None:
    service = Service()
    await start_relay(
        endpoints=[await start_server(service.serve)], proxy_protocol="v2", health={"interval": "50ms"}
    )
    await until(lambda: len(service.headers) > 1)
    assert set(service.header_bytes) == {LOCAL_V2}
