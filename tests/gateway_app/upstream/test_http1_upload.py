"""Request bodies on their way to an endpoint that speaks as a script says."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from gateway_app.problem import Cause

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = OK + b"Content-Length: 4\r\n\r\nnext"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE = bytes(range(256)) * 256

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Eventually = Callable[[Callable[[], bool]], Any]


async def silent(reader: Reader, writer: Writer) -> None:
    """Reads whatever comes."""
    while await reader.read(65536):
        pass


class Client:
    """Gives a body piece by piece as the test says, and notes what was asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.given = 0
        for piece in pieces:
            self.give(piece)

    def give(self, piece: bytes, *, more: bool = True) -> None:
        self.queue.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        self.queue.put_nowait({"type": "http.disconnect"})

    async def __call__(self) -> Message:
        self.asked.set()
        message = await self.queue.get()
        self.given += 1
        return message


class Upload:
    """Gives as much of a body as is asked for, up to a limit, and tells when no more is asked for."""

    def __init__(self, size: int = 1 << 40) -> None:
        self.size = size
        self.given = 0

    async def __call__(self) -> Message:
        await asyncio.sleep(0)
        self.given += len(PIECE)
        return {"type": "http.request", "body": PIECE, "more_body": self.given < self.size}

    async def stalls(self) -> None:
        """Wait until pieces have been asked for and no more is asked for since a while."""
        seen = 0
        while not seen or seen != self.given:
            seen = self.given
            await asyncio.sleep(0.1)


async def read_chunked(reader: Reader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readline() == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return body


# ---------------------------------------------------------------- framing of the request


async def test_a_body_of_known_length_goes_out_as_it_came(line: Any) -> None:
    heads = []

    async def speak(reader: Reader, writer: Writer) -> None:
        while True:
            heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
            body = await reader.readexactly(6)
            writer.write(OK + b"Content-Length: 6\r\n\r\n" + body)

    async with asyncio.timeout(5), line(speak) as made:
        for pieces in ([b"abcdef"], [b"abc", b"def"], [b"", b"a", b"", b"bcdef", b""]):
            assert (await made.ask("POST", body=pieces, length=6)).body == b"abcdef"

    assert made.connections == 1
    assert all(head.count(b"content-length: 6\r\n") == 1 for head in heads)
    assert not any(b"transfer-encoding" in head for head in heads)


async def test_a_body_of_unknown_length_goes_out_in_chunks(line: Any) -> None:
    async def speak(reader: Reader, writer: Writer) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            chunked = b"transfer-encoding: chunked\r\n" in head
            assert chunked is not (b"content-length: 6\r\n" in head)
            body = await read_chunked(reader) if chunked else await reader.readexactly(6)
            writer.write(OK + b"Content-Length: 6\r\n\r\n" + body)

    async with asyncio.timeout(5), line(speak) as made:
        for pieces in ([b"abcdef"], [b"abc", b"def"], [b"abc", b"", b"def"], [b"", b"abcdef", b""]):
            assert (await made.ask("POST", body=pieces)).body == b"abcdef"

    assert made.connections == 1


@pytest.mark.parametrize("pieces", [[b"abc", b"def"], [b"abcdefghi", b""], [b"abc", b"", b"defghi"]])
async def test_a_body_of_another_length_than_declared_is_no_request(pieces: list[bytes], line: Any) -> None:
    async with asyncio.timeout(5), line(silent) as made:
        first = await made.ask("POST", body=pieces, length=8)

        assert (first.cause, first.status) == (Cause.MALFORMED, 0)
        assert made.pool["open"] == 0


# ---------------------------------------------------------------- early answers


REFUSAL = b"HTTP/1.1 413 Content Too Large\r\n"


@pytest.mark.parametrize("reads_on", [True, False])
async def test_an_early_answer_reaches_the_client_and_ends_the_upload(
    reads_on: bool, line: Any, eventually: Eventually
) -> None:
    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REFUSAL + b"Content-Length: 5\r\n\r\nlarge")
        if not reads_on:
            await asyncio.Event().wait()
        while await reader.read(65536):
            pass

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("POST", receive=Client(b"abc", b"def"))

        assert (first.cause, first.status, first.body) == (None, 413, b"large")
        assert made.pool == {"open": 0, "idle": 0, "waiting": 0}, "its connection holds half a request"
        assert made.flights == 0
        if reads_on:
            await eventually(lambda: made.open_at_endpoint == 0)


