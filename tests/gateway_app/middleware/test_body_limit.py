from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


@pytest.mark.parametrize("max_bytes", [5, 5000])
async def test_the_bound_of_the_exchange_is_lowered_or_raised(gateway: Make, max_bytes: int) -> None:
    gate = gateway("body_limit", {"max": max_bytes})

    answer = await gate.request("POST", "/", content=b"12345")

    assert answer.status_code == 200
    assert gate.edge.exchange.max_body_bytes == max_bytes


async def test_a_declared_length_beyond_it_is_refused_at_once(gateway: Make) -> None:
    gate = gateway("body_limit", {"max": 4})
    gate.edge.content_length = 5

    answer = await gate.request("POST", "/", content=b"12345")

    assert answer.status_code == 413
    assert answer.json()["detail"] == "a body may have 4 bytes"
    assert gate.backend.requests == []
