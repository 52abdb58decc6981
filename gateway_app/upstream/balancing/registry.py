"""The words of `balance` in routes.toml, and what makes each policy.

A policy is the relay's `Policy`: a pure `choose(candidates, key)`, where `key` matters to "hash" only. What
both layers need is in `l4relay.balance`; here is what only the gateway has, one file a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway_app.upstream.balancing.ewma import PeakEwma
from gateway_app.upstream.balancing.random import Random
from gateway_app.upstream.balancing.round_robin import RoundRobin
from l4relay.balance import ConsistentHash, LeastConnections, RandomOfTwo

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from gateway_app.upstream.endpoint import Endpoint
    from l4relay.balance import Policy


@runtime_checkable
class LearnsLatency(Protocol):
    """A policy that goes by how long endpoints take."""

    def observe(self, endpoint: Endpoint, latency_s: float, *, ok: bool) -> None:
        """Take note of an attempt that took `latency_s`; `ok` is False if the endpoint failed it."""
        ...


POLICIES: Mapping[str, Callable[[random.Random, Callable[[], float]], Policy[Endpoint]]] = {
    "round_robin": lambda rng, clock: RoundRobin(rng),
    "least_requests": lambda rng, clock: LeastConnections(),
    "power_of_two": lambda rng, clock: RandomOfTwo(rng),
    "ewma": PeakEwma,
    "hash": lambda rng, clock: ConsistentHash(),
    "random": lambda rng, clock: Random(rng),
}