async def test_an_early_answer_that_the_end_of_the_connection_ends(line: Any) -> None:
    """What can not be written any more must not stand in the answer's way."""
    upload = Upload()

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await upload.stalls()
        writer.write(REFUSAL + b"\r\nlarge")
        writer.write_eof()
        await asyncio.Event().wait()

    async with asyncio.timeout(10), line(speak) as made:
        first = await made.ask("POST", receive=upload)

        assert (first.cause, first.status, first.body, first.is_whole) == (None, 413, b"large", True)
        assert made.pool["open"] == 0


async def test_an_early_answer_is_not_lost_in_the_reset_that_follows_it(line: Any) -> None:
    """An endpoint that closes without having read everything resets the connection (RFC 9112 9.6)."""
    has_closed = threading.Event()

    def refuse(listener: socket.socket) -> None:
        endpoint, _ = listener.accept()
        with endpoint:
            endpoint.recv(100)  # not all of it
            endpoint.sendall(REFUSAL + b"Content-Length: 5\r\n\r\nlarge")
        has_closed.set()

    given = 0

    async def receive() -> Message:
        nonlocal given
        given += 1
        if given == 2:
            has_closed.wait(5)  # the loop stands still: the next piece is written before the answer is read
        else:
            await asyncio.sleep(0)
        return {"type": "http.request", "body": PIECE, "more_body": True}

    async with asyncio.timeout(10):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            refusing = asyncio.create_task(asyncio.to_thread(refuse, listener))
            async with line(silent, listener.getsockname()[1]) as made:
                first = await made.ask("POST", receive=receive)
                assert made.pool["open"] == 0
                await refusing

    assert (first.cause, first.status, first.body, first.is_whole) == (None, 413, b"large", True)


