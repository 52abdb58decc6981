"""The metrics of one worker: what the hot path adds to, and what others register.

Everything is kept in numbers that all workers can read (`shared_values`); `exposition` renders their sums.
What changes on its own (connections, health) is not counted along the way but sampled: see `add_sampler`.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway_app.observe import families
from gateway_app.observe.families import DURATION_BOUNDS_S, FAMILIES, SUMMED
from gateway_app.observe.shared_values import Key, ValueWriter, retire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway_app.observe.shared_values import Block
    from gateway_app.upstream.endpoint import Endpoint

logger = logging.getLogger(__name__)

_KNOWN_CODES: Final = frozenset(status.value for status in HTTPStatus) | {499}
_NO_ANSWER: Final = 499

# Where the numbers of a route stand in its block: the buckets, the sum of durations, the bytes.
_SUM: Final = len(DURATION_BOUNDS_S) + 1
_BYTES_IN: Final = _SUM + 1
_BYTES_OUT: Final = _SUM + 2
_ROUTE_SIZE: Final = _SUM + 3


class Cell:
    """One number of this worker: a counter's or a gauge's."""

    __slots__ = ("_slot", "_values")

    def __init__(self, block: Block) -> None:
        self._values = block.values
        self._slot = block.base

    def add(self, amount: float = 1.0) -> None:
        """Add to it."""
        self._values[self._slot] += amount

    def set(self, value: float) -> None:
        """Replace it."""
        self._values[self._slot] = value

    @property
    def value(self) -> float:
        """What it is now."""
        return self._values[self._slot]


class RouteMetrics:
    """What is counted of one route's requests. Its numbers are allocated with its first request."""

    __slots__ = ("_base", "_codes", "_metrics", "_route", "_values")

    def __init__(self, metrics: Metrics, route: str) -> None:
        self._metrics = metrics
        self._route = route
        self._values: memoryview[float] | None = None
        self._base = 0
        self._codes: dict[tuple[str, int], Block] = {}

    def observe(self, backend: str, status: int, duration_s: float, bytes_in: int, bytes_out: int) -> None:
        """Count one finished request; status 0 is one whose client did not wait for the answer."""
        values = self._values
        if values is None:
            values = self._allocate()
        base = self._base
        values[base + bisect_left(DURATION_BOUNDS_S, duration_s)] += 1.0
        values[base + _SUM] += duration_s
        if bytes_in:
            values[base + _BYTES_IN] += bytes_in
        if bytes_out:
            values[base + _BYTES_OUT] += bytes_out
        code_values, slot, _ = self._codes.get((backend, status)) or self._allocate_code(backend, status)
        code_values[slot] += 1.0

    def _allocate(self) -> memoryview[float]:
        writer, labels = self._metrics.writer, (self._route,)
        block = writer.allocate(_ROUTE_SIZE)
        writer.describe((families.DURATION, labels), block.slot, _SUM + 1)
        writer.describe((families.REQUEST_BYTES, labels), block.slot + _BYTES_IN, 1)
        writer.describe((families.RESPONSE_BYTES, labels), block.slot + _BYTES_OUT, 1)
        self._values, self._base = block.values, block.base
        return block.values

    def _allocate_code(self, backend: str, status: int) -> Block:
        code = str(status or _NO_ANSWER)
        if status not in _KNOWN_CODES and status:
            code = f"{status // 100}xx"  # a backend that invents codes makes no more series
        block = self._metrics.block(families.REQUESTS, (self._route, backend, code), 1)
        self._codes[backend, status] = block
        return block


class EndpointMetrics:
    """What is counted of one endpoint of a backend, and how it stands."""

    __slots__ = (
        "_active",
        "_attempts",
        "_ejected",
        "_failures",
        "_idle",
        "_in_flight",
        "_up",
        "_waited",
        "_waiting",
    )

    def __init__(self, metrics: Metrics, backend: str, endpoint: str) -> None:
        def cell(family: str, *more: str) -> Cell:
            return metrics.cell(family, backend, endpoint, *more)

        self._waited = metrics.block(families.FIRST_BYTE, (backend, endpoint), 2)
        self._attempts = cell(families.ATTEMPTS)
        self._failures = cell(families.FAILURES)
        self._in_flight = cell(families.ENDPOINT_REQUESTS)
        self._active = cell(families.CONNECTIONS, "active")
        self._idle = cell(families.CONNECTIONS, "idle")
        self._waiting = cell(families.WAITING)
        self._up = cell(families.ENDPOINT_UP)
        self._ejected = cell(families.ENDPOINT_EJECTED)
        self.clear()

    def sample(self, endpoint: Endpoint) -> None:
        """Note how the endpoint stands now."""
        values, base, _ = self._waited
        values[base] = endpoint.answers
        values[base + 1] = endpoint.answer_wait_s
        self._attempts.set(endpoint.requests)
        self._failures.set(endpoint.failures)
        self._in_flight.set(endpoint.active)
        connections = endpoint.transport.status()
        idle = connections.get("idle", 0)
        self._active.set(connections.get("open", 0) - idle)
        self._idle.set(idle)
        self._waiting.set(connections.get("waiting", 0))
        self._up.set(not endpoint.down)
        self._ejected.set(endpoint.ejected_until > 0.0)

    def clear(self) -> None:
        """Note that nothing is known of it, so that no gauge is shown: a reload may have removed it."""
        for gauge in (self._in_flight, self._active, self._idle, self._waiting, self._up, self._ejected):
            gauge.set(math.nan)


