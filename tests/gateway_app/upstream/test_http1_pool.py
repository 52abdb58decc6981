"""Which connection carries which request: reuse, expiry, places and waiting for them, what cannot be used."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from starlette.types import Message

from gateway_app.problem import Cause

OK = b"HTTP/1.1 200 OK\r\n"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Eventually = Callable[[Callable[[], bool]], Any]


class Numbered:
    """Answers with the number of the connection, once the path is let through; notes what was asked."""

    def __init__(self, fields: bytes = b"", **fields_of: bytes) -> None:
        self.connections = 0
        self.asked: list[str] = []
        self.writers: list[Writer] = []
        self.held: dict[str, asyncio.Event] = {}
        self._fields = fields
        self._fields_of = fields_of

    def hold(self, *paths: str) -> None:
        self.held.update((path, asyncio.Event()) for path in paths)

    def let_go(self, path: str) -> None:
        self.held.pop(path).set()

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        number = self.connections
        self.writers.append(writer)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            if path in self.held:
                await self.held[path].wait()
            fields = self._fields_of.get(path[1:], self._fields)
            writer.write(OK + fields + b"Content-Length: 1\r\n\r\n%d" % number)
            if b"close" in fields.lower():
                return


def reset(writer: Writer) -> None:
    """Close with RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def both_open(made: Any, endpoint: Numbered, eventually: Eventually, *let_go: str) -> None:
    """Have two connections opened, and handed back in the order of `let_go`."""
    endpoint.hold("/1", "/2")
    asking = {}
    for path in ("/1", "/2"):
        asking[path] = asyncio.create_task(made.ask(path=path))
        await eventually(lambda path=path: path in endpoint.asked)  # type: ignore[misc]
    for path in let_go:
        endpoint.let_go(path)
        assert (await asking[path]).body == path[1:].encode()
    assert made.pool == {"open": 2, "idle": 2, "waiting": 0}


# ---------------------------------------------------------------- reuse


@pytest.mark.parametrize(("order", "next_one"), [(("/1", "/2"), b"2"), (("/2", "/1"), b"1")])
async def test_the_connection_used_last_is_used_next(
    order: tuple[str, str], next_one: bytes, line: Any, eventually: Eventually
) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint) as made:
        await both_open(made, endpoint, eventually, *order)
        assert {(await made.ask()).body for _ in range(5)} == {next_one}


async def test_a_connection_expires_unless_the_endpoint_keeps_it_longer(
    line: Any, eventually: Eventually
) -> None:
    endpoint = Numbered(**{"1": b"Keep-Alive: timeout=60, max=100\r\n"})
    async with asyncio.timeout(5), line(endpoint, keep_alive=0.5) as made:
        await both_open(made, endpoint, eventually, "/1", "/2")
        await eventually(lambda: made.pool["open"] == 1)
        assert (await made.ask()).body == b"1"
        assert made.connections == 2


