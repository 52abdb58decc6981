"""What endpoints do wrong, byte for byte: never a hang, never one answer in another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_app.problem import Cause

OK = b"HTTP/1.1 200 OK\r\n"
NEXT = OK + b"Content-Length: 4\r\n\r\nnext"
SMUGGLED = OK + b"Set-Cookie: smuggled\r\nContent-Length: 8\r\n\r\nsmuggled"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Script:
    """Answers the first request with the given bytes, every later one with `NEXT`."""

    def __init__(self, *answer: bytes, then_close: bool = False) -> None:
        self._answer = answer
        self._then_close = then_close
        self._requests = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self._requests += 1
            if self._requests > 1:
                writer.write(NEXT)
                continue
            for piece in self._answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if self._then_close:
                return


async def first_and_next(line: Any, script: Script, method: str = "GET") -> tuple[Any, Any, int]:
    async with asyncio.timeout(30), line(script, timeout={"response": 20.0, "idle": 20.0}) as made:
        async with asyncio.timeout(10):
            first = await made.ask(method)
            second = await made.ask()
        assert made.flights == 0
        assert made.pool["open"] == made.pool["idle"] == 1, "of the first one's connection nothing is left"
        return first, second, made.connections


REFUSED = {
    "no status line": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x16",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "version 3.7": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "version in lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 Huh\r\nContent-Length: 0\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "CL before TE": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE before CL": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same length twice": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": OK + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length with a plus": OK + b"Content-Length: +4\r\n\r\nabcd",
    "a length with an underscore": OK + b"Content-Length: 1_0\r\n\r\nabcdefghij",
    "a hexadecimal length": OK + b"Content-Length: 0x4\r\n\r\nabcd",
    "an empty length": OK + b"Content-Length: \r\n\r\n",
    "an endless length": OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "TE gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "TE gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "TE identity": OK + b"Transfer-Encoding: identity\r\n\r\n",
    "TE twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE with a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": OK + b"X\0Y: a\r\nContent-Length: 0\r\n\r\n",
    "bare CR in a value": OK + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "bare LF after a field": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "no colon": OK + b"Content-Length 0\r\n\r\n",
    "an empty name": OK + b": x\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before the first field": OK + b" X: a\r\nContent-Length: 0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "101 without Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a flood of 1xx": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50,
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
async def test_a_malformed_head_is_refused(answer: bytes, line: Any) -> None:
    first, second, connections = await first_and_next(line, Script(answer))

    assert (first.cause, first.status) == (Cause.BAD_ANSWER, 0)
    assert (second.status, second.body) == (200, b"next")
    assert connections == 2


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
async def test_a_malformed_head_byte_by_byte_is_refused(answer: bytes, line: Any) -> None:
    pieces = [answer[i : i + 1] for i in range(len(answer))]
    first, second, connections = await first_and_next(line, Script(*pieces))

    assert first.cause is Cause.BAD_ANSWER
    assert first.body == b""
    assert (second.status, second.body) == (200, b"next")
    assert connections == 2


TOO_LARGE = {
    "a field without end": [OK, b"X: ", *[b"a" * 16384] * 20],
    "fields without end": [OK, *[b"X-Field: value\r\n" * 1024] * 20],
    "too many fields": [OK + b"A: b\r\n" * 300 + b"Content-Length: 0\r\n\r\n"],
    "a reason without end": [b"HTTP/1.1 200 ", *[b"a" * 16384] * 20],
}


@pytest.mark.parametrize("answer", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_head_too_large_is_refused(answer: list[bytes], line: Any) -> None:
    first, second, _ = await first_and_next(line, Script(*answer))

    assert (first.cause, first.status) == (Cause.ANSWER_FIELDS_TOO_LARGE, 0)
    assert second.body == b"next"


ENDLESS = {
    "chunk extensions": [b"3;", *[b"a=b;" * 4096] * 20],
    "trailers": [b"0\r\n", *[b"X-Field: value\r\n" * 1024] * 20],
    "a trailer": [b"0\r\nX: ", *[b"a" * 16384] * 20],
}


@pytest.mark.parametrize("rest", ENDLESS.values(), ids=ENDLESS)
async def test_what_never_becomes_body_is_bounded(rest: list[bytes], line: Any) -> None:
    first, second, connections = await first_and_next(line, Script(CHUNKED + b"3\r\nabc\r\n", *rest))

    assert (first.cause, first.body, first.is_whole) == (Cause.ANSWER_FIELDS_TOO_LARGE, b"abc", False)
    assert second.body == b"next"
    assert connections == 2


BROKEN_BODIES = {
    "a size that is no number": (CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n", b""),
    "a negative size": (CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n", b""),
    "a size with 0x": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", b""),
    "an endless size": (CHUNKED + b"f" * 20 + b"\r\nabc", b""),
    "a chunk without CRLF": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", b"abc"),
    "a size line that ends in LF": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", b""),
    "a trailer without a colon": (CHUNKED + b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", b"abc"),
}


@pytest.mark.parametrize(("answer", "sent"), BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_a_malformed_chunk_is_refused_or_cut(answer: bytes, sent: bytes, line: Any) -> None:
    first, second, connections = await first_and_next(line, Script(answer))

    assert first.cause is Cause.BAD_ANSWER
    assert not first.is_whole
    assert sent.startswith(first.body)
    assert second.body == b"next"
    assert connections == 2


CUT = {
    "before the first byte": (b"", Cause.CONNECTION_RESET),
    "in the status line": (b"HTTP/1.1 2", Cause.ANSWER_INCOMPLETE),
    "in the head": (OK + b"Content-Le", Cause.ANSWER_INCOMPLETE),
    "after an interim answer": (b"HTTP/1.1 103 Early Hints\r\n\r\n", Cause.ANSWER_INCOMPLETE),
    "in a body of known length": (OK + b"Content-Length: 9\r\n\r\nabc", Cause.ANSWER_INCOMPLETE),
    "before a body of known length": (OK + b"Content-Length: 9\r\n\r\n", Cause.ANSWER_INCOMPLETE),
    "in a chunk": (CHUNKED + b"9\r\nabc", Cause.ANSWER_INCOMPLETE),
    "between chunks": (CHUNKED + b"3\r\nabc\r\n", Cause.ANSWER_INCOMPLETE),
    "before the last CRLF": (CHUNKED + b"3\r\nabc\r\n0\r\n", Cause.ANSWER_INCOMPLETE),
    "in the trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum", Cause.ANSWER_INCOMPLETE),
}


@pytest.mark.parametrize(("answer", "cause"), CUT.values(), ids=CUT)
async def test_an_answer_that_ends_early_is_never_taken_for_whole(
    answer: bytes, cause: Cause, line: Any
) -> None:
    first, second, connections = await first_and_next(line, Script(answer, then_close=True))

    assert first.cause is cause
    assert not first.is_whole
    assert second.body == b"next"
    assert connections == 2


SURPLUS = {
    "bytes": ("GET", [OK + b"Content-Length: 3\r\n\r\nabcjunk"], b"abc"),
    "bytes after chunks": ("GET", [CHUNKED + b"3\r\nabc\r\n0\r\n\r\njunk"], b"abc"),
    "a second answer": ("GET", [OK + b"Content-Length: 3\r\n\r\nabc" + SMUGGLED], b"abc"),
    "a second answer after chunks": ("GET", [CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + SMUGGLED], b"abc"),
    "a second answer, body apart": ("GET", [OK + b"Content-Length: 3\r\n\r\n", b"abc" + SMUGGLED], b"abc"),
    "a second answer after an empty one": ("GET", [OK + b"Content-Length: 0\r\n\r\n" + SMUGGLED], b""),
    "a second answer after close": (
        "GET",
        [OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc" + SMUGGLED],
        b"abc",
    ),
    "an interim answer": ("GET", [OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"], b""),
    "a body for HEAD": ("HEAD", [OK + b"Content-Length: 8\r\n\r\nsmuggled"], b""),
    "chunks for HEAD": ("HEAD", [CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"], b""),
    "an answer after HEAD": ("HEAD", [OK + b"Content-Length: 3\r\n\r\n" + SMUGGLED], b""),
    "a body with 204": ("GET", [b"HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled"], b""),
    "an answer with 204": ("GET", [b"HTTP/1.1 204 No Content\r\n\r\n" + SMUGGLED], b""),
    "a body with 304": ("GET", [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled"], b""),
}


@pytest.mark.parametrize(("method", "answer", "body"), SURPLUS.values(), ids=SURPLUS)
async def test_surplus_behind_an_answer_ends_the_connection_with_it(
    method: str, answer: list[bytes], body: bytes, line: Any
) -> None:
    first, second, connections = await first_and_next(line, Script(*answer), method)

    assert first.cause is None
    assert first.is_whole
    assert first.body == body
    assert not any(name == b"set-cookie" for name, _ in first.headers)
    assert (second.status, second.body) == (200, b"next")
    assert connections == 2


async def test_trailers_do_not_become_fields_of_the_head(line: Any) -> None:
    trailers = b"X-Sum: 1\r\nSet-Cookie: a=b\r\n"
    for pieces in ([CHUNKED + b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n"],):
        first, second, _ = await first_and_next(line, Script(*pieces))
        assert (first.cause, first.headers, first.body) == (None, [], b"abc")
        assert second.body == b"next"


async def test_the_framing_of_an_interim_answer_is_not_that_of_the_final_one(line: Any) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\nLink: </a>\r\n\r\n"
    first, second, _ = await first_and_next(line, Script(interim + OK + b"\r\nabcdef", then_close=True))

    assert (first.cause, first.headers, first.body) == (None, [], b"abcdef")
    assert second.body == b"next"
