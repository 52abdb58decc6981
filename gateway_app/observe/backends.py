"""Samples the endpoints of all backends into the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway_app.observe.metrics import EndpointMetrics, Metrics
    from gateway_app.upstream.endpoint import Endpoint


class HasEndpoints(Protocol):
    """What is asked of a backend."""

    name: str

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """The endpoints that it has now."""


class BackendSampler:
    """A sampler for `Metrics.add_sampler`.

    Args:
        metrics: where the samples go.
        backends: gives the backends of the snapshot that is in use.

    """

    def __init__(self, metrics: Metrics, backends: Callable[[], Iterable[HasEndpoints]]) -> None:
        self._metrics = metrics
        self._backends = backends
        self._shown: set[EndpointMetrics] = set()

    def __call__(self) -> None:
        """Note how every endpoint stands; those that a reload has removed are shown no more."""
        shown: set[EndpointMetrics] = set()
        for backend in self._backends():
            for endpoint in backend.endpoints:
                sampled = self._metrics.endpoint(backend.name, endpoint.key)
                sampled.sample(endpoint)
                shown.add(sampled)
        for gone in self._shown - shown:
            gone.clear()
        self._shown = shown
