"""What `routes.toml` may say: one frozen class for each table, with its defaults.

Read from the file, values are taken strictly as TOML types them ("1" is no number), durations and sizes with
their unit. Built in Python, durations are seconds, sizes are bytes and lists are tuples. References between
tables (does the backend exist?) are `references`' work, since they are checked even where a table is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from gateway_app.config.errors import ConfigError, KeyPath
from gateway_app.config.quantities import Duration, PositiveDuration, Size
from gateway_app.config.source import Source
from gateway_app.config.values import (
    AppPath,
    EndpointUrl,
    FilePath,
    HashKey,
    HttpStatus,
    ListenAddress,
    Method,
    Name,
    Network,
    RetryCause,
    StateStore,
    Token,
    UrlPath,
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Scalar = str | int | float | bool | None

Balance = Literal["round_robin", "least_requests", "power_of_two", "ewma", "hash", "random"]


class Table(BaseModel):
    """A table of the file. A key that it does not name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Keys of the agreed format that this version does not build yet: refused, never ignored."""


class Settings(Table):
    """`[gateway]`: the gateway as a whole."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"tls"})

    listen: Annotated[tuple[ListenAddress, ...], Field(min_length=1)] = ("127.0.0.1:8080",)
    server: Literal["hypercorn", "granian"] = "hypercorn"
    workers: Annotated[int, Field(ge=1, le=512)] = 1
    trusted_proxies: tuple[Network, ...] = ()
    middleware: tuple[str, ...] = ()
    access_log: Literal["json", "text", "off"] = "json"
    max_body: Size = 10_000_000
    drain: Duration = 30.0
    encoded_slashes: Literal["refuse", "keep"] = "refuse"
    path_parameters: Literal["refuse", "keep"] = "refuse"
    via: Token | None = None


class AdminConfig(Table):
    """`[admin]`: metrics and status, on a listener of their own. Without the table there is none."""

    listen: ListenAddress = "127.0.0.1:9090"


class StateConfig(Table):
    """`[state]`: where counters live that outlast a request."""

    store: StateStore = "memory"


class EndpointConfig(Table):
    """One address of a backend; a bare text in the file is its `url`."""

    url: EndpointUrl
    weight: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    backup: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class TimeoutConfig(Table):
    """`[backends.NAME.timeout]`: how long each part of an upstream request may take, in seconds."""

    connect: PositiveDuration = 1.0
    response: PositiveDuration = 30.0
    idle: PositiveDuration = 60.0
    total: PositiveDuration | None = None


class RetryConfig(Table):
    """`[backends.NAME.retry]`: when a failed request is sent again."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    on: tuple[RetryCause, ...] = ("connect", "reset", "502", "503", "504")
    methods: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
    budget: Share = 0.2


class HealthConfig(Table):
    """`[backends.NAME.health]`: asking each endpoint whether it is well."""

    path: UrlPath
    interval: PositiveDuration = 5.0
    timeout: PositiveDuration = 1.0
    healthy_after: Count = 2
    unhealthy_after: Count = 3


class OutlierConfig(Table):
    """`[backends.NAME.outlier]`: taking out endpoints that fail requests."""

    consecutive_failures: Count = 5
    eject_for: PositiveDuration = 30.0
    max_ejected: Share = 0.5


class BackendTlsConfig(Table):
    """`[backends.NAME.tls]`: how https endpoints are verified, and how the gateway shows who it is."""

    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    server_name: Name | None = None
    verify: bool = True


class BackendConfig(Table):
    """`[backends.NAME]`: a named group of endpoints."""

    endpoints: Annotated[tuple[EndpointConfig, ...], Field(min_length=1)]
    balance: Balance = "round_robin"
    hash_on: HashKey = "client"
    max_connections: Count = 256
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    keep_alive: Duration = 4.0
    host: Name = "pass"
    transport: AppPath | None = None
    timeout: TimeoutConfig = TimeoutConfig()
    retry: RetryConfig | None = None
    health: HealthConfig | None = None
    outlier: OutlierConfig | None = None
    tls: BackendTlsConfig | None = None


class MiddlewareConfig(Table):
    """`[middleware.NAME]`: a class and its keyword arguments: every key of the file but `type`."""

    type: str
    options: Mapping[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _options_beside_type(cls, value: Any, info: ValidationInfo) -> Any:
        if info.mode != "json" or not isinstance(value, dict) or "type" not in value:
            return value
        options = {key: option for key, option in value.items() if key != "type"}
        return {"type": value["type"], "options": options}


class MatchConfig(Table):
    """`match`: the conditions of a route; all that are given must hold."""

    host: Name | None = None
    path: Name | None = None
    methods: tuple[Method, ...] = ()
    headers: Mapping[str, str] = {}
    cookies: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    json_body: Annotated[Mapping[str, Scalar], Field(alias="json")] = {}


class RouteConfig(Table):
    """`[[routes]]`: which requests, through which middlewares, to where.

    Exactly one of `backend`, `redirect` and `respond` is set; the latter two are the options of the
    middlewares of these names, which then answer in place of a backend.
    """

    name: Name
    match: MatchConfig = MatchConfig()
    middleware: tuple[str, ...] = ()
    backend: str | None = None
    redirect: Mapping[str, Any] | None = None
    respond: Mapping[str, Any] | None = None

    @property
    def answer(self) -> MiddlewareConfig | None:
        """The middleware that answers in place of a backend, None if the route has a backend."""
        if self.redirect is not None:
            return MiddlewareConfig(type="redirect", options=self.redirect)
        if self.respond is not None:
            return MiddlewareConfig(type="respond", options=self.respond)
        return None


class TestRequestConfig(Table):
    """`request` of a `[[test]]`: sent through the gateway in thought only."""

    method: Method = "GET"
    url: Name
    headers: Mapping[str, str] = {}
    cookies: Mapping[str, str] = {}
    json_body: Annotated[Any, Field(alias="json")] = None
    client: Name = "127.0.0.1"


class TestExpectConfig(Table):
    """`expect` of a `[[test]]`: what is given must be so."""

    route: str | None = None
    backend: str | None = None
    middleware: tuple[str, ...] | None = None
    path: Name | None = None
    status: HttpStatus | None = None
    header: Mapping[str, str] = {}


class TestConfig(Table):
    """`[[test]]`: a request and what must become of it, checked before the configuration is used."""

    name: Name
    request: TestRequestConfig
    expect: TestExpectConfig


class GatewayConfig(Table):
    """A whole file."""

    gateway: Settings = Settings()
    admin: AdminConfig | None = None
    state: StateConfig = StateConfig()
    backends: Mapping[Name, BackendConfig] = {}
    middleware: Mapping[Name, MiddlewareConfig] = {}
    routes: tuple[RouteConfig, ...] = ()
    tests: Annotated[tuple[TestConfig, ...], Field(alias="test")] = ()
    relay: tuple[dict[str, Any], ...] = ()
    l4relay: Mapping[str, Any] = {}

    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """The text that this was read from; empty if it was built in Python."""
        return self._source

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Return the error `message` at `path`, such as `("routes", 0, "match")`, with file and line."""
        return self._source.error(path, message)
