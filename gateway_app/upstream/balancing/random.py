"""`balance = "random"`: chance, by weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from l4relay.balance import C, at_point, total_weight

if TYPE_CHECKING:
    from random import Random as Rng


class Random(Generic[C]):
    """Any endpoint, as often as its weight says; `rng` is where the chance comes from."""

    __slots__ = ("_random",)

    def __init__(self, rng: Rng) -> None:
        self._random = rng.random

    def choose(self, candidates: tuple[C, ...], key: str = "") -> C:
        """Return any candidate."""
        return at_point(self._random() * total_weight(candidates), candidates)
