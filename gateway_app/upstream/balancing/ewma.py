"""`balance = "ewma"`: the lower expected wait of two, by peak-sensitive latency and load (Peak EWMA).

The average jumps to a slower answer at once and forgets it slowly, so that an endpoint in trouble loses its
traffic after one slow answer and gets it back by and by.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from gateway_app.upstream.endpoint import Endpoint

DECAY_S: Final = 10.0
"""After so long without news a measurement has lost 63 % of its influence."""

FAILURE_S: Final = 1.0
"""A failure counts as an answer that took at least so long, or an endpoint that fails fast would draw all."""

UNMEASURED_S: Final = 1.0
"""What each request in flight to an endpoint without a measurement costs: it gets one, then waits for it."""


class PeakEwma:
    """Two different candidates are drawn, and the one with the lower cost is taken.

    The cost is the average latency, faded by its age, times the requests that would then be in flight,
    divided by the weight. Fading brings an endpoint back that nobody asks because it once was slow.
    """

    __slots__ = ("_clock", "_random")

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        self._random = rng.random
        self._clock = clock

    def choose(self, candidates: tuple[Endpoint, ...], key: str = "") -> Endpoint:
        """Return the one of two with the lower cost."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        one, other = candidates[first], candidates[second + (second >= first)]
        now = self._clock()
        return one if cost(one, now) <= cost(other, now) else other

    def observe(self, endpoint: Endpoint, latency_s: float, *, ok: bool) -> None:
        """Take `latency_s` into the endpoint's average: at once if it is a peak, by its age else."""
        if not ok:
            latency_s = max(latency_s, FAILURE_S)
        now = self._clock()
        average = endpoint.latency_ewma
        if latency_s >= average:
            endpoint.latency_ewma = latency_s
        else:
            kept = math.exp((endpoint.latency_at - now) / DECAY_S)
            endpoint.latency_ewma = average * kept + latency_s * (1.0 - kept)
        endpoint.latency_at = now


def cost(endpoint: Endpoint, now: float) -> float:
    """Return the wait to expect of one more request, in weighted seconds."""
    average = endpoint.latency_ewma
    if not average:
        return endpoint.active * UNMEASURED_S / endpoint.weight
    return average * math.exp((endpoint.latency_at - now) / DECAY_S) * (endpoint.active + 1) / endpoint.weight
