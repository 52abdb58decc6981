from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway_app.middleware.context import SharedObjects
from gateway_app.problem import GatewayError

Make = Callable[..., Any]

STRATEGIES = ["fixed_window", "moving_window", "sliding_window"]


class Clock:
    """Stands in for `time.time`, which `limits` reads."""

    def __init__(self) -> None:
        self.now = 1_000_000_020.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_more_than_the_limit_is_429_until_the_time_it_tells(
    gateway: Make, clock: Clock, strategy: str
) -> None:
    gate = gateway("rate_limit", {"limit": "3/minute", "strategy": strategy}, name="per-client")

    passed = [(await gate.get()).status_code for _ in range(3)]
    refused = await gate.get()
    clock.now += int(refused.headers["retry-after"])
    later = await gate.get()

    assert passed == [200, 200, 200]
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == "no more than 3 per minute"
    assert refused.headers["ratelimit-policy"] == '"per-client";q=3;w=60'
    assert refused.headers["ratelimit"].startswith('"per-client";r=0;t=')
    assert later.status_code == 200
    assert len(gate.backend.requests) == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_answer_tells_what_remains(gateway: Make, clock: Clock, strategy: str) -> None:
    gate = gateway("rate_limit", {"limit": "3/minute", "strategy": strategy}, name="per-client")

    standings = [(await gate.get()).headers["ratelimit"].split(";")[1] for _ in range(3)]

    assert standings == ["r=2", "r=1", "r=0"]


async def test_all_of_several_limits_hold_and_the_nearest_is_told(gateway: Make, clock: Clock) -> None:
    gate = gateway("rate_limit", {"limit": "5/hour; 2/second", "strategy": "moving_window"}, name="both")

    statuses = []
    for _ in range(6):
        answer = await gate.get()
        statuses.append(answer.status_code)
        clock.now += 0.6

    assert answer.headers["ratelimit-policy"] == '"both-1s";q=2;w=1, "both-3600s";q=5;w=3600'
    assert statuses == [200, 200, 200, 200, 200, 429]
    assert answer.headers["ratelimit"].startswith('"both-3600s";r=0')


async def test_who_goes_too_fast_does_not_use_up_the_longer_limit(gateway: Make, clock: Clock) -> None:
    gate = gateway("rate_limit", {"limit": "1/second; 3/hour", "strategy": "fixed_window"})
    for _ in range(50):
        await gate.get()
    clock.now += 2

    assert (await gate.get()).status_code == 200


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("client", {}, {"client": "192.0.2.8"}),
        ("header:X-Api-Key", {"headers": {"x-api-key": "a"}}, {"headers": {"x-api-key": "b"}}),
        ("header:x-api-key", {"headers": {"x-api-key": "a" * 100}}, {"headers": {"x-api-key": "a" * 101}}),
        ("cookie:user", {"headers": {"cookie": "x=1; user=a"}}, {"headers": {"cookie": "user=b; x=1"}}),
        (["client", "header:x-a"], {"headers": {"x-a": "1"}}, {"headers": {"x-a": "2"}}),
        ("client", {"client": "2001:db8::1"}, {"client": "2001:db8:0:1::1"}),
    ],
)
async def test_each_key_has_its_own_limit(
    gateway: Make, key: str | list[str], first: dict[str, Any], second: dict[str, Any]
) -> None:
    gate = gateway("rate_limit", {"limit": "1/hour", "key": key})

    async def status(client: str = "192.0.2.7", **request: Any) -> int:
        gate.edge.client = client
        code: int = (await gate.get(**request)).status_code
        return code

    assert [await status(**first), await status(**first), await status(**second)] == [200, 429, 200]


@pytest.mark.parametrize(
    ("options", "one", "other"),
    [
        ({}, "2001:db8::1", "2001:db8::ffff:1"),
        ({"ipv6_prefix": 52}, "2001:db8:0:1000::1", "2001:db8:0:1fff::1"),
    ],
)
async def test_addresses_of_one_ipv6_network_are_one_client(
    gateway: Make, options: dict[str, Any], one: str, other: str
) -> None:
    gate = gateway("rate_limit", {"limit": "1/hour", **options})
    gate.edge.client = one
    await gate.get()
    gate.edge.client = other

    assert (await gate.get()).status_code == 429


async def test_requests_without_the_field_are_counted_together(gateway: Make) -> None:
    gate = gateway("rate_limit", {"limit": "1/hour", "key": "cookie:user"})
    await gate.get(headers={"cookie": "other=1"})

    assert (await gate.get()).status_code == 429


async def test_routes_that_share_the_name_share_the_limit(gateway: Make) -> None:
    shared = SharedObjects()
    options = {"limit": "1/hour"}
    first = gateway("rate_limit", options, name="n", route="a", shared=shared)
    second = gateway("rate_limit", options, name="n", route="b", shared=shared)
    other = gateway("rate_limit", options, name="m", route="b", shared=shared)
    await first.get()

    assert (await second.get()).status_code == 429
    assert (await other.get()).status_code == 200


async def test_by_route_each_route_has_the_whole_limit(gateway: Make) -> None:
    shared = SharedObjects()
    options = {"limit": "1/hour", "key": ["client", "route"]}
    await gateway("rate_limit", options, route="a", shared=shared).get()

    assert (await gateway("rate_limit", options, route="b", shared=shared).get()).status_code == 200
    assert (await gateway("rate_limit", options, route="a", shared=shared).get()).status_code == 429


async def test_a_reload_keeps_the_counts_while_the_options_stay(gateway: Make) -> None:
    before = SharedObjects()
    await gateway("rate_limit", {"limit": "1/hour"}, shared=before).get()

    unchanged = gateway("rate_limit", {"limit": "1/hour"}, shared=SharedObjects(before))
    changed = gateway("rate_limit", {"limit": "2/hour"}, shared=SharedObjects(before))

    assert (await unchanged.get()).status_code == 429
    assert (await changed.get()).status_code == 200


async def test_a_websocket_handshake_counts(gateway: Make) -> None:
    gate = gateway("rate_limit", {"limit": "1/hour"})
    await gate.get()
    scope = {"type": "websocket", "headers": [], "gateway": gate.edge.exchange}

    with pytest.raises(GatewayError, match="rate_limited"):
        await gate.middleware(scope, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": "many"}, "limit: 'many' is no rate"),
        ({"limit": "10/fortnight"}, "is no rate"),
        ({"limit": "0/minute"}, "allows nothing"),
        ({"limit": "10/minute; 20/60 seconds"}, "two limits for the same time"),
        ({"limit": "1/hour", "key": "clinet"}, "'clinet' is no key"),
        ({"limit": "1/hour", "key": "header:"}, "no field name"),
        ({"limit": "1/hour", "key": []}, "at least one"),
    ],
)
def test_what_limits_nothing_is_refused_at_load(gateway: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("rate_limit", options)
