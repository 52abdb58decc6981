"""The whole way, as a client and a backend see it: one file of routes, under both servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

CONFIG = """
[gateway]
listen = ["127.0.0.1:PORT"]
access_log = "off"
[admin]
listen = "127.0.0.1:ADMIN_PORT"

[backends.recorder]
endpoints = ["http://127.0.0.1:RECORDER"]
[backends.nobody]
endpoints = ["http://127.0.0.1:NOBODY"]
[backends.silent]
endpoints = ["http://127.0.0.1:SILENT"]
timeout = { response = "200ms" }
[backends.streams]
endpoints = ["asgi:streams:app"]

[middleware.few]
type = "rate_limit"
limit = "2/hour"
[middleware.small]
type = "body_limit"
max = "1KiB"
[middleware.baseline]
type = "header_filter"
remove_request = ["x-debug"]
[middleware.cors]
type = "starlette.middleware.cors:CORSMiddleware"
allow_origins = ["https://app.example"]
[middleware.strip]
type = "rewrite"
strip_prefix = "/strip"

[[routes]]
name = "few"
match = { path = "/few" }
middleware = ["few"]
respond = { body = "few" }
[[routes]]
name = "moved"
match = { path = "/old/*" }
redirect = { to = "/new/", status = 308 }
[[routes]]
name = "secret"
match = { path = "/admin/*" }
respond = { status = 403, body = "no" }
[[routes]]
name = "small"
match = { path = "/small" }
middleware = ["small"]
backend = "recorder"
[[routes]]
name = "gold"
match = { path = "/orders", json = { "/tier" = "gold" } }
respond = { body = "gold" }
[[routes]]
name = "by header"
match = { path = "/by", headers = { x-beta = "1" } }
respond = { body = "header" }
[[routes]]
name = "by cookie"
match = { path = "/by", cookies = { plan = "pro" } }
respond = { body = "cookie" }
[[routes]]
name = "by query"
match = { path = "/by", query = { v = "2" } }
respond = { body = "query" }
[[routes]]
name = "by method"
match = { path = "/by", methods = ["DELETE"] }
respond = { body = "method" }
[[routes]]
name = "by host"
match = { host = "*.tenant.example", path = "/by" }
respond = { body = "host" }
[[routes]]
name = "nobody"
match = { path = "/nobody" }
backend = "nobody"
[[routes]]
name = "silent"
match = { path = "/silent" }
backend = "silent"
[[routes]]
name = "streams"
match = { path = "/streams" }
backend = "streams"
[[routes]]
name = "stripped"
match = { path = "/strip/*" }
middleware = ["strip"]
backend = "recorder"
[[routes]]
name = "recorded"
match = { path = "/recorded/*" }
middleware = ["baseline", "cors"]
backend = "recorder"
[[routes]]
name = "orders"
match = { path = "/orders" }
backend = "recorder"
"""

STREAMS = '''
import asyncio

taken = asyncio.Event()


async def app(scope, receive, send):
    """Sends an event, and the second one when the client has asked for it with another request."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    if scope["query_string"] == b"more":
        taken.set()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["query_string"] != b"more":
        await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
        await taken.wait()
        taken.clear()
    await send({"type": "http.response.body", "body": b"data: 2\\n\\n"})
