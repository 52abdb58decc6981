"""The three ways to count of the `limits` library, over counters that a request looks at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from limits import RateLimitItem, WindowStats
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

if TYPE_CHECKING:
    from gateway_app.state.memory import MemoryWindows, Take


class Limit(RateLimitItem):
    """One of a middleware's limits. Its keys are a request's key with `suffix`, which tells its window."""

    __slots__ = ["GRANULARITY", "suffix"]  # a list, as limits has it

    def __init__(self, item: RateLimitItem) -> None:
        self.suffix = f"\0{item.get_expiry()}"
        super().__init__(item.amount, item.multiples, self.suffix)
        self.GRANULARITY = item.GRANULARITY  # type: ignore[misc]  # limits' subclasses are one a granularity

    def key_for(self, *identifiers: bytes | str | float) -> str:
        """Return the key of the counter for a request's key."""
        return f"{identifiers[0]}{self.suffix}"  # type: ignore[str-bytes-safe]  # ours are all text


class Taking(RateLimiter):
    """A strategy that counts a request and tells how things then stand, in one step."""

    def taker(self, limit: Limit) -> Take:
        """Return what counts requests against `limit`."""

        def take(key: str, now: float) -> tuple[bool, float, int]:
            is_within = self.hit(limit, key)
            reset, remaining = self.get_window_stats(limit, key)
            return is_within, reset, remaining

        return take


class _FixedWindow(Taking, FixedWindowRateLimiter):
    storage: MemoryWindows

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        return self.storage.fixed_window_stats(item.key_for(*identifiers), item.amount)


class _MovingWindow(Taking, MovingWindowRateLimiter):
    pass


class _SlidingWindow(Taking, SlidingWindowCounterRateLimiter):
    storage: MemoryWindows

    def taker(self, limit: Limit) -> Take:
        return self.storage.sliding_taker(limit.suffix, limit.amount, limit.get_expiry())

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        return self.storage.sliding_window_stats(item.key_for(*identifiers), item.amount, item.get_expiry())


STRATEGIES: Final[dict[str, type[Taking]]] = {
    "fixed_window": _FixedWindow,
    "moving_window": _MovingWindow,
    "sliding_window": _SlidingWindow,
}
"""By their names in `routes.toml`: the strategies of `limits`, over a `MemoryWindows`."""
