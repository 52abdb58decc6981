"""Who may connect: source networks, and how many from where.

`Limits` counts; it is one per relay and outlives reloads, as do the connections that it has counted. What the
numbers are allowed to be is the configuration's, and given with each question.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from l4relay.addresses import NetworkSet
from l4relay.config.model import RelayConfig
from l4relay.config.quantities import Rate

Refusal = Literal["denied", "max_connections", "max_connections_per_source", "max_rate_per_source"]

_MAX_IDLE_BUCKETS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a relay allows; 0 and None: no bound."""

    total: int = 0
    per_source: int = 0
    rate: Rate | None = None


class Limits(Protocol):
    """Counts a relay's connections, of this process or of all workers."""

    def admit(self, source: str, bounds: Bounds, now: float) -> Refusal | None:
        """Count a new connection in, or say which bound it would break."""

    def release(self, source: str) -> None:
        """Count one out that was admitted."""


class Admission:
    """A relay's rules for new connections and sessions."""

    def __init__(self, config: RelayConfig, limits: Limits) -> None:
        self._allow = NetworkSet(config.allow)
        self._deny = NetworkSet(config.deny)
        self._limits = limits
        self._bounds = Bounds(
            config.max_connections, config.max_connections_per_source, config.max_rate_per_source
        )
        self.release = limits.release

    def admit(self, source: str, now: float) -> Refusal | None:
        """Count a connection from `source` in, or return why it is refused; denied before allowed.

        The peer of a Unix socket, whose source is "", is in no network: the file's permissions let it in.
        """
        if self._deny and source in self._deny:
            return "denied"
        if self._allow and source and source not in self._allow:
            return "denied"
        return self._limits.admit(source, self._bounds, now)


class LocalLimits:
    """The counts of one process."""

    def __init__(self) -> None:
        self._total = 0
        self._by_source: Counter[str] = Counter()
        self._buckets: dict[str, TokenBucket] = {}

    def admit(self, source: str, bounds: Bounds, now: float) -> Refusal | None:
        """Count a new connection in, or say which bound it would break."""
        if bounds.total and self._total >= bounds.total:
            return "max_connections"
        count = self._by_source.get(source, 0)
        if bounds.per_source and count >= bounds.per_source:
            return "max_connections_per_source"
        if bounds.rate is not None and not self._bucket(source, bounds.rate, now).take(bounds.rate, now):
            return "max_rate_per_source"
        self._total += 1
        self._by_source[source] = count + 1
        return None

    def release(self, source: str) -> None:
        """Count one out that was admitted."""
        self._total -= 1
        count = self._by_source[source] - 1
        if count:
            self._by_source[source] = count
        else:
            del self._by_source[source]

    def _bucket(self, source: str, rate: Rate, now: float) -> "TokenBucket":
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= _MAX_IDLE_BUCKETS:
                self._forget_full(rate, now)
            bucket = self._buckets[source] = TokenBucket(float(rate.count), now)
        return bucket

    def _forget_full(self, rate: Rate, now: float) -> None:
        """Bound the memory: a full bucket says nothing; if too many are not, the oldest half goes."""
        kept = {source: each for source, each in self._buckets.items() if each.level(rate, now) < rate.count}
        if len(kept) >= _MAX_IDLE_BUCKETS:
            kept = dict(list(kept.items())[len(kept) // 2 :])
        self._buckets = kept


@dataclass(slots=True)
class TokenBucket:
    """How many connections a source may still open; it fills up at the rate.

    Attributes:
        tokens: What was left at `since`.
        since: Monotonic time of the last use.

    """

    tokens: float
    since: float

    def level(self, rate: Rate, now: float) -> float:
        """Return what is in it now."""
        return min(rate.count, self.tokens + (now - self.since) * rate.count / rate.period_s)

    def take(self, rate: Rate, now: float) -> bool:
        """Take one, if there is one."""
        level = self.level(rate, now)
        allowed = level >= 1.0
        self.tokens = level - 1.0 if allowed else level
        self.since = now
        return allowed
