from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gateway_app.config.backends import (
    EndpointConfig,
    HealthConfig,
    OutlierConfig,
    RetryConfig,
    TimeoutConfig,
)
from gateway_app.exchange import Exchange
from gateway_app.problem import Cause
from gateway_app.upstream.backend import Backend
from gateway_app.upstream.endpoint import Endpoint
from gateway_app.upstream.transport import Sent, Transport

Eventually = Callable[[Callable[[], bool]], Any]
OUTLIER = OutlierConfig(consecutive_failures=2, eject_for=60.0)


def backup(port: int) -> EndpointConfig:
    return EndpointConfig(url=f"http://127.0.0.1:{port}", backup=True)


def chosen(backend: Backend, exchange: Exchange, scope: Any, times: int = 12) -> set[int]:
    found = {backend.choose(exchange, scope) for _ in range(times)}
    return {endpoint.port if endpoint else 0 for endpoint in found}


# ---------------------------------------------------------------- who may be chosen


async def test_backups_serve_only_while_no_primary_does(bench: Any, exchange: Exchange, scope: Any) -> None:
    backend = bench.of(1, 2, backup(3))
    one, two, three = backend.endpoints
    assert chosen(backend, exchange, scope) == {1, 2}

    one.set_down(True)
    assert chosen(backend, exchange, scope) == {2}
    two.eject(60)
    assert chosen(backend, exchange, scope) == {3}
    three.set_down(True)
    assert chosen(backend, exchange, scope) == {2}, "only ejected is better than nobody"
    two.set_down(True)
    assert chosen(backend, exchange, scope) == {0}

    one.set_down(False)
    assert chosen(backend, exchange, scope) == {1}
    two.readmit()


async def test_a_retry_goes_elsewhere_then_to_a_backup_then_back(
    bench: Any, exchange: Exchange, scope: Any
) -> None:
    backend = bench.of(1, 2, 3, backup(4))
    tried: list[Any] = []
    for _ in range(4):
        tried.append(backend.choose(exchange, scope, tried))

    assert {endpoint.port for endpoint in tried[:3]} == {1, 2, 3}
    assert tried[3].port == 4
    assert backend.choose(exchange, scope, tried) in tried[:3]


async def test_a_single_endpoint_is_asked_again(bench: Any, exchange: Exchange, scope: Any) -> None:
    backend = bench.of(1)

    assert backend.choose(exchange, scope, backend.endpoints) is backend.endpoints[0]


@pytest.mark.parametrize(
    "balance", ["round_robin", "least_requests", "power_of_two", "ewma", "hash", "random"]
)
async def test_every_policy_serves_and_retries(
    balance: str, bench: Any, exchange: Exchange, scope: Any
) -> None:
    backend = bench.of(1, 2, 3, balance=balance)
    for _ in range(10):
        first = backend.choose(exchange, scope)
        assert backend.choose(exchange, scope, (first,)) is not first
        backend.report(first, True, 0.01)


async def test_hash_keeps_a_client_and_its_second_choice(bench: Any, exchange: Exchange, scope: Any) -> None:
    backend = bench.of(1, 2, 3, balance="hash", hash_on="header:host")
    first = backend.choose(exchange, scope)
    second = backend.choose(exchange, scope, (first,))

    assert {backend.choose(exchange, scope) for _ in range(5)} == {first}
    first.set_down(True)
    assert backend.choose(exchange, scope) is second
    first.set_down(False)
    assert backend.choose(exchange, scope) is first


async def test_ewma_learns_from_reports(bench: Any, exchange: Exchange, scope: Any) -> None:
    backend = bench.of(1, 2, balance="ewma")
    slow, fast = backend.endpoints
    backend.report(slow, True, 1.0)
    backend.report(fast, True, 0.01)

    assert chosen(backend, exchange, scope) == {2}


# ---------------------------------------------------------------- outliers


