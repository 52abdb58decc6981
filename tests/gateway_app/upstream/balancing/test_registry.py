from __future__ import annotations

import random
import time
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_app.config.backends import Balance
from gateway_app.upstream.balancing.registry import POLICIES
from gateway_app.upstream.endpoint import Endpoint


def endpoints(*weights: float) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(f"http://127.0.0.1:{9000 + index}", weight=weight) for index, weight in enumerate(weights)
    )


def test_every_word_of_the_file_has_a_policy() -> None:
    assert set(POLICIES) == set(get_args(Balance))


@pytest.mark.parametrize("name", POLICIES)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    active=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    keys=st.lists(st.text(), min_size=1, max_size=5),
)
@settings(max_examples=40)
def test_a_policy_chooses_one_of_the_candidates(
    name: str, weights: list[float], active: list[int], keys: list[str]
) -> None:
    policy = POLICIES[name](random.Random(1), time.monotonic)
    group = endpoints(*weights)
    for endpoint, count in zip(group, active, strict=False):
        endpoint.active = count

    for part in (group, group[:1], group[-2:]):
        assert all(policy.choose(part, key) in part for key in keys)


@pytest.mark.parametrize("name", ["round_robin", "least_requests", "power_of_two", "hash", "random"])
def test_weights_are_followed(name: str) -> None:
    policy = POLICIES[name](random.Random(1), time.monotonic)
    group = endpoints(1, 3)
    in_flight: list[Endpoint] = []
    counts: Counter[str] = Counter()
    for number in range(4000):
        chosen = policy.choose(group, f"client {number}")
        counts[chosen.key] += 1
        chosen.active += 1
        in_flight.append(chosen)
        if len(in_flight) > 40:
            in_flight.pop(0).active -= 1

    assert counts[group[1].key] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("name", ["least_requests", "power_of_two"])
@given(st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=50)
def test_the_less_loaded_of_two_is_chosen(name: str, one: int, other: int) -> None:
    pair = endpoints(1, 1)
    pair[0].active, pair[1].active = one, other

    chosen = POLICIES[name](random.Random(1), time.monotonic).choose(pair)

    assert chosen.active == min(one, other)


def test_hash_moves_only_the_keys_of_the_endpoint_that_went() -> None:
    policy = POLICIES["hash"](random.Random(1), time.monotonic)
    group = endpoints(1, 1, 1, 1, 1)
    keys = [f"198.51.100.{number % 250}:{number}" for number in range(3000)]
    before = {key: policy.choose(group, key) for key in keys}
    gone = group[2]
    left = (*group[:2], *group[3:])

    after = {key: policy.choose(left, key) for key in keys}

    moved = [key for key in keys if before[key] is not after[key]]
    assert all(before[key] is gone for key in moved)
    assert len(moved) == pytest.approx(len(keys) / 5, rel=0.15)
    assert {key: policy.choose(group, key) for key in keys} == before
