from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "client", "status"),
    [
        ({"allow": ["192.0.2.0/24"]}, "192.0.2.7", 200),
        ({"allow": ["192.0.2.0/24"]}, "198.51.100.1", 403),
        ({"allow": ["192.0.2.0/24"], "deny": ["192.0.2.7"]}, "192.0.2.7", 403),
        ({"allow": ["192.0.2.0/24"]}, "::ffff:192.0.2.7", 200),
        ({"deny": ["2001:db8::/32"]}, "2001:db8::1", 403),
        ({"deny": ["2001:db8::/32"]}, "192.0.2.7", 200),
        ({"deny": ["192.0.2.0/24"]}, "", 200),
        ({"allow": ["192.0.2.0/24"]}, "", 403),
    ],
)
async def test_clients_come_in_by_their_network(
    gateway: Make, options: dict[str, Any], client: str, status: int
) -> None:
    gate = gateway("ip_filter", options)
    gate.edge.client = client

    answer = await gate.get()

    assert answer.status_code == status
    assert len(gate.backend.requests) == (status == 200)
    assert gate.edge.exchange.refused_by == ("" if status == 200 else "under-test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one network"),
        ({"allow": ["10.0.0.1/8"]}, "allow: .*did you mean"),
        ({"deny": ["x"]}, "deny: "),
    ],
)
def test_what_is_no_network_is_refused_at_load(gateway: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("ip_filter", options)
