from __future__ import annotations

import time

import pytest
from starlette.types import Message

from gateway_app.answer import dated_send
from gateway_app.date_field import DateField
from gateway_app.exchange import Exchange


def test_the_field_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 784_111_777.9
    monkeypatch.setattr(time, "time", lambda: now)
    date = DateField()
    assert date() == date() == (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")  # the example of RFC 9110 5.6.7
    now += 0.2
    assert date() == (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT")


@pytest.mark.parametrize("theirs", [[], [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]])
async def test_an_answer_has_one_date_and_a_backend_its_own(theirs: list[tuple[bytes, bytes]]) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    answer = dated_send(Exchange("id", "192.0.2.1", "http", 0.0, 0), send)
    await answer({"type": "http.response.start", "status": 200, "headers": theirs})
    await answer({"type": "http.response.body", "body": b""})
    dates = [field for field in sent[0]["headers"] if field[0] == b"date"]
    assert len(dates) == 1
    assert not theirs or dates == theirs
