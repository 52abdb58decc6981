from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


async def test_text_is_sent_as_configured(gateway: Make) -> None:
    gate = gateway("respond", {"status": 503, "body": "Später", "headers": {"Retry-After": "60"}})

    answer = await gate.get()

    assert (answer.status_code, answer.text) == (503, "Später")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["content-length"] == "7"
    assert gate.backend.requests == []


async def test_json_is_sent_as_json(gateway: Make) -> None:
    answer = await gateway("respond", {"json": {"up": False}}).get()

    assert answer.json() == {"up": False}
    assert answer.headers["content-type"] == "application/json"


async def test_head_has_the_length_and_no_body(gateway: Make) -> None:
    answer = await gateway("respond", {"body": "hello"}).request("HEAD")

    assert answer.headers["content-length"] == "5"
    assert answer.content == b""


async def test_no_content_has_no_length(gateway: Make) -> None:
    answer = await gateway("respond", {"status": 204}).get()

    assert "content-length" not in answer.headers


async def test_what_changes_one_answer_does_not_change_the_next(gateway: Make) -> None:
    gate = gateway("respond", {"body": "x"})
    app = gate.middleware

    async def adding(scope: Any, receive: Any, send: Any) -> None:
        async def send_more(message: Any) -> None:
            message.get("headers", []).append((b"x-more", b"1"))
            await send(message)

        await app(scope, receive, send_more)

    gate.edge.app = adding
    await gate.get()

    assert (await gate.get()).headers.get_list("x-more") == ["1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json": 1, "body": "x"}, "give one of them"),
        ({"status": 204, "body": "x"}, "has no body"),
        ({"headers": {"content-length": "3"}}, "frames the message"),
        ({"content_type": "a\nb"}, "printable ASCII"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_load(gateway: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("respond", options)
