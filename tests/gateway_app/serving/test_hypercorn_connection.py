"""Idle connections under hypercorn: closed when their time is over or at a stop, never under a request."""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.asyncio.run
import hypercorn.protocol
import pytest
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from starlette.types import Receive, Scope, Send

from gateway_app.serving.hypercorn_connection import IdleConnections, use_for
from gateway_app.serving.proxy_header import IsExpected
from l4relay.proxy_protocol import serialise_v1, serialise_v2

KEEP_ALIVE_S = 0.3
SWEEP_S = 0.05
LARGE = 16 * 1024 * 1024  # more than the system's buffers take
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Server:
    """hypercorn with our connections, and an application that answers when it is told to."""

    def __init__(self, keep_alive_s: float) -> None:
        self.idle = IdleConnections(keep_alive_s, sweep_s=SWEEP_S)
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.answered = asyncio.Event()
        self.left = asyncio.Event()
        self.stop = asyncio.Event()
        self.port = 0
        self.expects_header: IsExpected = lambda peer: False
        self.scopes: list[Scope] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                phase = (await receive())["type"]
                await send({"type": f"{phase}.complete"})
                if phase == "lifespan.shutdown":
                    return
        self.scopes.append(scope)
        self.asked.set()
        if scope["path"] != "/at-once":
            await self.may_answer.wait()
        if scope["path"] == "/body":
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left.set()
                    return
                size += len(message["body"])
                more = message["more_body"]
            body = b"%d" % size
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        if scope["path"] == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("cut")
        body = bytes(LARGE) if scope["path"].startswith("/large") else b"ok"
        length = b"%d" % len(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        async with asyncio.timeout(0.1 if scope["path"] == "/large-cut" else None):
            await send({"type": "http.response.body", "body": body})
        self.answered.set()

    async def stopped(self) -> None:
        await self.stop.wait()
        self.idle.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


Serving = Callable[[float], AbstractAsyncContextManager[Server]]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Serving:
    """Give a context manager that serves; with 0, as hypercorn itself does."""
    monkeypatch.setattr(hypercorn.asyncio.run, "TCPServer", TCPServer)
    monkeypatch.setattr(hypercorn.protocol, "H11Protocol", H11Protocol)
    monkeypatch.setattr(hypercorn.protocol, "H2Protocol", H2Protocol)
    monkeypatch.setattr(hypercorn.protocol.h2, "HTTPStream", HTTPStream)

    @asynccontextmanager
    async def serve(keep_alive_s: float) -> AsyncIterator[Server]:
        server = Server(keep_alive_s)
        listener = socket.create_server(("127.0.0.1", 0))  # clients may connect from here on
        server.port = listener.getsockname()[1]
        config = Config()
        if keep_alive_s:
            use_for(config, server.idle, lambda peer: server.expects_header(peer))
        config.bind = [f"fd://{listener.detach()}"]
        config.errorlog = None
        application: Any = server.app  # hypercorn has types of its own for ASGI's messages
        task = asyncio.create_task(
            hypercorn.asyncio.serve(application, config, shutdown_trigger=server.stopped)
        )
        try:
            yield server
        finally:
            server.stop.set()
            server.may_answer.set()
            await asyncio.wait_for(task, 20)

    return serve


PassTime = Callable[[float], Awaitable[None]]


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> PassTime:
    """Move the loop's clock, and wait until the connections have been looked at."""

    async def move(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + seconds)
        await asyncio.sleep(3 * SWEEP_S)

    return move


def read_to_the_end(client: socket.socket) -> None:
    while client.recv(65536):
        pass


async def test_a_client_that_takes_nothing_does_not_keep_its_connection(serving: Serving) -> None:
    async with serving(KEEP_ALIVE_S) as server, asyncio.timeout(10):
        server.may_answer.set()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(GET.replace(b" / ", b" /large-cut "))
            broken_off = select.poll()
            broken_off.register(client, 0)  # errors alone
            await asyncio.to_thread(broken_off.poll, 8000)
            with pytest.raises(ConnectionResetError):
                read_to_the_end(client)


async def test_a_client_that_is_slow_gets_the_whole_answer(serving: Serving) -> None:
    async with serving(KEEP_ALIVE_S) as server, asyncio.timeout(20):
        server.may_answer.set()
        reader, writer = await server.connect()
        writer.write(GET.replace(b" / ", b" /large ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await reader.readuntil(b"\r\n\r\n")
        received, slow_until = 0, LARGE - 3 * 1024 * 1024
        while piece := await reader.read(65536):
            received += len(piece)
            if received > slow_until:  # the rest is in buffers, and the connection about to be closed
                await asyncio.sleep(KEEP_ALIVE_S / 10)
        assert received == LARGE
        writer.close()


async def test_a_silent_connection_is_closed_when_its_time_is_over(serving: Serving) -> None:
    async with serving(KEEP_ALIVE_S) as server, asyncio.timeout(5):
        reader, writer = await server.connect()
        assert await reader.read() == b""
        writer.close()
        assert len(server.idle) == 0


async def test_half_a_head_does_not_keep_a_connection_open(serving: Serving) -> None:
    async with serving(KEEP_ALIVE_S) as server, asyncio.timeout(5):
        reader, writer = await server.connect()
        writer.write(GET[:-2])
        assert await reader.read() == b""
        writer.close()


async def test_a_request_may_last_longer_than_a_connection_may_be_idle(
    serving: Serving, pass_time: PassTime
) -> None:
    async with serving(60) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        await server.asked.wait()
        await pass_time(120)  # which must not end it
        server.may_answer.set()
        answer = await reader.readuntil(b"ok")
        assert answer.startswith(b"HTTP/1.1 200")
        await pass_time(61)  # idle again, and then its time is over
        assert await reader.read() == b""
        writer.close()


async def test_each_request_begins_the_idle_time_anew(serving: Serving, pass_time: PassTime) -> None:
    async with serving(60) as server:
        server.may_answer.set()
        reader, writer = await server.connect()
        for _ in range(4):
            writer.write(GET)
            assert b"200" in await reader.readuntil(b"ok")
            await pass_time(40)
        writer.close()


async def test_a_stop_closes_idle_connections_at_once_and_lets_a_request_finish(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        idle_reader, idle_writer = await server.connect()
        reader, writer = await server.connect()
        writer.write(GET)
        await server.asked.wait()
        server.stop.set()
        assert await idle_reader.read() == b""
        idle_writer.close()
        server.may_answer.set()
        assert (await reader.read()).endswith(b"ok")  # answered whole, and closed behind it
        writer.close()


@pytest.mark.parametrize("arrives_first", [True, False])
async def test_a_request_that_arrives_with_the_stop_is_answered(
    serving: Serving, arrives_first: bool
) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        server.may_answer.set()
        reader, writer = await server.connect()
        writer.write(GET)
        await reader.readuntil(b"ok")
        (connection,) = server.idle
        if arrives_first:
            connection.reader.feed_data(GET)  # read from the socket, and looked at by nobody yet
        server.stop.set()
        server.idle.close()
        if not arrives_first:
            connection.reader.feed_data(GET)
        assert b"200" in await reader.readuntil(b"ok")
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_is_forgotten(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        server.may_answer.set()
        reader, writer = await server.connect()
        writer.write(GET)
        await reader.readuntil(b"ok")
        writer.close()
        while len(server.idle):  # noqa: ASYNC110  # hypercorn tells nobody
            await asyncio.sleep(0.01)


async def test_a_stop_is_not_disturbed_by_clients_that_leave_at_the_same_time(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(10):
        leaving = [await server.connect() for _ in range(50)]
        reader, writer = await server.connect()
        writer.write(GET)
        await server.asked.wait()
        for _, other in leaving:
            other.close()
        await asyncio.sleep(0)
        server.stop.set()
        await asyncio.sleep(0.1)  # hypercorn would cancel the request now
        server.may_answer.set()
        assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_another_server_of_the_process_goes_on_through_the_stop(serving: Serving) -> None:
    """The admin listener is one: it tells that the gateway drains."""
    async with serving(60) as server, serving(0) as admin, asyncio.timeout(5):
        admin.may_answer.set()
        kept_reader, kept_writer = await admin.connect()
        kept_writer.write(GET)
        await kept_reader.readuntil(b"ok")
        server.stop.set()
        await asyncio.sleep(0.05)
        kept_writer.write(GET)
        assert (await kept_reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        reader, writer = await admin.connect()
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        kept_writer.close()


async def test_http_2_begins_with_its_preface_and_not_with_an_upgrade(serving: Serving) -> None:
    """Through a proxy in front an upgrade would be a tunnel past the proxy's rules."""
    async with serving(60) as server, asyncio.timeout(5):
        server.may_answer.set()
        reader, writer = await server.connect()
        upgrade = b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n"
        writer.write(GET[:-2] + upgrade)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        assert [scope["http_version"] for scope in server.scopes] == ["1.1"]
        writer.close()
        reader, writer = await server.connect()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert (await reader.readexactly(9))[3] == 4, "SETTINGS"
        writer.close()


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\r\n" + GET],
        [b"\r\n\r\n\r\n" + GET[:1], GET[1:]],
        [b"\r", b"\n", b"\r\n\r", b"\n" + GET],
        [POST + b"\r\n" + GET],
        [POST + b"\r\n", GET],
        [POST + b"\r", b"\n" + GET],
    ],
)
async def test_empty_lines_before_a_request_are_ignored(serving: Serving, pieces: list[bytes]) -> None:
    """Old clients send one behind a body (RFC 9112 2.2)."""
    async with serving(60) as server, asyncio.timeout(5):
        server.may_answer.set()
        reader, writer = await server.connect()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)  # so that it is read alone
        for _ in range(b"".join(pieces).count(b"HTTP/1.1")):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_line_that_is_not_empty_before_a_request_is_refused(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        reader, writer = await server.connect()
        writer.write(b"\r\n \r\n" + GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


@pytest.mark.parametrize("behind", [b"\r\n", GET, b"\r\n" * 100_000])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "request_head", [GET[:-2] + b"Connection: close\r\n\r\n", GET.replace(b"HTTP/1.1", b"HTTP/1.0")]
)
async def test_what_comes_behind_the_last_request_does_not_take_its_answer(
    serving: Serving, request_head: bytes, behind: bytes, at_once: bool
) -> None:
    """RFC 9112 9.6: it is ignored. The backend has the request by then."""
    async with serving(60) as server, asyncio.timeout(5):
        reader, writer = await server.connect()
        writer.write(request_head + behind if at_once else request_head)
        await server.asked.wait()
        writer.write(b"" if at_once else behind)
        with suppress(ConnectionError):  # what is not read any more resets the connection behind the answer
            await writer.drain()
        await asyncio.sleep(0.05)  # it is read meanwhile
        server.may_answer.set()
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert len(server.scopes) == 1


CLIENT, SERVICE = ("192.0.2.7", 4711), ("192.0.2.1", 443)


async def test_over_http_2_a_cut_answer_resets_its_stream_and_no_other(serving: Serving) -> None:
    """The client would wait for the rest of it."""
    async with serving(60) as server, asyncio.timeout(10):
        server.may_answer.set()
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            for _ in range(2):
                with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
                    await client.get(f"http://127.0.0.1:{server.port}/cut")
                whole = await client.get(f"http://127.0.0.1:{server.port}/")
                assert (whole.status_code, whole.content) == (200, b"ok")


class Http2Client:
    """An HTTP/2 client that sends what it is told to, and nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection()
        self.h2.initiate_connection()
        self.ended: set[int] = set()
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, bytes] = {}
        self._reader = reader
        self._writer = writer

    def ask(self, path: str, *, with_body: bool = True) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.h2.send_headers(stream_id, head, end_stream=not with_body)
        return stream_id

    async def receive(self) -> None:
        self._writer.write(self.h2.data_to_send())
        data = await self._reader.read(65536)
        assert data, "the connection is closed"
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[b":status"]
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            else:
                assert not isinstance(event, ConnectionTerminated)

    async def answered(self, stream_id: int) -> None:
        while stream_id not in self.ended:
            await self.receive()

    async def upload(self, stream_id: int, size: int) -> None:
        """Send so much, as fast as the windows allow."""
        while size:
            while not (window := self.h2.local_flow_control_window(stream_id)):
                await self.receive()
            piece = min(size, window, self.h2.max_outbound_frame_size)
            self.h2.send_data(stream_id, bytes(piece))
            size -= piece


async def test_over_http_2_the_rest_of_a_body_that_nobody_wants_leaves_other_streams_alone(
    serving: Serving,
) -> None:
    """It was answered early: refused, too large, or too often. All of them are more than any window."""
    async with serving(60) as server, asyncio.timeout(20):
        server.may_answer.set()
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        for _ in range(120):
            stream_id = client.ask("/")
            await client.answered(stream_id)
            await client.upload(stream_id, 65_535)
            client.h2.end_stream(stream_id)
        writer.close()


async def test_over_http_2_a_body_that_is_not_taken_holds_up_no_other_stream(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(20):
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        while client.h2.outbound_flow_control_window < 200_000:  # what the server begins with
            await client.receive()
        stalled = [client.ask("/body") for _ in range(2)]
        for stream_id in stalled:
            for _ in range(3000):  # in many small pieces
                client.h2.send_data(stream_id, bytes(20))
        other = client.ask("/at-once", with_body=False)
        await client.answered(other)
        server.may_answer.set()
        for stream_id in stalled:
            await client.upload(stream_id, 1_000_000)
            client.h2.end_stream(stream_id)
        for stream_id in stalled:
            await client.answered(stream_id)
            assert client.bodies[stream_id] == b"1060000"
        writer.close()


async def test_over_http_2_no_more_of_a_body_comes_than_is_taken(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(20):
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        stream_id = client.ask("/body")
        await client.upload(stream_id, 65_535)
        await client.answered(client.ask("/at-once", with_body=False))  # so that all is read
        assert client.h2.local_flow_control_window(stream_id) == 0
        server.may_answer.set()
        await client.upload(stream_id, 1)
        client.h2.end_stream(stream_id)
        await client.answered(stream_id)
        assert client.bodies[stream_id] == b"65536"
        writer.close()


async def test_over_http_2_a_client_that_resets_a_stalled_stream_is_gone_for_its_application(
    serving: Serving,
) -> None:
    async with serving(60) as server, asyncio.timeout(20):
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        stream_id = client.ask("/body")
        await client.upload(stream_id, 65_535)
        client.h2.reset_stream(stream_id)
        await client.answered(client.ask("/at-once", with_body=False))
        server.may_answer.set()
        await server.left.wait()
        writer.close()


@pytest.mark.parametrize("answers_first", [True, False])
async def test_over_http_2_an_answer_ends_where_its_client_has_left(
    serving: Serving, answers_first: bool
) -> None:
    """Else its task would wait, until the server stops, for somebody to take the answer."""
    async with serving(60) as server, asyncio.timeout(20):
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        stream_id = client.ask("/large", with_body=False)
        await client.receive()
        await server.asked.wait()
        if answers_first:
            server.may_answer.set()
            while len(client.bodies.get(stream_id, b"")) < 65_535:  # all that the window allows
                await client.receive()
        writer.close()
        await asyncio.sleep(0.05)  # the server hears of it
        server.may_answer.set()
        await server.answered.wait()


@pytest.mark.parametrize(
    "fields",
    [
        {":method": b"CONNECT"},  # a tunnel (RFC 9113 8.5)
        {":method": b"GET", ":scheme": b"http", ":path": b"/\xc3\xa9"},
        {":method": b"G\xc3T", ":scheme": b"http", ":path": b"/"},
    ],
)
async def test_over_http_2_a_request_that_is_none_is_refused_alone(
    serving: Serving, fields: dict[str, bytes]
) -> None:
    """hypercorn would break off the connection, with those of other clients of a proxy in front."""
    async with serving(60) as server, asyncio.timeout(20):
        reader, writer = await server.connect()
        client = Http2Client(reader, writer)
        sound = client.ask("/", with_body=False)
        client.h2.config.validate_outbound_headers = False
        head = [(name.encode(), value) for name, value in fields.items()]
        refused = client.h2.get_next_available_stream_id()
        client.h2.send_headers(refused, [*head, (b":authority", b"a:80")], end_stream=True)
        await client.answered(refused)
        assert client.statuses[refused] == b"400"
        server.may_answer.set()
        await client.answered(sound)
        assert client.statuses[sound] == b"200"
        assert len(server.scopes) == 1
        writer.close()


async def test_a_proxy_header_tells_the_client_and_the_id_of_each_request(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        server.may_answer.set()
        server.expects_header = lambda peer: True
        reader, writer = await server.connect()
        writer.write(serialise_v2(CLIENT, SERVICE, unique_id=b"one") + GET)  # in one segment
        await reader.readuntil(b"ok")
        writer.write(GET)
        await reader.readuntil(b"ok")
        writer.close()
        reader, writer = await server.connect()
        writer.write(serialise_v1(CLIENT, SERVICE) + GET)
        await reader.readuntil(b"ok")
        writer.close()
        first, second, third = server.scopes
        for scope in (first, second, third):
            assert (scope["client"], scope["server"]) == (CLIENT, SERVICE)
        assert first["state"]["connection_id"] == second["state"]["connection_id"] == "one"
        assert "connection_id" not in third["state"]


@pytest.mark.parametrize("start", [b"", b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 x\r\n", b"PROXY \r\n"])
async def test_a_connection_without_a_good_proxy_header_is_closed_at_once(
    serving: Serving, caplog: pytest.LogCaptureFixture, start: bytes
) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        server.expects_header = lambda peer: True
        reader, writer = await server.connect()
        writer.write(start + GET)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert server.scopes == []
        assert "PROXY" in caplog.text


async def test_a_stop_does_not_complain_of_who_has_not_sent_its_proxy_header(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Config, "graceful_timeout", 0.1)
    is_asked_for = asyncio.Event()

    def expects_header(peer: object) -> bool:
        is_asked_for.set()
        return True

    async with serving(60) as server, asyncio.timeout(5):
        server.expects_header = expects_header
        _, writer = await server.connect()
        await is_asked_for.wait()
    writer.close()
    assert caplog.text == ""


async def test_who_is_not_believed_sends_a_request_that_is_none(serving: Serving) -> None:
    async with serving(60) as server, asyncio.timeout(5):
        server.expects_header = lambda peer: False
        reader, writer = await server.connect()
        writer.write(serialise_v1(CLIENT, SERVICE) + GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert server.scopes == []
