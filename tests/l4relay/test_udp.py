"""UDP through the relay: sessions, their bounds, and what happens when an endpoint refuses."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from l4relay.dns.resolve import Resolution

Answer = Callable[[bytes], list[bytes]]
StartEcho = Callable[..., Awaitable["Echo"]]


class Echo(asyncio.DatagramProtocol):
    """A UDP server; `answer` says with what."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.peers: set[Any] = set()
        self.received = 0
        self.awaited: tuple[int, asyncio.Event] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def datagram_received(self, datagram: bytes, peer: Any) -> None:
        self.peers.add(peer)
        self.received += 1
        if self.awaited is not None and self.received >= self.awaited[0]:
            self.awaited[1].set()
        for answer in self._answer(datagram):
            self.transport.sendto(answer, peer)

    async def has_received(self, count: int) -> None:
        self.awaited = count, asyncio.Event()
        if self.received < count:
            await asyncio.wait_for(self.awaited[1].wait(), 10)


@pytest.fixture
async def start_echo() -> AsyncIterator[StartEcho]:
    running = []

    async def start(
        answer: Answer = lambda datagram: [datagram], host: str = "127.0.0.1", port: int = 0
    ) -> Echo:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(lambda: Echo(answer), local_addr=(host, port))
        running.append(protocol)
        return protocol

    yield start
    for protocol in running:
        protocol.transport.close()