'''


@pytest.fixture(scope="module", params=["hypercorn", "granian"])
def gateway(
    request: pytest.FixtureRequest,
    served_gateway: Any,
    recording_backend: Any,
    free_ports: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    directory: Path = tmp_path_factory.mktemp("gateway")
    (directory / "streams.py").write_text(STREAMS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = CONFIG.replace("RECORDER", str(recording_backend.port))
        text = text.replace("NOBODY", str(free_ports(1)[0])).replace("SILENT", str(silent.getsockname()[1]))
        gateway = served_gateway(request.param, directory, text)
        yield gateway
        gateway.close()


@pytest.fixture
def client(gateway: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        yield client


def said_of(head: bytes) -> dict[str, str]:
    """The fields of a request as the backend got it, by name."""
    return dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)


# ---------------------------------------------------------------- where a request goes


@pytest.mark.parametrize(
    ("decides", "request_"),
    [
        ("header", {"headers": {"X-Beta": "1"}}),
        ("cookie", {"headers": {"Cookie": "a=b; plan=pro"}}),
        ("query", {"params": {"v": "2"}}),
        ("method", {"method": "DELETE"}),
        ("host", {"headers": {"Host": "A.Tenant.example:8080"}}),
    ],
)
def test_each_condition_decides(client: httpx.Client, decides: str, request_: dict[str, Any]) -> None:
    assert client.request(**{"method": "GET", "url": "/by", **request_}).text == decides
    assert client.get("/by").status_code == 404


def test_the_body_decides_and_arrives_whole(client: httpx.Client, recording_backend: Any) -> None:
    assert client.post("/orders", json={"tier": "gold"}).text == "gold"
    recording_backend.requests.clear()
    assert client.post("/orders", json={"tier": "silver"}).text == "ok"
    assert said_of(recording_backend.requests[0])["content-length"] == str(len('{"tier":"silver"}'))


@pytest.mark.parametrize(
    "target",
    ["/admin/x", "/%61dmin/x", "//admin/x", "/y/../admin/x", "/./admin/x", "/admin", "/y/%2e%2e/admin"],
)
def test_no_spelling_leads_round_a_rule(gateway: Any, recording_backend: Any, target: str) -> None:
    recording_backend.requests.clear()
    assert raw(gateway.port, f"GET {target} HTTP/1.1").startswith(b"HTTP/1.1 403")
    assert recording_backend.requests == []


@pytest.mark.parametrize("target", ["/admin;x", "/recorded/..%2Fadmin", "/recorded/%5c..", "/admin%00"])
def test_what_is_read_in_two_ways_is_refused(gateway: Any, recording_backend: Any, target: str) -> None:
    recording_backend.requests.clear()
    assert raw(gateway.port, f"GET {target} HTTP/1.1").startswith(b"HTTP/1.1 400")
    assert recording_backend.requests == []


def raw(port: int, first_line: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(f"{first_line}\r\nHost: h.example\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while piece := sock.recv(65536):
            received += piece
    return received


# ---------------------------------------------------------------- what the backend gets


def test_the_backend_learns_who_asked_and_nothing_that_a_stranger_claims(
    client: httpx.Client, recording_backend: Any
) -> None:
    recording_backend.requests.clear()
    claims = {"X-Forwarded-For": "1.1.1.1", "Forwarded": "for=1.1.1.1", "X-Real-IP": "1.1.1.1"}
    hops = {"Connection": "x-hop", "X-Hop": "1", "TE": "trailers", "X-Debug": "1"}
    answer = client.get("/recorded/a", headers={"Host": "shop.example", "X-Own": "kept", **claims, **hops})
    (head,) = recording_backend.requests
    assert head.startswith(b"GET /recorded/a HTTP/1.1\r\n")
    fields = said_of(head)
    assert fields["host"] == fields["x-forwarded-host"] == "shop.example"
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["x-own"] == "kept"
    assert fields["via"].startswith("1.1 ")
    assert fields["x-request-id"] == answer.headers["x-request-id"]
    assert not set(fields) & {"forwarded", "x-real-ip", "connection", "x-hop", "te", "x-debug", "keep-alive"}


def test_a_request_that_comes_back_is_refused(client: httpx.Client, recording_backend: Any) -> None:
    client.get("/recorded/a")
    via = said_of(recording_backend.requests[-1])["via"]
    answer = client.get("/recorded/a", headers={"Via": via})
    assert answer.status_code == 508
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_path_is_rewritten_and_the_query_left(client: httpx.Client, recording_backend: Any) -> None:
    recording_backend.requests.clear()
    client.get("/strip/a/b?x=%2F&y")
    assert recording_backend.requests[0].startswith(b"GET /a/b?x=%2F&y HTTP/1.1\r\n")


def test_a_stream_arrives_piece_by_piece(client: httpx.Client) -> None:
    with client.stream("GET", "/streams") as events:
        pieces = events.iter_raw()
        assert next(pieces) == b"data: 1\n\n"  # the second one waits for the next line
        assert client.get("/streams?more").text == "data: 2\n\n"
        assert next(pieces) == b"data: 2\n\n"


# ---------------------------------------------------------------- what the gateway says itself


def test_who_asks_too_often_is_told_so(client: httpx.Client) -> None:
    answers = [client.get("/few") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers] == [
        '"few";r=1', '"few";r=0', '"few";r=0'
    ]  # fmt: skip
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["status"] == 429
    assert int(refused.headers["retry-after"]) > 0


def test_a_redirect(client: httpx.Client) -> None:
    answer = client.get("/old/x")
    assert (answer.status_code, answer.headers["location"]) == (308, "/new/")


def test_a_body_that_is_too_large(client: httpx.Client, recording_backend: Any) -> None:
    recording_backend.requests.clear()
    assert client.post("/small", content=b"x" * 1024).status_code == 200
    assert client.post("/small", content=b"x" * 1025).status_code == 413
    assert client.post("/small", content=iter([b"x" * 1000] * 2)).status_code == 413
    assert len(recording_backend.requests) == 1


def test_cors_is_starlettes(client: httpx.Client) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    assert (
        client.options("/recorded/a", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
    )


@pytest.mark.parametrize(("path", "status"), [("/nobody", 502), ("/silent", 504), ("/nowhere", 404)])
def test_failures_are_answers(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]


def test_head_is_answered_without_a_body(gateway: Any) -> None:
    answer = raw(gateway.port, "HEAD /recorded/a HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 2\r\n" in answer.lower()