async def test_an_answer_and_a_body_go_both_ways_at_once(line: Any) -> None:
    async def echo(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%b" % (size, piece))
        await reader.readline()
        writer.write(b"0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NEXT)

    client = Client(b"one")
    heard = []

    async def on_send(message: Message) -> None:
        piece = message.get("body", b"")
        if piece:
            heard.append(piece)
            if len(heard) < 4:
                client.give(b"more")
            else:
                client.give(b"", more=False)

    async with asyncio.timeout(5), line(echo) as made:
        first = await made.ask("POST", receive=client, on_send=on_send)
        assert (first.cause, first.body, first.is_whole) == (None, b"onemoremoremore", True)
        assert (await made.ask()).body == b"next"
        assert made.connections == 1, "both ended whole"


async def test_two_sides_that_both_fall_silent_are_ended(line: Any) -> None:
    """The client gives no more of its body, the endpoint no more of its answer: nobody may wait for ever."""
    answered = asyncio.Event()

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        await reader.readuntil(b"second\r\n")
        answered.set()
        await reader.read()

    client = Client(b"first")

    async def on_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            client.give(b"second")

    async with asyncio.timeout(5), line(speak, timeout={"idle": 1.0}) as made:
        first = await made.ask("POST", receive=client, on_send=on_send)

        assert answered.is_set()
        assert first.cause is Cause.IDLE_TIMEOUT
        assert not first.is_whole
        assert made.pool["open"] == 0


async def test_an_endpoint_that_stops_reading_the_body_is_at_fault(line: Any) -> None:
    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    async with asyncio.timeout(5), line(speak, timeout={"idle": 0.3, "response": 0.3}) as made:
        first = await made.ask("POST", receive=Upload())

        assert first.cause in (Cause.IDLE_TIMEOUT, Cause.RESPONSE_TIMEOUT)
        assert made.backend.endpoints[0].failures == 1


async def test_a_client_that_stops_sending_its_body_is_at_fault(line: Any) -> None:
    client = Client(b"abc")
    async with asyncio.timeout(5), line(silent, timeout={"idle": 0.3}) as made:
        first = await made.ask("POST", receive=client)

        assert (first.cause, first.status) == (Cause.REQUEST_TIMEOUT, 0)
        assert made.backend.endpoints[0].failures == 0
        assert made.pool["open"] == 0


async def test_a_client_that_leaves_in_the_middle_of_its_body(line: Any, eventually: Eventually) -> None:
    client = Client(b"abc", b"def")
    client.leave()
    async with asyncio.timeout(5), line(silent) as made:
        first = await made.ask("POST", receive=client)

        assert (first.cause, first.status) == (Cause.CLIENT_CLOSED, 0)
        assert made.pool["open"] == made.flights == 0
        await eventually(lambda: made.open_at_endpoint == 0)


async def test_what_reading_the_body_raises_is_what_the_request_raises(line: Any) -> None:
    """A middleware may wrap `receive`: what it raises there must neither be lost nor waited for."""
    client = Client(b"abc")

    async def receive() -> Message:
        if client.given:
            raise LookupError("as it is")
        return await client()

    async with asyncio.timeout(5), line(silent) as made:
        with pytest.raises(LookupError, match="as it is"):
            await made.ask("POST", receive=receive)
        assert made.pool["open"] == made.flights == 0


# ---------------------------------------------------------------- Expect: 100-continue


async def test_the_body_is_read_only_once_the_endpoint_wants_it(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway_app.upstream.http1_request.CONTINUE_WAIT_S", 20.0)
    client = Client()
    heads = []

    async def speak(reader: Reader, writer: Writer) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        assert not client.asked.is_set(), "to ask for the body would tell the client to send it"
        writer.write(CONTINUE)
        await client.asked.wait()
        client.give(b"abc")
        client.give(b"def", more=False)
        assert await reader.readexactly(6) == b"abcdef"
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NEXT)

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True)
        assert (first.cause, first.body) == (None, b"ok")
        assert (await made.ask()).body == b"next"
        assert made.connections == 1
    assert heads[0].count(b"expect: 100-continue\r\n") == 1


async def test_nobody_takes_the_body_while_the_endpoint_makes_up_its_mind(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than it takes until the sweep listens for clients that leave: it must not read the body."""
    monkeypatch.setattr("gateway_app.upstream.http1_request.CONTINUE_WAIT_S", 20.0)
    client = Client(b"abc")
    client.give(b"def", more=False)

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.35)
        assert not client.asked.is_set()
        writer.write(CONTINUE)
        body = await reader.readexactly(6)
        writer.write(OK + b"Content-Length: 6\r\n\r\n" + body)

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True)

    assert (first.cause, first.body) == (None, b"abcdef")


async def test_a_final_answer_in_place_of_100_leaves_the_body_with_the_client(line: Any) -> None:
    client = Client()

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True)

        assert (first.cause, first.status, first.body) == (None, 401, b"no")
        assert not client.asked.is_set()
        assert made.pool["open"] == 0, "the endpoint may still wait for the body"


async def test_a_client_that_leaves_an_answer_in_place_of_100_is_noticed(
    line: Any, eventually: Eventually
) -> None:
    client = Client()
    heard = 0

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        while True:
            writer.write(b"4\r\nmore\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def on_send(message: Message) -> None:
        nonlocal heard
        heard += 1
        if heard == 3:
            client.give(b"abc")  # of a body that nobody wants any more
            client.leave()

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True, on_send=on_send)

        assert (first.cause, first.status, first.is_whole) == (Cause.CLIENT_CLOSED, 200, False)
        assert made.pool["open"] == made.flights == 0
        await eventually(lambda: made.open_at_endpoint == 0)


async def test_without_100_the_body_is_sent_after_a_while(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_app.upstream.http1_request.CONTINUE_WAIT_S", 0.1)
    client = Client(b"abc")
    client.give(b"def", more=False)

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(6)
        writer.write(CONTINUE + OK + b"Content-Length: 6\r\n\r\n" + body)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NEXT)

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True)
        assert (first.cause, first.body) == (None, b"abcdef")
        assert (await made.ask()).body == b"next"
        assert made.connections == 1


async def test_an_empty_body_is_not_waited_for(line: Any) -> None:
    heads = []

    async def speak(reader: Reader, writer: Writer) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(NEXT)

    async with asyncio.timeout(5), line(speak) as made:
        assert (await made.ask("POST", length=0, expect=True)).body == b"next"
    assert b"content-length: 0\r\n" in heads[0]
    assert b"expect" not in heads[0]


async def test_an_endpoint_that_goes_away_instead_of_100(line: Any) -> None:
    client = Client()

    async def speak(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with asyncio.timeout(5), line(speak) as made:
        first = await made.ask("PUT", receive=client, length=6, expect=True)

        assert (first.cause, first.status) == (Cause.CONNECTION_RESET, 0)
        assert not client.asked.is_set()
        assert made.pool["open"] == 0


# ---------------------------------------------------------------- pace


async def test_a_slow_endpoint_sets_the_pace_of_an_upload(line: Any) -> None:
    size = 48 << 20
    upload, read = Upload(size), 0
    resumed = asyncio.Event()

    async def speak(reader: Reader, writer: Writer) -> None:
        nonlocal read
        await reader.readuntil(b"\r\n\r\n")
        await resumed.wait()
        while read < size:
            read += len(await reader.read(1 << 20))
        writer.write(NEXT)

    async with asyncio.timeout(20), line(speak) as made:
        asking = asyncio.create_task(made.ask("PUT", receive=upload, length=size))
        await upload.stalls()
        assert upload.given < size / 2, "the rest waits at the client"
        resumed.set()
        assert (await asking).body == b"next"
    assert read == size