class Metrics:
    """One worker's metrics. The same labels always give the same numbers, so a reload continues them.

    Args:
        directory: the one that all workers of the gateway share; see `run_directory`.

    Attributes:
        in_flight: requests between `Edge.admit` and `Edge.finish`; the edge counts it.
        unrouted: of the requests that no route wanted.

    """

    def __init__(self, directory: Path) -> None:
        retire(directory, summed=SUMMED)
        self.directory = directory
        self.writer = ValueWriter(directory)
        self.in_flight = 0
        self._cells: dict[Key, Cell] = {}
        self._blocks: dict[Key, Block] = {}
        self._routes: dict[str, RouteMetrics] = {}
        self._endpoints: dict[tuple[str, str], EndpointMetrics] = {}
        self._samplers: list[Callable[[], None]] = []
        self._failing: set[Callable[[], None]] = set()
        self.unrouted = self.route("")
        in_flight = self.cell(families.IN_FLIGHT)
        self.add_sampler(lambda: in_flight.set(self.in_flight))

    def route(self, route: str) -> RouteMetrics:
        """Return what counts the requests of the route of this name."""
        return self._routes.get(route) or self._routes.setdefault(route, RouteMetrics(self, route))

    def endpoint(self, backend: str, endpoint: str) -> EndpointMetrics:
        """Return what counts the requests to this endpoint of the backend."""
        key = (backend, endpoint)
        return self._endpoints.get(key) or self._endpoints.setdefault(key, EndpointMetrics(self, *key))

    def cell(self, family: str, *labels: str) -> Cell:
        """Return the number of this worker for a counter or gauge of `families`, with these label values."""
        key = (family, labels)
        return self._cells.get(key) or self._cells.setdefault(key, Cell(self.block(family, labels, 1)))

    def block(self, family: str, labels: tuple[str, ...], size: int) -> Block:
        """Return the `size` numbers of a series."""
        key = (family, labels)
        if key not in self._blocks:
            if len(labels) != len(FAMILIES[family].labels):
                raise ValueError(f"{family} has the labels {FAMILIES[family].labels}, not {labels}")
            block = self.writer.allocate(size)
            self.writer.describe(key, block.slot, size)
            self._blocks[key] = block
        return self._blocks[key]

    def count_error(self, route: str, cause: str) -> None:
        """Count what went wrong with a request of the route, by its cause's token."""
        self.cell(families.ERRORS, route, cause).add()

    def count_retries(self, backend: str, count: int) -> None:
        """Count attempts after the first."""
        self.cell(families.RETRIES, backend).add(count)

    def refusals(self, middleware: str, cause: str) -> Cell:
        """Return the counter of what the middleware of this name refuses for this cause."""
        return self.cell(families.REFUSALS, middleware, cause)

    def add_sampler(self, sampler: Callable[[], None]) -> None:
        """Have `sampler` called, about once a second and before a scrape, to set gauges."""
        self._samplers.append(sampler)

    def remove_sampler(self, sampler: Callable[[], None]) -> None:
        """Undo `add_sampler`."""
        self._samplers.remove(sampler)
        self._failing.discard(sampler)

    def sample(self) -> None:
        """Bring the gauges up to date."""
        self.writer.flush()
        for sampler in self._samplers:
            try:
                sampler()
            except Exception as error:  # one that fails must not keep the others, or a scrape, from going on
                if sampler not in self._failing:  # else it has been told
                    self._failing.add(sampler)
                    trace = None if isinstance(error, OSError) else error
                    logger.error("a sampler has failed: %s", error, exc_info=trace)
            else:
                self._failing.discard(sampler)

    def close(self) -> None:
        """Stop counting; what was counted stays readable for the other workers."""
        self.writer.close()