async def test_failures_in_a_row_eject_and_a_success_forgives(
    bench: Any, exchange: Exchange, scope: Any
) -> None:
    backend = bench.of(1, 2, 3, outlier=OUTLIER)
    one = backend.endpoints[0]
    for ok in (False, True, False):
        one.active += 1
        backend.report(one, ok, 0.01)
        one.finish(ok)
    assert one.state == "up"

    backend.report(one, False, 0.01)

    assert one.state == "ejected"
    assert chosen(backend, exchange, scope) == {2, 3}
    assert one.failures == 3


async def test_ejection_stops_at_its_share(bench: Any) -> None:
    backend = bench.of(1, 2, 3, 4, outlier=OUTLIER)
    for endpoint in backend.endpoints:
        for _ in range(5):
            backend.report(endpoint, False, 0.01)

    assert Counter(endpoint.state for endpoint in backend.endpoints) == {"ejected": 2, "up": 2}


async def test_the_ejected_return_by_themselves(
    bench: Any, exchange: Exchange, scope: Any, eventually: Eventually
) -> None:
    backend = bench.of(1, 2, outlier=OutlierConfig(consecutive_failures=1, eject_for=0.02))
    backend.report(backend.endpoints[0], False, 0.01)
    assert chosen(backend, exchange, scope) == {2}

    await eventually(lambda: backend.endpoints[0].is_available)

    assert chosen(backend, exchange, scope) == {1, 2}


async def test_without_the_table_nothing_is_ejected(bench: Any) -> None:
    backend = bench.of(1, 2)
    for _ in range(50):
        backend.report(backend.endpoints[0], False, 0.01)

    assert backend.endpoints[0].state == "up"


# ---------------------------------------------------------------- retries


async def test_the_budget_is_charged_for_what_may_have_arrived_only(bench: Any) -> None:
    backend = bench.of(1, 2, retry=RetryConfig(budget=0.2))

    def granted(reason: Cause | int, sent: Sent) -> int:
        tried = backend.endpoints[:1]
        return sum(backend.may_retry("GET", reason, sent, tried, body_replayable=True) for _ in range(300))

    assert granted(Cause.CONNECTION_REFUSED, Sent.NOTHING) == 300
    assert granted(Cause.CONNECTION_RESET, Sent.REUSED) == 300
    assert granted(503, Sent.MAYBE) == 100
    assert backend.status()["retries"] == {"granted": 100, "refused": 200}


async def test_without_the_table_failing_over_goes_to_the_backups_and_ends_there(bench: Any) -> None:
    backup = EndpointConfig(url="http://127.0.0.1:3", backup=True)
    backend = bench.of(1, 2, backup)

    def fails_over(*tried: int) -> bool:
        endpoints = [backend.endpoints[index] for index in tried]
        answer: bool = backend.may_retry(
            "POST", Cause.CONNECTION_REFUSED, Sent.NOTHING, endpoints, body_replayable=False
        )
        return answer

    assert fails_over(0)
    assert fails_over(0, 1), "to the backup"
    assert not fails_over(0, 1, 2)
    backend.endpoints[2].set_down(True)
    assert not fails_over(0, 1)


# ---------------------------------------------------------------- reload


async def test_what_is_unchanged_matches(bench: Any) -> None:
    backend = bench.of(1, 2)

    assert backend.matches(bench.config(1, 2))
    assert not backend.matches(bench.config(1, 2, balance="random"))


async def test_a_reload_keeps_endpoints_and_closes_those_that_left(
    bench: Any, exchange: Exchange, scope: Any
) -> None:
    old = bench.of(1, 2)
    await old.start()
    one, two = old.endpoints
    one.requests = 5
    two.active += 1

    weighted = EndpointConfig(url="http://127.0.0.1:1", weight=3.0)
    new = bench.make(bench.config(weighted, 3, outlier=OUTLIER), old)
    assert one.weight == 1.0, "a reload that fails later has changed nothing"
    await new.start()
    closing = asyncio.create_task(old.close())
    await asyncio.sleep(0.01)

    assert new.endpoints[0] is one
    assert (one.weight, one.requests) == (3.0, 5)
    assert Counter(new.choose(exchange, scope).port for _ in range(8)) == {1: 6, 3: 2}
    assert not two.transport.is_closed, "its request is still in flight"
    two.finish()
    await closing
    assert two.transport.is_closed
    assert not one.transport.is_closed


