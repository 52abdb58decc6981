"""Rate limits' counters in this process: a storage for the `limits` library, bounded and cheap.

`limits` decides. Its own `MemoryStorage` starts a thread again and again to expire keys, keeps every key of a
flood until then, and costs 11 to 18 µs for a hit with its statistics. Here a key has one record for all its
windows, and the strategies read their statistics from it in one look: 2 to 3 µs together.

Nothing is locked: storage and strategies belong to one event loop's thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import floor
from typing import Final, Generic, TypeVar

from limits import WindowStats
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

DEFAULT_MAX_KEYS: Final = 100_000

T = TypeVar("T")

Take = Callable[[str, float], tuple[bool, float, int]]
"""Counts a request for a key at a time, unless the limit forbids it, and tells how things then stand.

Returns whether it is allowed, when some of the limit comes back, and what remains of it. Times are in seconds
since the epoch.
"""


class RecentlyUsed(Generic[T]):
    """Values by key, of which at least the last `max_keys / 2` used and at most `max_keys` are kept.

    Two generations: what is used moves to the young one; when that is full, it becomes the old one, and what
    nobody asked for since is dropped. Each step costs a dictionary access or two; no sweep over all keys.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, max_keys: int) -> None:
        self._half = max(1, max_keys // 2)
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: str) -> T | None:
        """Return the value, which counts as used, or None."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: str, value: T) -> T:
        """Keep `value` under `key`, which must not be there, and return it."""
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = value
        return value

    def drop(self, key: str) -> None:
        """Forget `key`."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young.clear()
        self._old.clear()


class _Fixed:
    """A window that began with its first hit."""

    __slots__ = ("count", "ends")

    def __init__(self) -> None:
        self.count = 0
        self.ends = 0.0


class _Sliding:
    """The counts of the window with the number `index`, by the clock, and of the one before it."""

    __slots__ = ("current", "index", "previous")

    def __init__(self, index: int) -> None:
        self.index = index
        self.current = 0
        self.previous = 0


class MemoryWindows(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """Counters of one process, for `max_keys` keys of each strategy.

    Under a flood of more keys the least recently used are forgotten: they start anew, and memory stays
    bounded. A moving window keeps the time of each hit, up to the limit's amount for each key.
    """

    STORAGE_SCHEME = ["gateway-memory"]  # noqa: RUF012  # declared so by limits

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self._fixed: RecentlyUsed[_Fixed] = RecentlyUsed(max_keys)
        self._sliding: RecentlyUsed[_Sliding] = RecentlyUsed(max_keys)
        self._moving: RecentlyUsed[deque[float]] = RecentlyUsed(max_keys)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: there is nothing here that can fail."""
        return ()

    def __len__(self) -> int:
        return len(self._fixed) + len(self._sliding) + len(self._moving)

    # Fixed windows

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount`, return the count in the window, which ends `expiry` s after its first hit."""
        record = self._fixed.get(key) or self._fixed.put(key, _Fixed())
        now = time.time()
        if record.ends <= now:
            record.ends = now + expiry
            record.count = 0
        record.count += amount
        return record.count

    def get(self, key: str) -> int:
        """Return the count in the window."""
        record = self._fixed.get(key)
        return record.count if record is not None and record.ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """Return when the window ends, in seconds since the epoch."""
        record = self._fixed.get(key)
        now = time.time()
        return record.ends if record is not None and record.ends > now else now

    def fixed_window_stats(self, key: str, limit: int) -> WindowStats:
        """Return when the window ends and what remains of `limit` until then."""
        record = self._fixed.get(key)
        now = time.time()
        if record is None or record.ends <= now:
            return WindowStats(now, limit)
        return WindowStats(record.ends, max(0, limit - record.count))

    # Moving windows

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Note `amount` hits if then no more than `limit` fall into the last `expiry` seconds."""
        if amount > limit:
            return False
        hits = self._moving.get(key)
        if hits is None:
            hits = self._moving.put(key, deque(maxlen=limit))
        now = time.time()
        behind = limit - amount + 1
        if len(hits) >= behind and hits[-behind] >= now - expiry:
            return False
        if amount == 1:
            hits.append(now)
        else:
            hits.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the first hit in the last `expiry` seconds, and how many there are."""
        hits = self._moving.get(key)
        now = time.time()
        if hits is not None:
            while hits and hits[0] < now - expiry:
                hits.popleft()
        return (hits[0], len(hits)) if hits else (now, 0)

    # Sliding windows

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits if the weighted count of both windows stays within `limit`."""
        record, left = self._sliding_record(key, expiry, time.time())
        if floor(record.previous * left / expiry + record.current) + amount > limit:
            return False
        record.current += amount
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return count and remaining seconds of the previous, and then of the current window."""
        record, left = self._sliding_record(key, expiry, time.time())
        return record.previous, left if record.previous else 0.0, record.current, left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget the hits of `key`."""
        self._sliding.drop(key)

    def sliding_window_stats(self, key: str, limit: int, expiry: int) -> WindowStats:
        """Return when the next hit is given back, and what remains of `limit` until then."""
        now = time.time()
        record, left = self._sliding_record(key, expiry, now)
        previous = record.previous
        remaining = max(0, limit - floor(previous * left / expiry + record.current))
        if previous:
            return WindowStats(now + left % (expiry / previous), remaining)
        return WindowStats(now + left if record.current else now, remaining)

    def sliding_taker(self, suffix: str, limit: int, expiry: int) -> Take:
        """Return what `acquire_sliding_window_entry` and `sliding_window_stats` do, in one look.

        Its keys are those of the two with `suffix` added.
        """
        record_of = self._sliding_record

        def take(key: str, now: float) -> tuple[bool, float, int]:
            record, left = record_of(key + suffix, expiry, now)
            remaining = limit - record.current
            previous = record.previous
            if previous:
                remaining -= floor(previous * left / expiry)
                left %= expiry / previous
            if remaining < 1:
                return False, now + left, 0
            record.current += 1
            return True, now + left, remaining - 1

        return take

    def _sliding_record(self, key: str, expiry: int, now: float) -> tuple[_Sliding, float]:
        """Return the key's record, brought up to the window that `now` is in, and the seconds left in it."""
        index = int(now / expiry)
        record = self._sliding.get(key)
        if record is None:
            record = self._sliding.put(key, _Sliding(index))
        elif record.index != index:
            record.previous = record.current if record.index == index - 1 else 0
            record.current = 0
            record.index = index
        return record, expiry - now % expiry

    # All of them

    def check(self) -> bool:
        """Return True: this process runs."""
        return True

    def clear(self, key: str) -> None:
        """Forget the hits of `key`."""
        self._fixed.drop(key)
        self._moving.drop(key)

    def reset(self) -> int:
        """Forget all keys and return how many there were."""
        forgotten = len(self)
        for records in (self._fixed, self._moving, self._sliding):
            records.clear()
        return forgotten
