"""The way of a request through the application, where no server is needed to see it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from gateway_app import gateway as gateway_module
from gateway_app.gateway import Gateway
from gateway_app.observe.run_directory import VARIABLE
from gateway_app.testing import GatewayClient

ROUTES = """
[gateway]
access_log = "off"
[[routes]]
name = "gold"
match.json = { "/tier" = "gold" }
respond = { body = "gold" }
[[routes]]
name = "others"
respond = { body = "others" }
"""


def post(*fields: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"a"), *fields],
    }


async def test_a_body_that_a_route_asks_for_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    monkeypatch.setattr(gateway_module, "LOOK_AHEAD_S", 0.01)
    (tmp_path / "routes.toml").write_text(ROUTES)
    pieces: list[Message] = [{"type": "http.request", "body": b'{"tier"', "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    gateway = Gateway(tmp_path / "routes.toml")
    await gateway._worker.start()
    try:
        async with asyncio.timeout(5):
            await gateway(post((b"content-length", b"15")), receive, send)
    finally:
        await gateway._worker.aclose()
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["cause"] == "request_timeout"
    assert (b"connection", b"close") in sent[0]["headers"]


SILENT = """
class Silent:
    def __init__(self, app):
        pass

    async def __call__(self, scope, receive, send):
        pass
"""


def test_a_middleware_that_does_not_answer_is_told_with_its_route(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers would give a bare 500, and leave it to the user to find out which middleware it was."""
    (tmp_path / "silent_middleware.py").write_text(SILENT)
    (tmp_path / "routes.toml").write_text(
        '[middleware.silent]\ntype = "silent_middleware:Silent"\n'
        '[[routes]]\nname = "mute"\nmiddleware = ["silent"]\nrespond = { body = "never" }\n'
    )
    with GatewayClient(tmp_path / "routes.toml") as client:
        answer = client.get("/")
    assert answer.status_code == 500
    assert answer.json()["cause"] == "internal"
    assert "the middlewares of route 'mute' have ended without an answer" in caplog.text
