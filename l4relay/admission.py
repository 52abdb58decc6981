"""Who may connect: source networks, and how many from where.

Connections are counted in a table, which several workers share under a lock that dies with its holder:

    row    key │ full at │ one count for each worker

A row is a relay's total, or one source of it; it is found by a hash of their names, and free again when all
its counts are 0 and its bucket is full. Every bound is exact: a worker looks and counts in one go. Each
worker writes its own counts only, so those of one that has died can be taken back. A relay without bounds
counts nothing.
"""

import fcntl
import mmap
import os
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal

from l4relay.addresses import NetworkSet
from l4relay.config.model import RelayConfig
from l4relay.config.quantities import Rate

Refusal = Literal["denied", "max_connections", "max_connections_per_source", "max_rate_per_source"]

_ROWS: Final = 1 << 16
_PROBES: Final = 32
_NEVER: Final = (1 << 64) - 1


class LimitTable:
    """The memory, as one process sees it; ``with`` keeps the other processes out.

    Args:
        workers: How many there are; one alone needs no lock.
        index: Which of them this is.
        fd: The memory where it is inherited; -1 makes it.

    Attributes:
        fd: The memory, for workers to inherit; -1 where there is one alone.

    """

    def __init__(self, workers: int = 1, index: int = 0, fd: int = -1) -> None:
        self.workers = workers
        self.index = index
        size = _ROWS * (8 + 8 + 4 * workers)
        if fd == -1 and workers > 1:
            fd = os.memfd_create("l4relay-limits")
            os.ftruncate(fd, size)
        self.fd = fd
        memory = memoryview(mmap.mmap(fd, size))  # only the pages that are used take any
        self._keys = memory[: 8 * _ROWS].cast("Q")
        self._full_at_ns = memory[8 * _ROWS : 16 * _ROWS].cast("Q")
        self._counts = memory[16 * _ROWS :].cast("I")

    def __enter__(self) -> "LimitTable":
        if self.fd != -1:
            fcntl.lockf(self.fd, fcntl.LOCK_EX)  # the kernel lets go for a process that dies (fcntl(2))
        return self

    def __exit__(self, *error: object) -> None:
        if self.fd != -1:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def find(self, key: int, now: float) -> int | None:
        """Return the row of a key, taking a free one for a new key; None when there is none."""
        free = None
        for place in range(key, key + _PROBES):
            row = place % _ROWS
            known = self._keys[row]
            if known == key:
                return row
            if free is None and self._full_at_ns[row] <= now * 1e9 and not self.total(row):
                free = row
            if not known:
                break  # rows are taken over, never emptied: nothing of this key is behind a new one
        if free is not None:
            self._keys[free] = key
            self._full_at_ns[free] = 0
        return free

    def keep(self, key: int) -> int | None:
        """Return a row that is a key's for ever; None when there is none."""
        with self:
            row = self.find(key, 1e10)  # when all buckets are full: it is worth more than any of them
            if row is not None:
                self._full_at_ns[row] = _NEVER
            return row

    def total(self, row: int) -> int:
        """Return the count of all workers."""
        first = row * self.workers
        return self._counts[first] if self.workers == 1 else sum(self._counts[first : first + self.workers])

    def add(self, row: int | None, change: int) -> None:
        """Change this worker's count."""
        if row is not None:
            at = row * self.workers + self.index
            self._counts[at] = max(0, self._counts[at] + change)

    def take_token(self, row: int, rate: Rate, now: float) -> bool:
        """Take one from the row's bucket, which fills up at the rate, if there is one.

        The time when it is full says how much is missing (in ATM: the generic cell rate algorithm).
        """
        now_ns, period_ns = int(now * 1e9), int(rate.period_s * 1e9)
        full_at_ns = max(self._full_at_ns[row], now_ns) + period_ns // rate.count
        if full_at_ns > now_ns + period_ns:
            return False
        self._full_at_ns[row] = full_at_ns
        return True

    def forget_worker(self, index: int) -> None:
        """Take back what a worker that has died had counted."""
        with self:
            for at in range(index, len(self._counts), self.workers):
                if self._counts[at]:
                    self._counts[at] = 0


class Admission:
    """A relay's rules for new connections and sessions.

    What it has admitted it counts out by itself, so that a reload changes nothing for those that there are.
    """

    def __init__(self, config: RelayConfig, table: LimitTable) -> None:
        self._allow = NetworkSet(config.allow)
        self._deny = NetworkSet(config.deny)
        self._relay = config.name
        self._max = config.max_connections
        self._max_per_source = config.max_connections_per_source
        self._rate = config.max_rate_per_source
        self._is_bounded = bool(self._max or self._max_per_source or self._rate)
        self._table = table
        # "" is the source of a Unix socket's peers.
        self._total = table.keep(_key(self._relay, "\0")) if self._is_bounded else None

    def admit(self, source: str, now: float) -> Refusal | None:
        """Count a connection from `source` in, or return why it is refused; denied before allowed.

        The peer of a Unix socket, whose source is "", is in no network: the file's permissions let it in.
        A source for which the table has no room is bound by the total alone.
        """
        if self._deny and source in self._deny:
            return "denied"
        if self._allow and source and source not in self._allow:
            return "denied"
        if not self._is_bounded:
            return None
        table, total = self._table, self._total
        with table:
            if self._max and total is not None and table.total(total) >= self._max:
                return "max_connections"
            row = table.find(_key(self._relay, source), now)
            if row is not None:
                if self._max_per_source and table.total(row) >= self._max_per_source:
                    return "max_connections_per_source"
                if self._rate is not None and not table.take_token(row, self._rate, now):
                    return "max_rate_per_source"
            table.add(total, 1)
            table.add(row, 1)
        return None

    def release(self, source: str) -> None:
        """Count one out that was admitted."""
        if self._is_bounded:
            with self._table as table:
                table.add(self._total, -1)
                table.add(table.find(_key(self._relay, source), 0.0), -1)


@lru_cache(4096)
def _key(relay: str, source: str) -> int:
    text = f"{relay}\0{source}".encode("utf-8", "surrogateescape")  # a path may have any bytes
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
