"""The whole application in this process: what becomes of a body that decides on the route."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway_app.testing import GatewayClient

ROUTES = """
[gateway]
access_log = "off"
max_body = "10KiB"
[backends.measure]
endpoints = ["asgi:look_ahead_backend:app"]
[middleware.small]
type = "body_limit"
max = "1KiB"
[middleware.large]
type = "body_limit"
max = "1MiB"
[[routes]]
name = "large"
match = { path = "/", json = { "/size" = "large" } }
middleware = ["large"]
backend = "measure"
[[routes]]
name = "huge"
match = { path = "/", json = { "/size" = "huge" } }
backend = "measure"
[[routes]]
name = "others"
match = { path = "/" }
middleware = ["small"]
backend = "measure"
"""

BACKEND = '''
"""Answers with the length of the body."""


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})
'''

KIB = 1024


@pytest.fixture
def client(tmp_path: Path) -> Iterator[GatewayClient]:
    (tmp_path / "routes.toml").write_text(ROUTES)
    (tmp_path / "look_ahead_backend.py").write_text(BACKEND)
    with GatewayClient(tmp_path / "routes.toml") as made:
        yield made


def body_of(size: str, length: int) -> bytes:
    """Return JSON of that length."""
    text = json.dumps({"size": size, "fill": ""})
    return text.replace('""', f'"{"x" * (length - len(text))}"').encode()


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 700):
        yield body[start : start + 700]


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    ("size", "length", "status"),
    [
        ("large", 60 * KIB, 200),
        ("large", 100 * KIB, 413),  # longer than what is looked at: it is the last route's
        ("huge", 9 * KIB, 200),
        ("huge", 11 * KIB, 413),
        ("other", KIB, 200),
        ("other", 2 * KIB, 413),
    ],
)
def test_the_limit_of_a_body_is_that_of_the_route_it_leads_to(
    client: GatewayClient, size: str, length: int, status: int, is_chunked: bool
) -> None:
    body = body_of(size, length)
    content = in_chunks(body) if is_chunked else body
    answer = client.post("/", content=content)

    assert answer.status_code == status
    assert status != 200 or answer.text == str(length)
