"""The counts of all workers together: a table in shared memory, under a lock that dies with its holder.

    row    key 8 bytes │ tokens │ since │ full at │ one count for each worker

A row is a relay's total, or one source of it; it is found by a hash of their names and free again when all
its counts are 0 and its bucket is full. Every bound is exact: a worker looks and counts in one go, under the
lock. Each worker writes its own counts only, so those of one that has died can be taken back.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from l4relay.admission import Bounds, Refusal, TokenBucket
from l4relay.config.quantities import Rate

_ROWS: Final = 1 << 16
_PROBES: Final = 32
_BUCKET: Final = struct.Struct("=ddd")
_KEY_BYTES: Final = 8
_NO_KEY: Final = bytes(_KEY_BYTES)
_COUNTS_AT: Final = _KEY_BYTES + _BUCKET.size


class SharedTable:
    """The memory, as one process sees it.

    Args:
        fd: From `create`; inherited by every worker.
        workers: How many there are.
        index: Which of them this is.

    """

    def __init__(self, fd: int, workers: int, index: int) -> None:
        self._fd = fd
        self._counts = struct.Struct(f"={workers}I")
        self._row_bytes = _COUNTS_AT + self._counts.size
        self._mine_at = _COUNTS_AT + 4 * index
        self._memory = mmap.mmap(fd, _ROWS * self._row_bytes)

    @staticmethod
    def create(workers: int) -> int:
        """Return the descriptor of an empty table; only the pages that are used take memory."""
        fd = os.memfd_create("l4relay-limits")
        os.ftruncate(fd, _ROWS * (_COUNTS_AT + 4 * workers))
        return fd

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other processes out; the kernel lets go for a process that dies (fcntl(2))."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def find(self, key: bytes, now: float, but: int | None = None) -> int | None:
        """Return where the row of a key is, taking a free one for a new key; None when there is none.

        `but` is a row that is not free, although nothing is counted there yet.
        """
        first = int.from_bytes(key, "big") % _ROWS
        free = None
        for probe in range(_PROBES):
            at = (first + probe) % _ROWS * self._row_bytes
            known = self._memory[at : at + _KEY_BYTES]
            if known == key:
                return at
            is_new = known == _NO_KEY
            if free is None and at != but and (is_new or self._is_over(at, now)):
                free = at
            if is_new:
                break  # rows are taken over, never emptied: nothing of this key is behind a new one
        if free is not None:
            self._memory[free : free + self._row_bytes] = bytes(self._row_bytes)
            self._memory[free : free + _KEY_BYTES] = key
        return free

    def _is_over(self, row: int, now: float) -> bool:
        _, _, full_at = _BUCKET.unpack_from(self._memory, row + _KEY_BYTES)
        return bool(full_at <= now) and self.total(row) == 0

    def total(self, row: int) -> int:
        """Return the count of all workers."""
        return sum(self._counts.unpack_from(self._memory, row + _COUNTS_AT))

    def add(self, row: int, change: int) -> None:
        """Change this worker's count."""
        at = row + self._mine_at
        count = int.from_bytes(self._memory[at : at + 4], "little") + change
        self._memory[at : at + 4] = max(0, count).to_bytes(4, "little")

    def take_token(self, row: int, rate: Rate, now: float) -> bool:
        """Take one from the row's bucket, if there is one."""
        at = row + _KEY_BYTES
        tokens, since, _ = _BUCKET.unpack_from(self._memory, at)
        bucket = TokenBucket(tokens, since) if since else TokenBucket(float(rate.count), now)
        allowed = bucket.take(rate, now)
        full_at = now + (rate.count - bucket.tokens) * rate.period_s / rate.count
        _BUCKET.pack_into(self._memory, at, bucket.tokens, now, full_at)
        return allowed

    def forget_worker(self, index: int) -> None:
        """Take back what a worker that has died had counted."""
        with self.locked():
            for row in range(0, _ROWS * self._row_bytes, self._row_bytes):
                at = row + _COUNTS_AT + 4 * index
                if self._memory[at : at + 4] != b"\0\0\0\0":
                    self._memory[at : at + 4] = b"\0\0\0\0"


class SharedLimits:
    """One relay's counts in the table.

    Without any bound nothing is counted, and no lock is taken.
    """

    def __init__(self, table: SharedTable, relay: str) -> None:
        self._table = table
        self._relay = relay
        self._total_key = self._key("\0")  # no source: that of a Unix socket's peers is ""
        self._counted: Counter[str] = Counter()

    def admit(self, source: str, bounds: Bounds, now: float) -> Refusal | None:
        """Count a new connection in, or say which bound it would break.

        A source for which the table has no room is bound by the total alone.
        """
        if bounds == Bounds():
            return None
        table = self._table
        with table.locked():
            total = table.find(self._total_key, now)
            row = table.find(self._key(source), now, but=total)
            if bounds.total and total is not None and table.total(total) >= bounds.total:
                return "max_connections"
            if row is not None and bounds.per_source and table.total(row) >= bounds.per_source:
                return "max_connections_per_source"
            if row is not None and bounds.rate and not table.take_token(row, bounds.rate, now):
                return "max_rate_per_source"
            self._add(total, row, 1)
        self._counted[source] += 1
        return None

    def release(self, source: str) -> None:
        """Count one out that was admitted."""
        if not self._counted[source]:
            del self._counted[source]  # admitted when there was no bound
            return
        self._counted[source] -= 1
        if not self._counted[source]:
            del self._counted[source]
        with self._table.locked():
            self._add(self._table.find(self._total_key, 0.0), self._table.find(self._key(source), 0.0), -1)

    def _add(self, total: int | None, row: int | None, change: int) -> None:
        for each in (total, row):
            if each is not None:
                self._table.add(each, change)

    def _key(self, source: str) -> bytes:
        return blake2b(f"{self._relay}\0{source}".encode(), digest_size=_KEY_BYTES).digest()
