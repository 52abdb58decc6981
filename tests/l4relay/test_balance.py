import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.balance import (
    POLICIES,
    ConsistentHash,
    LeastConnections,
    Policy,
    RandomOfTwo,
    SmoothRoundRobin,
    eligible,
)


@dataclass(eq=False)
class Endpoint:
    key: str
    weight: float = 1.0
    active: int = field(default=0, compare=False)
    is_up: bool = True


def endpoints(*weights: float) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"10.0.0.{number}:80", weight) for number, weight in enumerate(weights))


def sequence(policy: Policy[Endpoint], candidates: tuple[Endpoint, ...], turns: int) -> str:
    return "".join("abcdefgh"[candidates.index(policy.choose(candidates))] for _ in range(turns))


weight_lists = st.lists(st.integers(1, 20), min_size=1, max_size=8)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_chooses_among_the_candidates(name: str) -> None:
    policy: Policy[Endpoint] = POLICIES[name](random.Random(1))
    three = endpoints(1, 2, 3)
    assert {policy.choose(three, str(number)) for number in range(200)} == set(three)
    assert policy.choose(three[1:2], "x") is three[1]


class TestSmoothRoundRobin:
    def test_turns_are_nginx_s(self) -> None:
        assert sequence(SmoothRoundRobin(), endpoints(5, 1, 1), 14) == "aabacaaaabacaa"

    def test_equal_weights_take_turns(self) -> None:
        assert sequence(SmoothRoundRobin(), endpoints(1, 1, 1), 6) == "abcabc"

    @given(weight_lists, st.integers(1, 4))
    def test_shares_are_exact_over_a_round(self, weights: list[int], rounds: int) -> None:
        candidates = endpoints(*weights)
        policy: SmoothRoundRobin[Endpoint] = SmoothRoundRobin()
        counts = Counter(policy.choose(candidates) for _ in range(rounds * sum(weights)))
        assert [counts[candidate] for candidate in candidates] == [rounds * weight for weight in weights]

    def test_an_endpoint_that_returns_gets_its_share_and_no_burst(self) -> None:
        candidates = endpoints(1, 1, 1)
        policy: SmoothRoundRobin[Endpoint] = SmoothRoundRobin()
        sequence(policy, candidates, 4)
        sequence(policy, candidates[:2], 1001)
        assert sorted(sequence(policy, candidates, 9)[:3]) == ["a", "b", "c"]

    @given(weight_lists, st.lists(st.sets(st.integers(0, 7)), max_size=60))
    def test_credit_stays_bounded_however_endpoints_come_and_go(
        self, weights: list[int], subsets: list[set[int]]
    ) -> None:
        everyone = endpoints(*weights)
        policy: SmoothRoundRobin[Endpoint] = SmoothRoundRobin()
        for subset in subsets:
            candidates = tuple(everyone[number] for number in subset if number < len(everyone)) or everyone
            policy.choose(candidates)
        assert sum(policy._current.values()) == 0
        assert all(abs(credit) <= sum(weights) * len(weights) for credit in policy._current.values())

    def test_names_that_are_gone_are_forgotten(self) -> None:
        policy: SmoothRoundRobin[Endpoint] = SmoothRoundRobin()
        for number in range(10_000):
            policy.choose((Endpoint(f"a{number}"), Endpoint(f"b{number}")))
        assert len(policy._current) <= 70


class TestLeastConnections:
    def test_the_fewest_for_its_weight_wins(self) -> None:
        candidates = endpoints(1, 2, 1)
        candidates[0].active, candidates[1].active, candidates[2].active = 2, 3, 2
        assert LeastConnections[Endpoint]().choose(candidates) is candidates[1]

    def test_idle_endpoints_take_turns_by_weight(self) -> None:
        assert Counter(sequence(LeastConnections(), endpoints(1, 2), 300)) == {"a": 100, "b": 200}

    @given(weight_lists, st.integers(0, 400))
    def test_held_connections_spread_by_weight(self, weights: list[int], connections: int) -> None:
        candidates = endpoints(*weights)
        policy: LeastConnections[Endpoint] = LeastConnections()
        for _ in range(connections):
            policy.choose(candidates).active += 1
        loads = [candidate.active / candidate.weight for candidate in candidates]
        assert max(loads) - min(loads) <= 1


