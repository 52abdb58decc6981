"""`[backends.NAME]`: where requests go, and how carefully; part of the model of `routes.toml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway_app.config.base import Table
from gateway_app.config.quantities import Duration, PositiveDuration
from gateway_app.config.values import (
    AppPath,
    EndpointUrl,
    FilePath,
    HashKey,
    HostField,
    Method,
    Name,
    RetryCause,
    UrlPath,
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

Balance = Literal["round_robin", "least_requests", "power_of_two", "ewma", "hash", "random"]


class EndpointConfig(Table):
    """One address of a backend; a bare text in the file is its `url`."""

    url: EndpointUrl
    """"http://host:port", "https://host:port", "http+unix:/path", "asgi:module:app" or "wsgi:module:app"."""
    weight: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    """Its share of the traffic, in proportion to the others."""
    backup: bool = False
    """Used only while no other endpoint is available."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class TimeoutConfig(Table):
    """`[backends.NAME.timeout]`: how long each part of an upstream request may take, in seconds."""

    connect: PositiveDuration = 1.0
    """Until the connection is there, TLS included."""
    response: PositiveDuration = 30.0
    """Until the answer's first byte."""
    idle: PositiveDuration = 60.0
    """Between two pieces of a body, in either direction."""
    total: PositiveDuration | None = None
    """For everything, retries included; by default unlimited."""


class RetryConfig(Table):
    """`[backends.NAME.retry]`: when a failed request is sent again."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """Attempts beyond the first; another endpoint where there is one."""
    on: tuple[RetryCause, ...] = ("connect", "reset", "502", "503", "504")
    """What is retried: "connect", "reset", "timeout" and statuses such as "503"."""
    methods: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
    """Methods that are retried once an endpoint may have seen the request."""
    budget: Share = 0.2
    """The share that retries may add to the traffic."""


class HealthConfig(Table):
    """`[backends.NAME.health]`: asking each endpoint whether it is well."""

    path: UrlPath
    """What is asked for with GET; a status from 200 to 399 is well."""
    interval: PositiveDuration = 5.0
    """Time between two questions to one endpoint."""
    timeout: PositiveDuration = 1.0
    """How long an answer may take."""
    healthy_after: Count = 2
    """Good answers in a row that bring an endpoint back."""
    unhealthy_after: Count = 3
    """Bad ones in a row that take it out."""


class OutlierConfig(Table):
    """`[backends.NAME.outlier]`: taking out endpoints that fail requests."""

    consecutive_failures: Count = 5
    """Failed requests in a row that take an endpoint out."""
    eject_for: PositiveDuration = 30.0
    """How long it stays out."""
    max_ejected: Share = 0.5
    """The share of the endpoints that may be out at a time."""


class BackendTlsConfig(Table):
    """`[backends.NAME.tls]`: how https endpoints are verified, and how the gateway shows who it is."""

    ca: FilePath | None = None
    """File with the certificates to trust, in place of the system's."""
    cert: FilePath | None = None
    """File with the client certificate to show."""
    key: FilePath | None = None
    """File with its key."""
    server_name: Name | None = None
    """The name to verify and to send as SNI, in place of the URL's host."""
    verify: bool = True
    """Whether certificates are verified; false is for tests only."""


def _each_once(endpoints: tuple[EndpointConfig, ...]) -> tuple[EndpointConfig, ...]:
    urls = [endpoint.url for endpoint in endpoints]
    if twice := [url for url in dict.fromkeys(urls) if urls.count(url) > 1]:
        raise ValueError(f'expected each endpoint once; a "weight" gives {", ".join(twice)} more traffic')
    return endpoints


class BackendConfig(Table):
    """`[backends.NAME]`: a named group of endpoints."""

    endpoints: Annotated[tuple[EndpointConfig, ...], Field(min_length=1), AfterValidator(_each_once)]
    """Where its requests go."""
    balance: Balance = "round_robin"
    """How an endpoint is chosen."""
    hash_on: HashKey = "client"
    """What "hash" is made of: "client", "path", "header:NAME" or "cookie:NAME"."""
    max_connections: Count = 256
    """Connections to one endpoint, in each worker."""
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait for a connection to one endpoint; more are 503 at once."""
    keep_alive: Duration = 4.0
    """How long an idle connection is kept; less than what the endpoints do."""
    host: HostField = "pass"
    """The Host field sent: "pass" is the client's, "endpoint" the endpoint's own, else this text."""
    transport: AppPath | None = None
    """"package.module:factory" of an httpx.AsyncBaseTransport that carries the requests."""
    timeout: TimeoutConfig = TimeoutConfig()
    """How long each part of a request may take."""
    retry: RetryConfig | None = None
    """When a failed request is sent again; without it, only what no endpoint can have seen."""
    health: HealthConfig | None = None
    """Asking endpoints whether they are well."""
    outlier: OutlierConfig | None = None
    """Taking out endpoints that fail requests."""
    tls: BackendTlsConfig | None = None
    """For https endpoints."""
