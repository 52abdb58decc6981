"""TCP through the relay: bytes, ends and failures arrive on the other side as they were."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHUNK = bytes(range(256)) * 4096
LARGE = 200


async def test_bytes_and_ends_pass_both_ways(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(endpoints=[await start_server()])
    assert await relay.exchange(b"hello") == b"hello"
    [line] = await relay.ended()
    assert (line["sent"], line["received"], line["end"]) == (5, 5, "client_closed")
    assert line["relay"] == "test"
    assert relay.relay()["active"] == 0


async def test_keep_alive_and_no_delay_on_both_sides(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(endpoints=[await start_server()])
    reader, writer = await relay.connect()
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    [connection] = relay.worker.relays[0].flowing
    for sock in (connection._sock, connection._upstream):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await relay.ended()


async def test_the_endpoint_may_speak_first_and_end_first(start_relay: Any, start_server: Any) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready")
        writer.write_eof()
        assert await reader.read() == b"thanks"  # the client's direction is still open

    relay = await start_relay(endpoints=[await start_server(greet)])
    reader, writer = await relay.connect()
    assert await reader.read() == b"220 ready"
    writer.write(b"thanks")
    writer.close()
    [line] = await relay.ended()
    assert (line["sent"], line["received"], line["end"]) == (6, 9, "endpoint_closed")


@pytest.mark.parametrize("splice", [True, False])
async def test_200_mb_both_ways_through_a_slow_reader(
    start_relay: Any, start_server: Any, splice: bool
) -> None:
    received = hashlib.sha256()

    async def swap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for _ in range(LARGE):
                writer.write(CHUNK)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        while segment := await reader.read(1 << 20):
            received.update(segment)
        all_received.set()
        await sending

    all_received = asyncio.Event()
    relay = await start_relay(endpoints=[await start_server(swap)], splice=splice)
    reader, writer = await relay.connect()
    before = resident_bytes()
    await asyncio.sleep(0.3)  # reads nothing, so that everything on the way fills up
    highest = resident_bytes()

    async def send() -> None:
        for _ in range(LARGE):
            writer.write(CHUNK)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    digest, size = hashlib.sha256(), 0
    while segment := await reader.read(1 << 20):
        digest.update(segment)
        highest = max(highest, resident_bytes())
        is_pause = size >> 23 != size + len(segment) >> 23
        size += len(segment)
        if is_pause:  # and again, every 8 MiB
            await asyncio.sleep(0.02)
    await sending
    writer.close()
    expected = hashlib.sha256()
    for _ in range(LARGE):
        expected.update(CHUNK)
    await all_received.wait()
    [line] = await relay.ended()
    assert (line["sent"], line["received"]) == (LARGE << 20, LARGE << 20)
    assert digest.digest() == received.digest() == expected.digest()
    assert highest - before < 32 << 20


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("direction", ["sent", "received"])
async def test_200_mb_one_way(start_relay: Any, start_server: Any, direction: str, splice: bool) -> None:
    """The other way has ended before, or says a word after it."""

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(LARGE):
            writer.write(CHUNK)
            await writer.drain()
        writer.write_eof()

    async def take(reader: asyncio.StreamReader) -> bytes:
        digest, highest = hashlib.sha256(), before
        while segment := await reader.read(1 << 20):
            digest.update(segment)
            highest = max(highest, resident_bytes())
        assert highest - before < 32 << 20
        return digest.digest()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if direction == "sent":
            writer.write(await take(reader))
        else:
            assert await reader.read() == b"all of it"
            await pour(writer)

    relay = await start_relay(endpoints=[await start_server(serve)], splice=splice)
    before = resident_bytes()
    expected = hashlib.sha256()
    for _ in range(LARGE):
        expected.update(CHUNK)
    reader, writer = await relay.connect()
    if direction == "sent":
        await pour(writer)
        assert await reader.read() == expected.digest()
    else:
        writer.write(b"all of it")
        writer.write_eof()
        assert await take(reader) == expected.digest()
    writer.close()
    [line] = await relay.ended()
    assert (line[direction], line["end"]) == (LARGE << 20, "client_closed")


@pytest.mark.parametrize("splice", [True, False])
async def test_a_reader_that_stops_in_the_middle_is_idle(
    start_relay: Any, start_server: Any, until: Any, splice: bool
) -> None:
    """Bytes are stuck on the way; what they took is given back."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(CHUNK)
            await writer.drain()

    relay = await start_relay(endpoints=[await start_server(pour)], splice=splice, idle_timeout="1m")
    before = open_descriptors()
    reader, writer = await relay.connect()
    received = len(await reader.readexactly(8 << 20))
    await asyncio.sleep(0.3)  # everything on the way fills up
    for seconds in (30, 120):  # the first look still sees that bytes have moved
        relay.worker.relays[0].tick(time.monotonic() + seconds)
    [line] = await relay.ended()
    assert line["end"] == "idle_timeout"
    assert line["received"] > received
    writer.transport.abort()
    await until(lambda: open_descriptors() <= before)