class Client:
    """A connected UDP socket."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((host, port))

    async def ask(self, datagram: bytes) -> bytes:
        self.sock.send(datagram)
        return await self.receive()

    async def receive(self, timeout: float = 5.0) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.sock, 70_000), timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0.0.0.0", "[::]"])
async def test_boundaries_are_kept_up_to_the_largest_datagram(
    start_relay: Any, start_echo: StartEcho, host: str
) -> None:
    upstream = await start_echo(host="::1" if ":" in host else "127.0.0.1")
    relay = await start_relay(listen=f"udp://{host}:0", endpoints=[upstream.address])
    with Client(relay.port, "::1" if ":" in host else "127.0.0.1") as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in (1, 1400, 65_507):
            assert await client.ask(b"x" * size) == b"x" * size


async def test_an_empty_datagram_is_one(start_relay: Any) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:  # a transport would send no empty one
        upstream.bind(("127.0.0.1", 0))
        upstream.setblocking(False)
        relay = await start_relay(
            listen="udp://127.0.0.1:0", endpoints=[f"127.0.0.1:{upstream.getsockname()[1]}"]
        )
        with Client(relay.port) as client:
            client.sock.send(b"")
            datagram, session = await asyncio.wait_for(loop.sock_recvfrom(upstream, 100), 5)
            assert datagram == b""
            upstream.sendto(b"", session)
            assert await asyncio.wait_for(loop.sock_recv(client.sock, 100), 5) == b""


async def test_a_wildcard_listener_answers_from_the_address_that_was_asked(
    start_relay: Any, start_echo: StartEcho
) -> None:
    relay = await start_relay(listen="udp://0.0.0.0:0", endpoints=[(await start_echo()).address])
    with Client(relay.port, "127.0.0.7") as client:  # connected: an answer from elsewhere would not arrive
        assert await client.ask(b"who?") == b"who?"


async def test_a_client_keeps_its_session(start_relay: Any, start_echo: StartEcho) -> None:
    upstream = await start_echo()
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[upstream.address])
    with Client(relay.port) as one, Client(relay.port) as two:
        for client in (one, two, one, two):
            assert await client.ask(b"x") == b"x"
    assert len(upstream.peers) == 2
    assert relay.relay()["active"] == 2


async def test_a_session_ends_after_its_responses(start_relay: Any, start_echo: StartEcho) -> None:
    upstream = await start_echo(lambda datagram: [b"1", b"2"])
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[upstream.address], responses=2)
    with Client(relay.port) as client:
        assert [await client.ask(b"?"), await client.receive()] == [b"1", b"2"]
    [line] = await relay.ended()
    assert (line["type"], line["end"], line["datagrams_received"]) == ("udp", "responses", 2)


async def test_an_idle_session_ends(start_relay: Any, start_echo: StartEcho) -> None:
    upstream = await start_echo()
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[upstream.address], idle_timeout="200ms")
    with Client(relay.port) as client:
        await client.ask(b"x")
        [line] = await relay.ended()
    assert line["end"] == "idle_timeout"


async def test_the_longest_idle_session_makes_room(start_relay: Any, start_echo: StartEcho) -> None:
    upstream = await start_echo()
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[upstream.address], max_sessions=3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(relay.port)) for _ in range(4)]
        for client in (*clients[:3], clients[0], clients[3]):
            await client.ask(b"x")
        [line] = await relay.ended()
        assert line["end"] == "max_sessions"
        assert line["client"] == f"127.0.0.1:{clients[1].sock.getsockname()[1]}"
        assert relay.relay()["active"] == 3


async def test_a_refusal_moves_the_session_with_its_datagram(
    start_relay: Any, start_echo: StartEcho, refused_address: str
) -> None:
    upstream = await start_echo()
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[refused_address, upstream.address])
    for _ in range(4):
        with Client(relay.port) as client:
            assert await client.ask(b"sent once") == b"sent once"


async def test_a_refusal_after_answers_moves_the_datagram_too(
    start_relay: Any, start_echo: StartEcho, free_ports: list[int]
) -> None:
    """Endpoints that are restarted one after the other: each is gone only when it is asked something."""
    first = await start_echo(lambda datagram: [b"1"], port=free_ports[0])
    second = await start_echo(lambda datagram: [b"2"], port=free_ports[1])
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[first.address, second.address])
    with Client(relay.port) as client:
        assert await client.ask(b"?") == b"1"
        first.transport.close()
        await asyncio.sleep(0)  # closed in the loop's next turn
        assert await client.ask(b"?") == b"2"
        first = await start_echo(lambda datagram: [b"1"], port=free_ports[0])
        second.transport.close()
        await asyncio.sleep(0)
        assert await client.ask(b"?") == b"1"
    assert relay.relay()["active"] == 1


async def test_refused_by_all_ends_the_session(start_relay: Any, refused_address: str) -> None:
    relay = await start_relay(listen="udp://127.0.0.1:0", endpoints=[refused_address])
    with Client(relay.port) as client:
        client.sock.send(b"x")
        [line] = await relay.ended()
    assert (line["end"], relay.relay()["active"]) == ("refused", 0)


async def test_source_hash_keeps_a_client_on_its_endpoint(start_relay: Any, start_echo: StartEcho) -> None:
    upstreams = [await start_echo(lambda _, number=number: [b"%d" % number]) for number in range(4)]
    relay = await start_relay(
        listen="udp://127.0.0.1:0",
        endpoints=[upstream.address for upstream in upstreams],
        balance="source_hash",
    )
    answers = set()
    for _ in range(20):
        with Client(relay.port) as client:
            answers.add(await client.ask(b"?"))
    assert len(answers) == 1


async def test_a_listener_that_is_taken_out_and_put_back_keeps_its_sessions(
    start_relay: Any, start_echo: StartEcho, free_ports: list[int]
) -> None:
    upstream = await start_echo()
    tables = [
        f'[[relay]]\nname = "{port}"\nlisten = "udp://127.0.0.1:{port}"\nendpoints = ["{upstream.address}"]\n'
        for port in free_ports
    ]
    relay = await start_relay("".join(tables))
    with Client(free_ports[0]) as client, Client(free_ports[0]) as another:
        assert await client.ask(b"1") == b"1"
        relay.path.write_text(tables[1])
        assert await relay.worker.reload()
        another.sock.send(b"nobody takes it")
        assert await client.ask(b"2") == b"2"
        relay.path.write_text("".join(tables))
        assert await relay.worker.reload()
        assert await another.ask(b"3") == b"3"
        assert await client.ask(b"4") == b"4"
    assert len(upstream.peers) == 2


async def test_a_listener_whose_last_session_ends_during_the_reload_that_puts_it_back_is_bound_anew(
    start_relay: Any, start_echo: StartEcho, free_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await start_echo()
    tables = [
        f'[[relay]]\nname = "{port}"\nlisten = "udp://127.0.0.1:{port}"\nendpoints = ["{upstream.address}"]\n'
        for port in free_ports
    ]
    relay = await start_relay("".join(tables))
    with Client(free_ports[0]) as client:
        assert await client.ask(b"1") == b"1"
        relay.path.write_text(tables[1])
        assert await relay.worker.reload()

        class Nameserver:
            async def resolve(self, host: str, port: int) -> Resolution:
                """Have happen what may while names are resolved."""
                for retiring in relay.worker._retiring:
                    retiring.close_all("idle_timeout")
                await asyncio.sleep(0)  # sockets are closed in the loop's next turn
                return Resolution(("127.0.0.1",), 60.0)

        monkeypatch.setattr("l4relay.worker.Resolver", Nameserver)
        relay.path.write_text("".join(tables).replace('["127.0.0.1:', '["service.example:'))
        assert await relay.worker.reload()
        assert await client.ask(b"2") == b"2"


@pytest.mark.timeout(180)  # 15 s of CPU
async def test_200000_client_ports_in_a_row_leave_nothing(
    start_relay: Any, start_echo: StartEcho, until: Any
) -> None:
    """Many clients, each with a port of its own, every one gone after a datagram that nobody answers."""
    upstream = await start_echo(lambda datagram: [])
    relay = await start_relay(
        listen="udp://127.0.0.1:0", endpoints=[upstream.address], max_sessions=200, idle_timeout="500ms"
    )
    await asyncio.sleep(0)  # the worker's own tasks start
    before, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    ports = 200_000
    for count in range(ports):
        with Client(relay.port) as client:
            client.sock.send(b"x")
        if count % 200 == 199:  # what a socket's buffer holds
            await upstream.has_received(count + 1)
            assert len(os.listdir("/proc/self/fd")) <= before + 202
    await until(lambda: relay.relay()["active"] == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert len(asyncio.all_tasks()) <= tasks
    [listener] = relay.worker.listeners.values()
    status = relay.relay()
    assert len(listener.sessions) == 0
    assert sum(status["ended"].values()) == status["accepted"] > ports * 0.9  # a port may come up twice
