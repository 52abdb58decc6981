from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.upstream.balancing.round_robin import RoundRobin, turns_of_a_round


@dataclass(eq=False)
class Candidate:
    key: str
    weight: float
    active: int = 0


def candidates(*weights: float) -> tuple[Candidate, ...]:
    return tuple(Candidate(str(index), weight) for index, weight in enumerate(weights))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 2**32))
def test_shares_are_exact_over_any_round(weights: list[int], seed: int) -> None:
    policy: RoundRobin[Candidate] = RoundRobin(random.Random(seed))
    group = candidates(*weights)
    policy.choose(group)
    policy.choose(group)

    counts = Counter(policy.choose(group).key for _ in range(sum(weights)))

    assert [counts[candidate.key] for candidate in group] == weights


@given(st.lists(st.floats(0.1, 5).map(lambda weight: round(weight, 1)), min_size=1, max_size=5))
def test_fractional_weights_are_exact_too(weights: list[float]) -> None:
    turns = turns_of_a_round(tuple(weights))

    counts = Counter(turns)
    shares = [counts[index] / len(turns) for index in range(len(weights))]

    assert shares == pytest.approx([weight / sum(weights) for weight in weights])


def test_the_heavy_one_does_not_take_its_turns_in_a_row() -> None:
    assert turns_of_a_round((5, 1, 1)) == (0, 0, 1, 0, 2, 0, 0)


def test_equal_weights_never_repeat() -> None:
    policy: RoundRobin[Candidate] = RoundRobin(random.Random(3))
    group = candidates(2, 2, 2)
    policy.choose(group)
    chosen = [policy.choose(group).key for _ in range(31)]

    assert all(one != other for one, other in pairwise(chosen))


def test_workers_begin_at_different_places() -> None:
    group = candidates(1, 1, 1, 1)
    second_choices = set()
    for seed in range(40):
        policy: RoundRobin[Candidate] = RoundRobin(random.Random(seed))
        policy.choose(group)
        second_choices.add(policy.choose(group).key)

    assert second_choices == {"0", "1", "2", "3"}


def test_a_round_too_long_to_work_out_is_still_fair() -> None:
    policy: RoundRobin[Candidate] = RoundRobin(random.Random(1))
    group = candidates(997, 1009)

    counts = Counter(policy.choose(group).key for _ in range(997 + 1009))

    assert turns_of_a_round((997, 1009)) == ()
    assert counts == {"0": 997, "1": 1009}


def test_a_changed_group_is_served_at_once() -> None:
    policy: RoundRobin[Candidate] = RoundRobin(random.Random(1))
    group = candidates(1, 1, 1)
    for _ in range(5):
        policy.choose(group)

    left = group[:2]

    assert {policy.choose(left) for _ in range(10)} == set(left)