async def test_established_connections_keep_their_settings(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(endpoints=[await start_server()], idle_timeout="500ms")
    old = await relay.connect()
    relay.path.write_text(relay.path.read_text().replace("500ms", "1h"))
    assert await relay.worker.reload()
    new = await relay.connect()
    assert await asyncio.wait_for(old[0].read(), 5) == b""
    new[1].write(b"x")
    assert await new[0].read(1) == b"x"
    for _, writer in (old, new):
        writer.close()
    assert [line["end"] for line in await relay.ended(2)] == ["idle_timeout", "client_closed"]


async def test_a_reset_is_passed_on(start_relay: Any, start_server: Any) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        await writer.drain()
        await reader.read(4)
        abort(writer)

    relay = await start_relay(endpoints=[await start_server(reset)])
    reader, writer = await relay.connect()
    assert await reader.read(100) == b"half of it"
    writer.write(b"more")
    with pytest.raises(ConnectionResetError):
        await reader.read(100)
    [line] = await relay.ended()
    assert line["end"] == "endpoint_reset"


async def test_an_endpoint_killed_in_mid_transfer_closes_the_client(
    start_relay: Any, start_server: Any
) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            writer.write(CHUNK)
            await writer.drain()
        abort(writer)

    relay = await start_relay(endpoints=[await start_server(pour)])
    reader, writer = await relay.connect()
    with contextlib.suppress(ConnectionResetError):
        while await asyncio.wait_for(reader.read(1 << 16), 5):
            pass
    writer.close()
    await relay.ended()


async def test_a_refused_endpoint_is_no_client_error(
    start_relay: Any, start_server: Any, refused_address: str
) -> None:
    relay = await start_relay(endpoints=[refused_address, await start_server()])
    for _ in range(4):
        assert await relay.exchange() == b"hello"
    lines = await relay.ended(4)
    assert {line.get("attempts", 1) for line in lines} == {1, 2}


async def test_without_any_endpoint_the_client_is_closed(start_relay: Any, refused_address: str) -> None:
    relay = await start_relay(endpoints=[refused_address])
    reader, writer = await relay.connect()
    assert await reader.read() == b""
    writer.close()
    [line] = await relay.ended()
    assert line["end"] == "connect_failed"


async def test_an_endpoint_that_does_not_answer_is_given_up_in_time(
    start_relay: Any, start_server: Any, full_backlog: str
) -> None:
    relay = await start_relay(endpoints=[full_backlog, await start_server()], connect_timeout="1s")
    assert await relay.exchange() == b"hello"
    [line] = await relay.ended()
    assert line["attempts"] == 2


async def test_an_idle_connection_ends(start_relay: Any, start_server: Any) -> None:
    relay = await start_relay(endpoints=[await start_server()], idle_timeout="1m")
    reader, writer = await relay.connect()
    now = time.monotonic()
    for minutes in range(4):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        relay.worker.relays[0].tick(now + 60 * minutes)
    relay.worker.relays[0].tick(now + 60 * 4)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    [line] = await relay.ended()
    assert line["end"] == "idle_timeout"


@pytest.mark.parametrize("order", [1, -1])
async def test_every_address_of_both_families_in_either_order(
    start_relay: Any, start_server: Any, free_port: int, order: int
) -> None:
    listens = [f"tcp://0.0.0.0:{free_port}", f"tcp://[::]:{free_port}"][::order]
    await start_relay(endpoints=[await start_server()], listen=listens)
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, free_port)
        writer.write(b"hello")
        assert await reader.read(5) == b"hello"
        writer.close()


async def test_unix_sockets_on_both_sides(start_relay: Any, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "up", limit=1 << 24)
    relay = await start_relay(listen=f"unix:{tmp_path}/down", endpoints=[f"unix:{tmp_path}/up"])
    reader, writer = await asyncio.open_unix_connection(tmp_path / "down")
    message = CHUNK * 3
    writer.write(message)
    writer.write_eof()
    assert await reader.read() == message
    writer.close()
    server.close()
    [line] = await relay.ended()
    assert line["sent"] == line["received"] == len(message)


async def test_every_address_is_both_families_whatever_reloads_do_to_the_other_one(
    start_relay: Any, start_server: Any, free_port: int
) -> None:
    every, ipv4 = f'"tcp://[::]:{free_port}"', f'"tcp://0.0.0.0:{free_port}"'
    text = f'[[relay]]\nname = "test"\nlisten = [LISTEN]\nendpoints = ["{await start_server()}"]\n'
    relay = await start_relay(text.replace("LISTEN", every))
    for listens in (every, f"{every}, {ipv4}", every):
        relay.path.write_text(text.replace("LISTEN", listens))
        assert await relay.worker.reload()
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, free_port)
            writer.write(b"hello")
            assert await reader.read(5) == b"hello"
            writer.close()


@pytest.mark.parametrize("splice", [True, False])
async def test_an_endpoint_s_unix_socket_that_fails_is_the_endpoint_s_reset(
    start_relay: Any, tmp_path: Path, splice: bool
) -> None:
    """And the client is reset, so that half an answer does not look like a whole one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"half")
        await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_unix_server(serve, tmp_path / "up")
    relay = await start_relay(endpoints=[f"unix:{tmp_path}/up"], splice=splice)
    reader, writer = await relay.connect()
    with contextlib.suppress(ConnectionResetError):
        for _ in range(1000):
            writer.write(b"x" * 65536)
            await writer.drain()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    [line] = await relay.ended()
    assert line["end"] == "endpoint_reset"
    writer.close()
    server.close()


async def test_5000_connections_leave_nothing(start_relay: Any, start_server: Any, until: Any) -> None:
    relay = await start_relay(endpoints=[await start_server()])
    await relay.exchange()
    await relay.ended()
    await until(lambda: relay.relay()["active"] == 0)
    before, tasks = open_descriptors(), len(asyncio.all_tasks())
    for _ in range(50):
        await asyncio.gather(*[relay.exchange() for _ in range(100)])
    await until(lambda: relay.relay()["active"] == 0)
    await until(lambda: open_descriptors() <= before and len(asyncio.all_tasks()) <= tasks)
    assert len(relay.log()) == 5001


def abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """A listener whose backlog is full: a further connection attempt gets no answer."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield "127.0.0.1:" + str(listener.getsockname()[1])
