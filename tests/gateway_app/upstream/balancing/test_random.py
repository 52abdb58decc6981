from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from gateway_app.upstream.balancing.random import Random


@dataclass
class Seat:
    key: str
    weight: float
    active: int = 0


def test_chance_follows_weight() -> None:
    policy: Random[Seat] = Random(random.Random(7))
    seats = (Seat("a", 1), Seat("b", 3))
    counts = Counter(policy.choose(seats).key for _ in range(4000))
    assert counts["b"] / 4000 == pytest.approx(0.75, abs=0.03)
