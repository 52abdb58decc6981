"""Choosing one of several endpoints: pure policies that relay and gateway share.

A policy decides, it does no I/O: it gets the tuple of endpoints that may be chosen now (see `eligible`) and
gives one back. Health, connecting and counting are the caller's. Callers keep the tuple until health, weights
or membership change and then make a new one; policies may keep what they worked out for a tuple.

Adding a policy: a class with `choose`, its test, a line in `POLICIES`.
"""

import math
import random
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar


class Candidate(Protocol):
    """An endpoint as a policy sees it.

    Attributes:
        key: A name that stays the same across reloads and processes, such as ``127.0.0.1:5432``.
        weight: The share of the traffic relative to the other candidates, above 0.
        active: Connections or requests in flight.
    """

    key: str
    weight: float
    active: int


C = TypeVar("C", bound=Candidate)


class Policy(Protocol[C]):
    """One way of choosing. An instance serves one group of endpoints."""

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return one of `candidates`, of which there is at least one.

        `key` is what a hash policy goes by, a client's address for instance; the others ignore it.
        """


class SmoothRoundRobin(Generic[C]):
    """Smooth weighted round robin, nginx's: shares are exact and a heavy endpoint's turns are spread out.

    Each turn everyone gains its weight, and the one who has most is chosen and pays the turn's total. An
    endpoint that is away neither gains nor pays, so it returns to its old place and not to a burst.
    """

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: dict[str, float] = {}

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return the candidate whose turn it is."""
        current = self._current
        total = 0.0
        most = -math.inf
        chosen = candidates[0]
        for candidate in candidates:
            weight = candidate.weight
            total += weight
            name = candidate.key
            current[name] = gained = current.get(name, 0.0) + weight
            if gained > most:
                most = gained
                chosen = candidate
        current[chosen.key] = most - total
        if len(current) > 2 * len(candidates) + 64:
            self._forget_all_but(candidates)
        return chosen

    def _forget_all_but(self, candidates: tuple[C, ...]) -> None:
        """Bound the memory where names come and go, as with endpoints found by DNS."""
        self._current = {candidate.key: self._current[candidate.key] for candidate in candidates}


class LeastConnections(Generic[C]):
    """The fewest active connections for its weight; those that tie take turns by weight.

    The turns matter: under light traffic all are idle, and without them the first would get everything.
    """

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: SmoothRoundRobin[C] = SmoothRoundRobin()

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return the candidate with the least load."""
        least = math.inf
        tied: list[C] = []
        for candidate in candidates:
            load = candidate.active / candidate.weight
            if load < least:
                least = load
                tied = [candidate]
            elif load == least:
                tied.append(candidate)
        return tied[0] if len(tied) == 1 else self._turns.choose(tuple(tied))


class RandomOfTwo(Generic[C]):
    """The less loaded of two that chance names.

    Close to least connections, and several processes that do not know of each other do not all run to the
    same endpoint. `rng` is where the chance comes from.
    """

    __slots__ = ("_random",)

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return the one of two different candidates with the lower load for its weight."""
        if len(candidates) == 1:
            return candidates[0]
        total = total_weight(candidates)
        first = at_point(self._random() * total, candidates)
        second = at_point(self._random() * (total - first.weight), candidates, but=first)
        return second if second.active * first.weight < first.active * second.weight else first


def total_weight(candidates: Iterable[Candidate]) -> float:
    """Return the sum of the candidates' weights."""
    total = 0.0
    for candidate in candidates:
        total += candidate.weight
    return total


def at_point(point: float, candidates: tuple[C, ...], but: C | None = None) -> C:
    """Return the candidate under `point` when their weights are laid end to end, `but` left out."""
    last = candidates[0]
    for candidate in candidates:
        if candidate is not but:
            last = candidate
            point -= candidate.weight
            if point < 0.0:
                break
    return last


_MASK: Final = (1 << 64) - 1
_MAX_REMEMBERED: Final = 4096


class ConsistentHash(Generic[C]):
    """A key keeps its endpoint, in every process and after a restart: weighted rendezvous hashing.

    Each endpoint draws a score from the key and its own name, and the best one wins. When an endpoint goes,
    only its keys move, spread over all others; when it comes back, they return. Rendezvous hashing and not a
    ring, because shares follow any weights exactly (a ring of 100 points an endpoint is 10 % off), a changed
    weight moves only the difference, and nothing is rebuilt when health flaps. Its price, a look at each
    endpoint, is paid once a key: answers are remembered for the tuple of candidates that they were made for.
    """

    __slots__ = ("_candidates", "_remembered", "_scorers")

    def __init__(self) -> None:
        self._candidates: tuple[C, ...] = ()
        self._scorers: tuple[tuple[int, float, C], ...] = ()
        self._remembered: dict[str, C] = {}

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return the candidate that `key` belongs to."""
        if candidates is not self._candidates:
            self._adopt(candidates)
        chosen = self._remembered.get(key)
        if chosen is None:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            chosen = self._remembered[key] = self._best(key)
        return chosen

    def _adopt(self, candidates: tuple[C, ...]) -> None:
        self._candidates = candidates
        self._scorers = tuple((_seed(each.key), each.weight, each) for each in candidates)
        self._remembered.clear()

    def _best(self, key: str) -> C:
        # The key is hashed once, the endpoints' seeds are mixed in with two multiplications (MurmurHash3's
        # finaliser). -weight / log(uniform) is the score that wins in proportion to weight.
        hashed = zlib.crc32(key.encode("utf-8", "surrogatepass")) * 0x9E3779B97F4A7C15
        best = -1.0
        chosen = self._candidates[0]
        for seed, weight, candidate in self._scorers:
            mixed = (hashed ^ seed) & _MASK
            mixed = (mixed ^ mixed >> 33) * 0xFF51AFD7ED558CCD & _MASK
            mixed = (mixed ^ mixed >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
            score = -weight / math.log(((mixed >> 11) + 0.5) * 2.0**-53)
            if score > best:
                best = score
                chosen = candidate
        return chosen


@lru_cache(maxsize=_MAX_REMEMBERED)
def _seed(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


POLICIES: Final[Mapping[str, Callable[[random.Random], Policy[Any]]]] = {
    "round_robin": lambda rng: SmoothRoundRobin(),
    "least_connections": lambda rng: LeastConnections(),
    "source_hash": lambda rng: ConsistentHash(),
    "random": RandomOfTwo,
}
"""The relay's `balance` names and what makes each."""


def eligible(primaries: Iterable[C], backups: Iterable[C], is_usable: Callable[[C], bool]) -> tuple[C, ...]:
    """Return who may be chosen now: the usable primaries, or the usable backups where there are none.

    A weight of 0 takes an endpoint out of the choice.

    Args:
        primaries: The endpoints in ordinary use.
        backups: Those that stand by.
        is_usable: Whether an endpoint is neither down, ejected nor drained.
    """
    for tier in (primaries, backups):
        usable = tuple(each for each in tier if each.weight > 0 and is_usable(each))
        if usable:
            return usable
    return ()
