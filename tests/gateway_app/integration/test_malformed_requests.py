"""What clients do wrong, over raw sockets: never two requests for one, never a hang, never a 500."""

from __future__ import annotations

import socket
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED = {
    "length and coding": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "coding and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 44\r\n\r\nab" + SMUGGLED,
    "length list": POST + b"Content-Length: 2, 44\r\n\r\nab" + SMUGGLED,
    "length with sign": POST + b"Content-Length: +2\r\n\r\nab",
    "negative length": POST + b"Content-Length: -2\r\n\r\n",
    "length in hex": POST + b"Content-Length: 0x2\r\n\r\nab",
    "length of letters": POST + b"Content-Length: two\r\n\r\nab",
    "enormous length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nab",
    "length beyond the limit": POST + b"Content-Length: 100000000\r\n\r\nab",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunk size is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "negative chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
    "chunk longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabcdef\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "different hosts, one empty": b"GET / HTTP/1.1\r\nHost: a\r\nHost: \r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "host with user": b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "host with path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "port beyond 65535": b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    "port of letters": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "space before colon": GET + b"X-A : 1\r\n\r\n",
    "space in name": GET + b"X A: 1\r\n\r\n",
    "empty name": GET + b": 1\r\n\r\n",
    "line without colon": GET + b"X-A\r\n\r\n",
    "NUL in a value": GET + b"X-A: a\x00b\r\n\r\n",
    "lone CR in a value": GET + b"X-A: a\rX-B: b\r\n\r\n",
    "control byte in a value": GET + b"X-A: a\x01b\r\n\r\n",
    "encoded slash": b"GET /admin%2Fusers HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded backslash": b"GET /admin%5Cusers HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded dots and slash": b"GET /public/..%2fadmin HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded NUL": b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded line break": b"GET /a%0d%0aX:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "broken escape": b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "path parameter": b"GET /admin;x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "other scheme": b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "over-long target": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "too many fields": GET + b"".join(b"X-%d: 1\r\n" % n for n in range(300)) + b"\r\n",
    "huge field": GET + b"X-A: " + b"a" * 600_000 + b"\r\n\r\n",
    "nominated Host": GET + b"Connection: host\r\n\r\n",
    "nominated length": POST + b"Content-Length: 44\r\nConnection: content-length\r\n\r\n" + SMUGGLED[:44],
    "nominated Authorization": GET + b"Authorization: Basic eA==\r\nConnection: authorization\r\n\r\n",
    "unknown expectation": POST + b"Expect: a-miracle\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
    "TLS hello": bytes.fromhex("160301002e0100002a0303") + b"\0" * 35 + b"\r\n\r\n",
}
MADE_SOUND_BY_SERVER = {
    "granian": {"length and coding", "coding and length", "fragment", "other scheme"},
    "hypercorn": {"control byte in a value", "lower-case method"},
}
"""What a server repairs before the gateway can see it: one request may come of it, and no second one."""


def exchange(port: int, sent: bytes, *, quiet_s: float = 0.3, patience_s: float = 20) -> bytes:
    """Send, and return what comes until the gateway closes, or is quiet after an answer, or says nothing."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as sock:
        try:
            sock.sendall(sent)
            while piece := sock.recv(65536):
                received += piece
                sock.settimeout(quiet_s)
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
    return received


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str, recorded_gateway: Any, recording_backend: Any) -> None:
    sent = REFUSED[name]
    recording_backend.requests.clear()
    answer = exchange(recorded_gateway.port, sent)
    arrived = list(recording_backend.requests)
    assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502", b"HTTP/1.1 504")), answer
    if name in MADE_SOUND_BY_SERVER.get(recorded_gateway.server, ()):
        # RFC 9112 6.3 lets Transfer-Encoding win, if the connection is closed behind the answer: what follows
        # the last chunk is then no request of its own.
        assert len(arrived) == 1
        assert b"/smuggled" not in arrived[0]
        assert b"content-length: 5" not in arrived[0]
    else:
        assert arrived == []
        refusals = (b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 501", b"HTTP/1.1 505", b"\0\0")
        assert answer == b"" or answer.startswith(refusals), answer


def test_a_length_that_is_repeated_counts_once(recorded_gateway: Any, recording_backend: Any) -> None:
    """Both servers join equal ones (RFC 9110 8.6) before the gateway sees them."""
    recording_backend.requests.clear()
    first = POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab"
    second = SMUGGLED[:-2] + b"Connection: close\r\n\r\n"
    answer = exchange(recorded_gateway.port, first + second, quiet_s=20)
    assert answer.startswith(b"HTTP/1.1 200")
    assert [head.split(b" ")[1] for head in recording_backend.requests] == [b"/", b"/smuggled"]
    assert recording_backend.requests[0].count(b"content-length: 2") == 1


@pytest.mark.parametrize("fields", [b"", b"Host: a\r\n"])
def test_http_1_0_is_spoken(recorded_gateway: Any, recording_backend: Any, fields: bytes) -> None:
    """nginx and many a health check ask so."""
    recording_backend.requests.clear()
    answer = exchange(recorded_gateway.port, b"GET / HTTP/1.0\r\n" + fields + b"\r\n")
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), answer
    (head,) = recording_backend.requests
    assert b"via: 1.0 " in head


def test_a_sound_request_passes(recorded_gateway: Any, recording_backend: Any) -> None:
    recording_backend.requests.clear()
    answer = exchange(recorded_gateway.port, GET + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(recording_backend.requests) == 1
    assert b"connection" not in recording_backend.requests[0].lower()


def test_the_host_of_an_absolute_target_is_the_only_one(
    recorded_gateway: Any, recording_backend: Any
) -> None:
    """It replaces Host (RFC 9112 3.2.2), also in what the backend is told; granian passes only Host on."""
    recording_backend.requests.clear()
    named = f"127.0.0.1:{recorded_gateway.port}".encode()
    answer = exchange(
        recorded_gateway.port,
        b"GET http://" + named + b"/x HTTP/1.1\r\nHost: inner.example\r\nConnection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 200")
    (head,) = recording_backend.requests
    lines = head.split(b"\r\n")
    host = b"inner.example" if recorded_gateway.server == "granian" else named
    assert lines[0] == b"GET /x HTTP/1.1"
    assert b"host: " + host in lines
    assert b"x-forwarded-host: " + host in lines


def test_a_body_that_ends_early_is_no_request(recorded_gateway: Any, recording_backend: Any) -> None:
    recording_backend.requests.clear()
    sent = POST + b"Content-Length: 50\r\n\r\nonly this"
    answer = exchange(recorded_gateway.port, sent, patience_s=0.5)
    assert not answer.startswith(b"HTTP/1.1 2")
    assert recording_backend.requests == []