class TestRandomOfTwo:
    def test_it_takes_the_less_loaded_one(self) -> None:
        candidates = endpoints(1, 1)
        candidates[0].active = 1
        policy: RandomOfTwo[Endpoint] = RandomOfTwo(random.Random(7))
        assert set(sequence(policy, candidates, 50)) == {"b"}

    def test_it_never_takes_the_most_loaded_one(self) -> None:
        candidates = endpoints(1, 1, 1, 1)
        for load, candidate in enumerate(candidates):
            candidate.active = load
        policy: RandomOfTwo[Endpoint] = RandomOfTwo(random.Random(7))
        assert set(sequence(policy, candidates, 200)) == {"a", "b", "c"}

    def test_it_follows_weight_under_load(self) -> None:
        candidates = endpoints(1, 4)
        policy: RandomOfTwo[Endpoint] = RandomOfTwo(random.Random(7))
        for _ in range(500):
            policy.choose(candidates).active += 1
        assert candidates[1].active == pytest.approx(400, abs=2)


KEYS = [f"192.0.2.{number % 256}-{number}" for number in range(2000)]


CHOSEN_IN_ANOTHER_PROCESS = [2, 2, 1, 0, 0, 0, 2, 1, 0, 0, 2, 1]


class TestConsistentHash:
    def test_any_process_gives_the_same_answer(self) -> None:
        three = endpoints(1, 1, 1)
        chosen = [three.index(ConsistentHash[Endpoint]().choose(three, key)) for key in KEYS[:12]]
        assert chosen == CHOSEN_IN_ANOTHER_PROCESS

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        three = endpoints(1, 2, 1)
        policy: ConsistentHash[Endpoint] = ConsistentHash()
        before = [policy.choose(three, key) for key in KEYS]
        assert [policy.choose(three[::-1], key) for key in KEYS] == before

    @given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 7))
    def test_only_the_keys_of_an_endpoint_that_goes_move_and_they_return(
        self, weights: list[int], gone: int
    ) -> None:
        everyone = endpoints(*weights)
        leaving = everyone[gone % len(everyone)]
        rest = tuple(candidate for candidate in everyone if candidate is not leaving)
        policy: ConsistentHash[Endpoint] = ConsistentHash()
        before = {key: policy.choose(everyone, key) for key in KEYS[:200]}
        without = {key: policy.choose(rest, key) for key in KEYS[:200]}
        assert all(without[key] is before[key] for key in before if before[key] is not leaving)
        assert {key: policy.choose(everyone, key) for key in before} == before

    def test_more_weight_only_attracts_keys(self) -> None:
        before = endpoints(1, 1, 1)
        after = endpoints(1, 2, 1)
        policy: ConsistentHash[Endpoint] = ConsistentHash()
        old = [before.index(policy.choose(before, key)) for key in KEYS]
        new = [after.index(policy.choose(after, key)) for key in KEYS]
        assert {target for source, target in zip(old, new, strict=True) if source != target} == {1}

    def test_shares_follow_weight(self) -> None:
        candidates = endpoints(1, 2, 5)
        policy: ConsistentHash[Endpoint] = ConsistentHash()
        keys = [f"198.51.{number >> 8}.{number & 255}" for number in range(8000)]
        counts = Counter(policy.choose(candidates, key) for key in keys)
        for candidate in candidates:
            assert counts[candidate] == pytest.approx(1000 * candidate.weight, rel=0.1)

    def test_what_is_remembered_is_bounded_and_any_text_is_a_key(self) -> None:
        two = endpoints(1, 1)
        policy: ConsistentHash[Endpoint] = ConsistentHash()
        for number in range(9000):
            policy.choose(two, f"\udc80{number}")
        assert len(policy._remembered) <= 4096


def is_up(endpoint: Endpoint) -> bool:
    return endpoint.is_up


class TestEligible:
    def test_backups_stand_in_when_no_primary_is_usable(self) -> None:
        primaries, backups = endpoints(1, 1), endpoints(1)
        assert eligible(primaries, backups, is_up) == primaries
        primaries[0].is_up = False
        assert eligible(primaries, backups, is_up) == primaries[1:]
        primaries[1].is_up = False
        assert eligible(primaries, backups, is_up) == backups
        backups[0].is_up = False
        assert eligible(primaries, backups, is_up) == ()

    def test_a_weight_of_zero_takes_an_endpoint_out(self) -> None:
        primaries, backups = endpoints(0, 1), endpoints(1)
        assert eligible(primaries, backups, is_up) == primaries[1:]
        assert eligible(primaries[:1], backups, is_up) == backups