async def test_a_connection_expires_before_the_endpoint_closes_it(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered(b"Keep-Alive: timeout=1\r\n")
    async with asyncio.timeout(5), line(endpoint, keep_alive=60) as made:
        assert (await made.ask()).body == b"1"
        (connection,) = made.backend.endpoints[0].transport._idle
        assert connection.idle_until - asyncio.get_running_loop().time() < 0.95
        await eventually(lambda: made.pool["open"] == 0)
        assert (await made.ask()).body == b"2"


async def test_a_connection_past_its_time_is_not_used_even_if_it_is_still_there(line: Any) -> None:
    """The timer may be late: what counts is the time."""
    endpoint = Numbered(b"Keep-Alive: timeout=0\r\n")
    async with asyncio.timeout(5), line(endpoint) as made:
        assert [(await made.ask()).body for _ in range(3)] == [b"1", b"2", b"3"]


async def test_by_default_a_connection_is_kept_for_less_than_node_keeps_it(bench: Any) -> None:
    assert bench.config(1).keep_alive == 4.0


# ---------------------------------------------------------------- places


async def test_no_more_connections_than_allowed(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=2) as made:
        endpoint.hold("/1")
        held = [asyncio.create_task(made.ask(path="/1")) for _ in range(2)]
        await eventually(lambda: len(endpoint.asked) == 2)
        waiting = [asyncio.create_task(made.ask()) for _ in range(20)]
        await eventually(lambda: made.pool["waiting"] == 20)
        endpoint.let_go("/1")
        assert {(await task).body for task in held + waiting} == {b"1", b"2"}
        assert made.connections == 2
        assert made.pool == {"open": 2, "idle": 2, "waiting": 0}


async def test_who_has_waited_longest_is_served_first(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        endpoint.hold("/held")
        tasks = [asyncio.create_task(made.ask(path="/held"))]
        await eventually(lambda: endpoint.asked == ["/held"])
        for number in range(5):
            tasks.append(asyncio.create_task(made.ask(path=f"/{number}")))
            await eventually(lambda: made.pool["waiting"] == len(tasks) - 1)
        endpoint.let_go("/held")
        await asyncio.gather(*tasks)
        assert endpoint.asked == ["/held", "/0", "/1", "/2", "/3", "/4"]


async def test_who_waits_gets_the_place_of_a_connection_that_ends(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered(held=b"Connection: close\r\n")
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        endpoint.hold("/held")
        held = asyncio.create_task(made.ask(path="/held"))
        await eventually(lambda: endpoint.asked == ["/held"])
        waiting = asyncio.create_task(made.ask())
        await eventually(lambda: made.pool["waiting"] == 1)
        endpoint.let_go("/held")
        assert ((await held).body, (await waiting).body) == (b"1", b"2")
        assert made.pool == {"open": 1, "idle": 1, "waiting": 0}


async def test_the_wait_for_a_place_is_bounded_in_time(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered()
    async with (
        asyncio.timeout(5),
        line(endpoint, max_connections=1, timeout={"connect": 1.0}) as made,
    ):
        endpoint.hold("/held")
        held = asyncio.create_task(made.ask(path="/held"))
        await eventually(lambda: endpoint.asked == ["/held"])
        refused = await made.ask()

        assert refused.cause is Cause.OVERLOADED
        assert made.pool["waiting"] == 0
        assert made.backend.endpoints[0].failures == 0, "it is our limit, not the endpoint's fault"
        endpoint.let_go("/held")
        assert (await held).body == (await made.ask()).body == b"1"


async def test_the_wait_for_a_place_is_bounded_in_number(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=1, max_waiting=2) as made:
        endpoint.hold("/held")
        tasks = [asyncio.create_task(made.ask(path="/held"))]
        await eventually(lambda: endpoint.asked == ["/held"])
        tasks += [asyncio.create_task(made.ask()) for _ in range(2)]
        await eventually(lambda: made.pool["waiting"] == 2)
        assert (await made.ask()).cause is Cause.OVERLOADED
        endpoint.let_go("/held")
        assert [(await task).body for task in tasks] == [b"1"] * 3


# ---------------------------------------------------------------- who no longer waits


async def held_and_waiting(
    made: Any, endpoint: Numbered, eventually: Eventually, at_end: Callable[[asyncio.Task[Any]], None]
) -> asyncio.Task[Any]:
    """One request holds the only place, one waits; `at_end` is called just before the first gives it back."""
    endpoint.hold("/held")

    async def on_send(message: Message) -> None:
        if message["type"] == "http.response.body":
            at_end(waiting)

    held = asyncio.create_task(made.ask(path="/held", on_send=on_send))
    await eventually(lambda: endpoint.asked == ["/held"])
    waiting = asyncio.create_task(made.ask(path="/waiting"))
    await eventually(lambda: made.pool["waiting"] == 1)
    endpoint.let_go("/held")
    assert (await held).body == b"1"
    return waiting


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"], ids=["connection", "place"])
@pytest.mark.parametrize("when", ["before it is handed over", "after it is handed over"])
async def test_who_is_cancelled_while_the_place_comes_free_loses_nothing(
    when: str, fields: bytes, line: Any, eventually: Eventually
) -> None:
    def cancel(waiting: asyncio.Task[Any]) -> None:
        if when == "before it is handed over":
            waiting.cancel()
        else:  # the place is handed over within this step of the loop, and the next begins with this
            asyncio.get_running_loop().call_soon(waiting.cancel)

    endpoint = Numbered(held=fields)
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        waiting = await held_and_waiting(made, endpoint, eventually, cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert made.pool["waiting"] == made.flights == 0
        assert (await made.ask()).body == (b"2" if fields else b"1")
        assert "/waiting" not in endpoint.asked
        assert made.pool == {"open": 1, "idle": 1, "waiting": 0}


async def test_a_connection_that_ends_on_its_way_to_who_waits(line: Any, eventually: Eventually) -> None:
    def spoil(_: asyncio.Task[Any]) -> None:
        reset(endpoint.writers[0])

    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        waiting = await held_and_waiting(made, endpoint, eventually, spoil)
        assert (await waiting).body == b"2"
        assert made.pool == {"open": 1, "idle": 1, "waiting": 0}


# ---------------------------------------------------------------- connections that cannot be used


@pytest.mark.parametrize("end", [reset, Writer.close], ids=["RST", "FIN"])
async def test_an_idle_connection_that_the_endpoint_closes_is_forgotten(
    end: Callable[[Writer], None], line: Any, eventually: Eventually
) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        await made.ask()
        end(endpoint.writers[0])
        await eventually(lambda: made.pool["open"] == 0)
        assert (await made.ask("POST")).body == b"2"
        assert endpoint.asked == ["/", "/"]


async def test_an_idle_connection_with_unasked_bytes_is_not_used_again(
    line: Any, eventually: Eventually
) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint, max_connections=1) as made:
        await made.ask()
        endpoint.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await eventually(lambda: made.pool["open"] == 0)
        assert (await made.ask("POST")).body == b"2"


async def test_nobody_listens(line: Any) -> None:
    async with asyncio.timeout(5), line(Numbered(), max_connections=1) as made:
        made.stop_listening()
        for _ in range(3):
            assert (await made.ask("POST")).cause is Cause.CONNECTION_REFUSED
        assert made.pool == {"open": 0, "idle": 0, "waiting": 0}


async def test_without_descriptors_no_endpoint_is_to_blame(
    line: Any, no_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    async with asyncio.timeout(5), line(Numbered(), max_connections=1) as made:
        with no_descriptors():
            assert (await made.ask()).cause is Cause.OVERLOADED
        assert made.backend.endpoints[0].failures == 0
        assert made.pool == {"open": 0, "idle": 0, "waiting": 0}
        assert (await made.ask()).body == b"1"


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port where connections are neither accepted nor refused."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_nobody_accepts(line: Any) -> None:
    with full_backlog() as port:
        settings = {"max_connections": 1, "timeout": {"connect": 0.2}}
        async with asyncio.timeout(5), line(Numbered(), port=port, **settings) as made:
            for _ in range(2):
                assert (await made.ask("POST")).cause is Cause.CONNECT_TIMEOUT
            assert made.pool == {"open": 0, "idle": 0, "waiting": 0}


@contextmanager
def greeting(greet: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where every connection is greeted so, from a thread that does not wait for the event loop."""

    def serve() -> None:
        while True:
            try:
                client = listening.accept()[0]
            except OSError:
                return
            clients.append(client)
            greet(client)

    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for client in clients:
        client.close()


def reset_socket(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize(
    "greet",
    [socket.socket.close, reset_socket, lambda client: client.sendall(b"220 ready\r\n")],
    ids=["closes", "resets", "speaks first"],
)
async def test_an_endpoint_that_ends_or_speaks_before_it_is_asked(
    greet: Callable[[socket.socket], None], line: Any, eventually: Eventually
) -> None:
    """An endpoint that is full often accepts and closes at once: that must not cost a place."""
    loop = asyncio.get_running_loop()

    busy: asyncio.Handle

    def be_busy() -> None:  # so that the greeting is there before the loop has heard of the connection
        nonlocal busy
        time.sleep(0.003)
        busy = loop.call_soon(be_busy)

    be_busy()
    with greeting(greet) as port:
        async with asyncio.timeout(10), line(Numbered(), port=port, max_connections=2) as made:
            for _ in range(8):
                refused = await made.ask("POST")
                assert refused.cause in (Cause.CONNECTION_RESET, Cause.CONNECTION_REFUSED, Cause.BAD_ANSWER)
            busy.cancel()
            await eventually(lambda: made.pool == {"open": 0, "idle": 0, "waiting": 0})


# ---------------------------------------------------------------- the end


async def test_a_closed_pool_lets_what_is_under_way_finish(line: Any, eventually: Eventually) -> None:
    endpoint = Numbered()
    async with asyncio.timeout(5), line(endpoint) as made:
        await both_open(made, endpoint, eventually, "/1", "/2")
        endpoint.hold("/held")
        held = asyncio.create_task(made.ask(path="/held"))
        await eventually(lambda: "/held" in endpoint.asked)
        closing = asyncio.create_task(made.backend.endpoints[0].transport.aclose())
        await eventually(lambda: made.pool == {"open": 1, "idle": 0, "waiting": 0})
        endpoint.let_go("/held")
        assert (await held).body == b"2"
        await closing
        await eventually(lambda: made.open_at_endpoint == 0)
        assert made.pool == {"open": 0, "idle": 0, "waiting": 0}