async def test_both_see_a_change_of_health_while_the_old_one_drains(
    bench: Any, exchange: Exchange, scope: Any
) -> None:
    old = bench.of(1, 2)
    await old.start()
    new = bench.make(bench.config(1, 2, balance="random"), old)
    await new.start()

    new.endpoints[0].set_down(True)

    assert chosen(old, exchange, scope) == chosen(new, exchange, scope) == {2}


async def test_changed_settings_of_the_transport_make_a_new_one_that_knows_the_health(bench: Any) -> None:
    old = bench.of(1, 2, health=HealthConfig(path="/", interval=60.0))
    await old.start()
    old.endpoints[0].set_down(True)
    old.endpoints[0].probes_in_row = -3

    config = bench.config(
        1, 2, health=HealthConfig(path="/", interval=60.0), timeout=TimeoutConfig(connect=9.0)
    )
    new = bench.make(config, old)
    await new.start()
    await old.close()

    assert not set(new.endpoints) & set(old.endpoints)
    assert new.endpoints[0].down
    assert [made.is_closed for made in bench.transports["http://127.0.0.1:1"]] == [True, False]


async def test_verdicts_end_with_the_checks_that_made_them(bench: Any) -> None:
    old = bench.of(1, 2, health=HealthConfig(path="/", interval=60.0), outlier=OUTLIER)
    await old.start()
    old.endpoints[0].set_down(True)
    old.endpoints[1].eject(60)

    new = bench.make(bench.config(1, 2), old)
    await new.start()

    assert [endpoint.state for endpoint in new.endpoints] == ["up", "up"]


async def test_a_reload_given_up_leaves_everything_as_it_was(bench: Any) -> None:
    old = bench.of(1, 2)
    await old.start()
    new = bench.make(bench.config(1, 3), old)

    await new.close()

    assert not any(endpoint.transport.is_closed for endpoint in old.endpoints)
    assert bench.transports["http://127.0.0.1:3"][0].is_closed


async def test_many_reloads_leave_nothing_behind(bench: Any) -> None:
    backend = bench.of(1, 2, outlier=OUTLIER)
    await backend.start()
    tasks = len(asyncio.all_tasks())
    for round_ in range(50):
        new = bench.make(bench.config(1, 3 + round_, outlier=OUTLIER), backend)
        await new.start()
        await backend.close()
        backend = new

    assert len(asyncio.all_tasks()) == tasks
    open_now = [key for key, made in bench.transports.items() if not made[-1].is_closed]
    assert sorted(open_now) == sorted(endpoint.key for endpoint in backend.endpoints)
    assert len(backend.endpoints[0]._holders) == 1


async def test_one_that_cannot_be_made_holds_nothing(bench: Any) -> None:
    old = bench.of(1)
    await old.start()

    def transport(endpoint: Endpoint, *_: object) -> Transport:
        raise ImportError(f"no transport for port {endpoint.port}")

    with pytest.raises(ImportError, match="port 2"):
        Backend("users", bench.config(1, 2), transport, bench.resolver, old)

    await old.close()
    assert bench.transports["http://127.0.0.1:1"][0].is_closed  # it would wait for the one that never was


async def test_status(bench: Any) -> None:
    backend = bench.of(1, backup(2))
    backend.endpoints[0].set_down(True)

    status = backend.status()

    assert status["available"] == 1
    assert [(e["endpoint"], e["state"], e["backup"]) for e in status["endpoints"]] == [
        ("http://127.0.0.1:1", "down", False),
        ("http://127.0.0.1:2", "up", True),
    ]
