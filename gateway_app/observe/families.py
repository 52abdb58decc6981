"""All metric families of the gateway: one table, which docs/operations.md is checked against.

Names follow Prometheus' conventions: base units, `_total` for counters (left out here, as the exposition
adds it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
Merge = Literal["sum", "min", "max"]

PREFIX: Final = "l47_gateway_"

DURATION_BOUNDS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family.

    Attributes:
        name: without `_total`.
        kind: a histogram's numbers are the counts of its buckets and the sum, a summary's are count and sum.
        help: what it counts, for people.
        labels: names of its labels.
        merge: how the workers' values become one; counters, histograms and summaries are summed.

    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"


FAMILIES: Final[dict[str, Family]] = {}


def _family(name: str, kind: Kind, text: str, labels: tuple[str, ...] = (), merge: Merge = "sum") -> str:
    FAMILIES[PREFIX + name] = Family(PREFIX + name, kind, text, labels, merge)
    return PREFIX + name


_ROUTE: Final = ("route",)
_ENDPOINT: Final = ("backend", "endpoint")

REQUESTS: Final = _family(
    "requests",
    "counter",
    "Requests answered; route and backend are empty if none was found.",
    ("route", "backend", "code"),
)
DURATION: Final = _family(
    "request_duration_seconds", "histogram", "From a request's arrival to the end of its answer.", _ROUTE
)
REQUEST_BYTES: Final = _family("request_body_bytes", "counter", "Bytes of request bodies read.", _ROUTE)
RESPONSE_BYTES: Final = _family("response_body_bytes", "counter", "Bytes of response bodies sent.", _ROUTE)
IN_FLIGHT: Final = _family("requests_in_flight", "gauge", "Requests that are being served now.")
ERRORS: Final = _family(
    "errors", "counter", "Requests that failed or were refused in the gateway, by cause.", ("route", "cause")
)
REFUSALS: Final = _family(
    "middleware_refusals", "counter", "Requests that a middleware refused.", ("middleware", "cause")
)

ATTEMPTS: Final = _family("upstream_attempts", "counter", "Requests sent to an endpoint.", _ENDPOINT)
FAILURES: Final = _family(
    "upstream_failures", "counter", "Requests sent to an endpoint that it failed.", _ENDPOINT
)
FIRST_BYTE: Final = _family(
    "upstream_first_byte_seconds",
    "summary",
    "From the start of the last attempt to the answer's first byte.",
    _ENDPOINT,
)
RETRIES: Final = _family("upstream_retries", "counter", "Attempts after the first.", ("backend",))
CONNECTIONS: Final = _family(
    "upstream_connections", "gauge", "Connections to an endpoint.", (*_ENDPOINT, "state")
)
WAITING: Final = _family(
    "upstream_requests_waiting", "gauge", "Requests that wait for a connection to an endpoint.", _ENDPOINT
)
ENDPOINT_REQUESTS: Final = _family(
    "upstream_requests_in_flight", "gauge", "Requests that an endpoint is answering now.", _ENDPOINT
)
ENDPOINT_UP: Final = _family(
    "upstream_endpoint_up", "gauge", "1 unless health checks found the endpoint down.", _ENDPOINT, "min"
)
ENDPOINT_EJECTED: Final = _family(
    "upstream_endpoint_ejected",
    "gauge",
    "1 while a worker keeps the endpoint out for its failures.",
    _ENDPOINT,
    "max",
)

LOG_DROPPED: Final = _family(
    "access_log_dropped", "counter", "Access log lines lost because they could not be written in time."
)
RELOADS: Final = _family(
    "config_reloads", "counter", "Reloads of the configuration, by result: ok or failed.", ("result",)
)
CONFIG_LOADED: Final = _family(
    "config_loaded_timestamp_seconds",
    "gauge",
    "When the worker that is furthest behind took over its configuration.",
    (),
    "min",
)

SUMMED: Final = frozenset(family.name for family in FAMILIES.values() if family.kind != "gauge")
"""What stays when a worker ends."""
