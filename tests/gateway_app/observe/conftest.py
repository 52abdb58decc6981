from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Scope

from gateway_app.exchange import Exchange
from gateway_app.observe.exposition import render
from gateway_app.observe.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    metrics = Metrics(tmp_path)
    yield metrics
    metrics.close()


@pytest.fixture
def scrape(tmp_path: Path) -> Callable[..., float | None]:
    """Returns the value of one sample, as Prometheus' own parser reads it."""

    def value(name: str, **labels: str) -> float | None:
        text = render(tmp_path, "")[0].decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"l47_gateway_{name}" and sample.labels == labels:
                    return sample.value
        return None

    return value


@pytest.fixture
def finished() -> tuple[Exchange, Scope]:
    exchange = Exchange("id-1", "192.0.2.1", "https", 100.0, 1)
    exchange.host, exchange.path, exchange.status, exchange.bytes_out = "example.com", "/a", 200, 5
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/a",
        "query_string": b"token=secret",
        "headers": [(b"user-agent", b"curl/8")],
        "gateway": exchange,
    }
    return exchange, scope
