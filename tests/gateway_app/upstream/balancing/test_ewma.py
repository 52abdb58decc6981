from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.upstream.balancing.ewma import DECAY_S, FAILURE_S, PeakEwma, cost
from gateway_app.upstream.endpoint import Endpoint


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def endpoints(count: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"http://127.0.0.1:{9000 + index}") for index in range(count))


def test_a_peak_counts_at_once_and_fades(clock: Clock) -> None:
    policy = PeakEwma(random.Random(1), clock)
    (endpoint,) = endpoints(1)
    policy.observe(endpoint, 0.010, ok=True)
    policy.observe(endpoint, 0.500, ok=True)
    assert endpoint.latency_ewma == 0.5

    clock.now += DECAY_S
    policy.observe(endpoint, 0.010, ok=True)

    assert endpoint.latency_ewma == pytest.approx(0.5 * 0.3679 + 0.01 * 0.6321, rel=1e-3)


def test_an_endpoint_that_nobody_asks_gets_cheaper(clock: Clock) -> None:
    policy = PeakEwma(random.Random(1), clock)
    slow, fast = endpoints(2)
    policy.observe(slow, 2.0, ok=True)
    policy.observe(fast, 0.1, ok=True)
    assert policy.choose((slow, fast)) is fast

    for _ in range(60):
        clock.now += 1
        policy.observe(fast, 0.1, ok=True)

    assert policy.choose((slow, fast)) is slow


def test_failing_fast_attracts_nothing(clock: Clock) -> None:
    policy = PeakEwma(random.Random(1), clock)
    broken, sound = endpoints(2)
    policy.observe(broken, 0.0001, ok=False)
    policy.observe(sound, 0.1, ok=True)

    assert broken.latency_ewma == FAILURE_S
    assert Counter(policy.choose((broken, sound)).key for _ in range(50)) == {sound.key: 50}


def test_a_new_endpoint_gets_one_request_until_it_is_measured(clock: Clock) -> None:
    policy = PeakEwma(random.Random(1), clock)
    new, known = endpoints(2)
    policy.observe(known, 0.05, ok=True)
    assert policy.choose((new, known)) is new

    new.active = 1

    assert policy.choose((new, known)) is known


@given(
    st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 50), st.floats(0.1, 10)), min_size=2, max_size=2),
    st.integers(0, 2**32),
)
def test_never_the_worse_of_two(states: list[tuple[float, int, float]], seed: int) -> None:
    clock = Clock()
    pair = endpoints(2)
    for endpoint, (latency_s, active, weight) in zip(pair, states, strict=True):
        endpoint.latency_ewma, endpoint.active, endpoint.weight = latency_s, active, weight
        endpoint.latency_at = clock.now

    chosen = PeakEwma(random.Random(seed), clock).choose(pair)

    assert cost(chosen, clock.now) == min(cost(endpoint, clock.now) for endpoint in pair)


def test_the_two_are_different_and_all_are_drawn(clock: Clock) -> None:
    policy = PeakEwma(random.Random(1), clock)
    group = endpoints(4)
    group[0].latency_ewma, group[0].latency_at = 5.0, clock.now
    for endpoint in group[1:]:
        endpoint.latency_ewma, endpoint.latency_at = 1.0, clock.now

    counts = Counter(policy.choose(group).key for _ in range(600))

    assert counts[group[0].key] == 0  # the worst loses every pair, so it would only win against itself
    assert all(counts[endpoint.key] > 100 for endpoint in group[1:])
