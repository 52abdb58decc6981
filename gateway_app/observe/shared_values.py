"""Numbers that one process writes and others read: a mapped file of doubles, and one that names them.

A writer is a worker; adding to a number is a memory access, with no lock and no system call, and what was
counted stays when the worker crashes. An aligned double is read and written whole on the machines we run on.

`NAME.values` is the doubles, `NAME.series` names them: a JSON line `[family, [label value, …], slot, size]`
for each series, written before its slots are used. `NAME` is the worker's `ProcessIdentity` and a random
part.

Where the file system is full the requests go on: numbers that find no room in the file are kept where nobody
else reads them. The room is reserved before it is used, since to write to a page that cannot be had ends a
process (SIGBUS).
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import secrets
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway_app.observe.run_directory import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

Key = tuple[str, tuple[str, ...]]
"""A series: its family's name and its label values."""

VALUE_BYTES: Final = 8
SEGMENT_VALUES: Final = 65_536
"""A file grows by so many; it is sparse, so only pages in use take memory."""

_RESERVED_VALUES: Final = 2048
"""So many get room in the file at a time."""

_RETIRED: Final = "retired"


class Block(NamedTuple):
    """Some numbers next to each other: `values[base]` and on. A `slot` below 0 is in no file."""

    values: memoryview[float]
    base: int
    slot: int


class ValueWriter:
    """The numbers of one process, all zero at first.

    Args:
        directory: the workers' common one.
        name: what its files are called; by default after this process.

    Attributes:
        lacks_room: whether the file system had no room for something, so far.

    """

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self.name = name or f"{ProcessIdentity.of_self()}.{secrets.token_hex(4)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._series = os.open(directory / f"{self.name}.series", flags | os.O_APPEND, 0o600)
        self._file = os.open(directory / f"{self.name}.values", flags, 0o600)
        self._segments: list[tuple[mmap.mmap, memoryview[float]]] = []
        self._free = 0
        self._reserved = 0
        self._unwritten = bytearray()
        self.lacks_room = False

    def allocate(self, size: int) -> Block:
        """Return `size` new numbers, at most `SEGMENT_VALUES`; they have no name yet."""
        try:
            if not self._segments or self._free + size > SEGMENT_VALUES:
                self._add_segment()
            while self._free + size > self._reserved:
                self._reserve()
        except OSError as error:
            self._complain(error)
            return Block(memoryview(array("d", bytes(size * VALUE_BYTES))), 0, -1)
        base, self._free = self._free, self._free + size
        return Block(self._segments[-1][1], base, (len(self._segments) - 1) * SEGMENT_VALUES + base)

    def describe(self, key: Key, slot: int, size: int) -> None:
        """Make `size` numbers from `slot` on known as the series `key`."""
        if slot >= 0:
            self._unwritten += (json.dumps([key[0], key[1], slot, size]) + "\n").encode()
            self.flush()

    def flush(self) -> None:
        """Write the names for which there was no room before, if there is now."""
        try:
            while self._unwritten:
                del self._unwritten[: os.write(self._series, self._unwritten)]
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        """Release the mapping; the files stay for the other workers to read."""
        while self._segments:
            mapping, values = self._segments.pop()
            values.release()
            mapping.close()
        os.close(self._file)
        os.close(self._series)

    def _add_segment(self) -> None:
        offset = len(self._segments) * SEGMENT_VALUES * VALUE_BYTES
        length = SEGMENT_VALUES * VALUE_BYTES
        os.ftruncate(self._file, offset + length)
        mapping = mmap.mmap(self._file, length, offset=offset)
        self._segments.append((mapping, memoryview(mapping).cast("d")))
        self._free = self._reserved = 0

    def _reserve(self) -> None:
        offset = ((len(self._segments) - 1) * SEGMENT_VALUES + self._reserved) * VALUE_BYTES
        os.posix_fallocate(self._file, offset, _RESERVED_VALUES * VALUE_BYTES)
        self._reserved += _RESERVED_VALUES

    def _complain(self, error: OSError) -> None:
        if not self.lacks_room:
            self.lacks_room = True
            logger.error("metrics are incomplete, since there is no room for their numbers: %s", error)


class WorkerValues(NamedTuple):
    """What one worker has written.

    Attributes:
        process: the worker; None for the sums of workers that ended long ago.
        is_running: whether it lives; the gauges of one that does not mean nothing.
        series: the numbers of each series.

    """

    process: ProcessIdentity | None
    is_running: bool
    series: dict[Key, list[float]]


def read_workers(directory: Path) -> list[WorkerValues]:
    """Return what all workers of the gateway have written, ended ones too."""
    with _locked(directory, fcntl.LOCK_SH):
        return [_read(path) for path in sorted(directory.glob("*.series"))]


def retire(directory: Path, *, summed: frozenset[str], at_least: int = 8) -> None:
    """Replace the files of ended workers by one that holds their sums, once there are `at_least` so many.

    Only the families in `summed` are kept: a gauge ends with its worker.
    """
    with _locked(directory, fcntl.LOCK_EX):
        ended = [path for path in directory.glob("*.series") if not _is_running(path)]
        if len(ended) < at_least:
            return
        sums = sum_series([_read(path) for path in ended], summed)
        writer = ValueWriter(directory, f"{_RETIRED}.{secrets.token_hex(4)}")
        try:
            for key, numbers in sums.items():
                block = writer.allocate(len(numbers))
                for index, number in enumerate(numbers, block.base):
                    block.values[index] = number
                writer.describe(key, block.slot, len(numbers))
        finally:
            writer.close()
        useless = [directory / f"{writer.name}.series"] if writer.lacks_room else ended
        for path in useless:
            path.with_suffix(".values").unlink(missing_ok=True)
            path.unlink()


def sum_series(workers: list[WorkerValues], families: frozenset[str]) -> dict[Key, list[float]]:
    """Return the sums over `workers` of each series of `families`."""
    sums: dict[Key, list[float]] = {}
    for worker in workers:
        for key, numbers in worker.series.items():
            if key[0] in families:
                total = sums.get(key)
                sums[key] = numbers if total is None else [a + b for a, b in zip(total, numbers, strict=True)]
    return sums


def _read(path: Path) -> WorkerValues:
    series: dict[Key, list[float]] = {}
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # the last part is empty, or a line being written
        content = path.with_suffix(".values").read_bytes()
    except FileNotFoundError:  # a worker that is just starting
        lines, content = [], b""
    values = array("d", content)
    for line in lines:
        family, labels, slot, size = json.loads(line)
        if slot + size <= len(values):
            series[family, tuple(labels)] = values[slot : slot + size].tolist()
    return WorkerValues(_process(path), _is_running(path), series)


def _process(path: Path) -> ProcessIdentity | None:
    return ProcessIdentity.parse(path.name.partition(".")[0])


def _is_running(path: Path) -> bool:
    process = _process(path)
    return process is not None and process.is_running


@contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    """Keep readers and `retire` apart; writers need no lock."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
