from __future__ import annotations

import time
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond, parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from gateway_app.state.memory import MemoryWindows, RecentlyUsed
from gateway_app.state.rate_limits import STRATEGIES, Limit

THEIRS: Final[dict[str, type[RateLimiter]]] = {
    "fixed_window": FixedWindowRateLimiter,
    "moving_window": MovingWindowRateLimiter,
    "sliding_window": SlidingWindowCounterRateLimiter,
}
WITHOUT_THREAD: Final = MemoryStorage()
"""Its expiry thread would run by another clock; one instance, cleared before each use, starts it once."""


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    amount=st.integers(1, 5),
    seconds=st.integers(1, 3),
    steps=st.lists(st.integers(0, 4000).map(lambda step: step / 1000 + 0.000_123), max_size=40),
)
def test_decides_as_limits_does_over_its_own_storage(
    strategy: str, amount: int, seconds: int, steps: list[float]
) -> None:
    item = Limit(RateLimitItemPerSecond(amount, seconds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStorage, "_MemoryStorage__schedule_expiry", lambda storage: None)
        WITHOUT_THREAD.reset()
        theirs = THEIRS[strategy](WITHOUT_THREAD)
        ours = STRATEGIES[strategy](MemoryWindows())
        take = ours.taker(item)
        now = 1_000_000_000.0
        for step in steps:
            now += step
            patch.setattr(time, "time", lambda now=now: now)

            assert ours.test(item, "key") == theirs.test(item, "key")
            is_within, reset_taken, remaining_taken = take("other", now)
            assert ours.hit(item, "key") == theirs.hit(item, "key") == is_within
            reset, remaining = ours.get_window_stats(item, "key")
            expected_reset, expected_remaining = theirs.get_window_stats(item, "key")
            assert remaining == remaining_taken == expected_remaining
            assert reset == pytest.approx(expected_reset, abs=1e-4)
            assert reset_taken == pytest.approx(expected_reset, abs=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_flood_of_keys_leaves_memory_bounded_and_the_regular_client_counted(strategy: str) -> None:
    storage = MemoryWindows(max_keys=100)
    limiter = STRATEGIES[strategy](storage)
    item = parse("1000/hour")

    for number in range(2000):
        limiter.hit(item, f"flood-{number}")
        if number % 20 == 0:
            limiter.hit(item, "regular")

    assert len(storage) <= 100
    assert limiter.get_window_stats(item, "regular").remaining == 900


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clear_gives_the_whole_limit_back(strategy: str) -> None:
    limiter = STRATEGIES[strategy](MemoryWindows())
    item = parse("2/hour")
    assert limiter.hit(item, "key")

    limiter.clear(item, "key")

    assert limiter.get_window_stats(item, "key").remaining == 2


def test_it_is_one_of_the_storages_of_limits() -> None:
    storage = storage_from_string("gateway-memory://")

    assert isinstance(storage, MemoryWindows)
    assert storage.check()


def test_reset_forgets_all_keys() -> None:
    storage = MemoryWindows()
    storage.incr("a", 10)
    storage.acquire_entry("b", 3, 10)
    storage.acquire_sliding_window_entry("c", 3, 10)

    assert storage.reset() == 3
    assert len(storage) == 0


def test_recently_used_keeps_what_is_asked_for() -> None:
    values: RecentlyUsed[int] = RecentlyUsed(4)
    for number in range(1, 9):
        values.put(str(number), number)
        values.get("1")

    assert len(values) <= 4
    assert values.get("1") == 1
    assert values.get("8") == 8
    assert values.get("3") is None
