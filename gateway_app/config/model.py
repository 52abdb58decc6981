"""What `routes.toml` may say: one frozen class for each table, with its defaults.

Read from the file, values are taken strictly as TOML types them ("1" is no number), durations and sizes with
their unit. Built in Python, durations are seconds, sizes are bytes and lists are tuples. References between
tables (does the backend exist?) are `references`' work, since they are checked even where a table is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from gateway_app.config.backends import BackendConfig
from gateway_app.config.base import Table
from gateway_app.config.errors import ConfigError, KeyPath, closest
from gateway_app.config.quantities import Duration, Size
from gateway_app.config.source import Source
from gateway_app.config.values import (
    HttpStatus,
    IpAddress,
    ListenAddress,
    Method,
    Name,
    StateStore,
    Token,
    TrustedProxy,
)

Scalar = str | int | float | bool | None


class Settings(Table):
    """`[gateway]`: the gateway as a whole."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"tls"})

    listen: Annotated[tuple[ListenAddress, ...], Field(min_length=1)] = ("127.0.0.1:8080",)
    """Where `gateway serve` listens: "127.0.0.1:8080", "[::1]:8080" or "unix:/run/gateway.sock"."""
    server: Literal["hypercorn", "granian"] = "hypercorn"
    """What `gateway serve` serves with; granian is the faster one and listens on one address."""
    workers: Annotated[int, Field(ge=1, le=512)] = 1
    """Processes that serve."""
    trusted_proxies: tuple[TrustedProxy, ...] = ()
    """Networks whose Forwarded and X-Forwarded-* fields are believed; "unix:" for peers of Unix sockets."""
    accept_proxy_protocol: bool = False
    """Connections from `trusted_proxies` have to begin with a PROXY header, version 1 or 2."""
    middleware: tuple[str, ...] = ()
    """Names of middlewares that run for every route, outermost first, before the route's own."""
    access_log: Literal["json", "text", "off"] = "json"
    """How each request is logged on standard output."""
    max_body: Size = 10_000_000
    """The largest request body; more is 413. A `body_limit` middleware may allow more."""
    drain: Duration = 30.0
    """How long a stop waits for requests in flight."""
    encoded_slashes: Literal["refuse", "keep"] = "refuse"
    """%2F and %5C in a path: 400, or kept as data that separates nothing."""
    path_parameters: Literal["refuse", "keep"] = "refuse"
    """";x" in a path segment: 400, or kept; kept ones do not count in matching."""
    via: Token | None = None
    """The gateway's name in Via, by which it knows loops; by default made from host name and file."""


class AdminConfig(Table):
    """`[admin]`: metrics and status, on a listener of their own. Without the table there is none."""

    listen: ListenAddress = "127.0.0.1:9090"
    """Where metrics and status are; keep it off public addresses."""


class StateConfig(Table):
    """`[state]`: where counters live that outlast a request."""

    store: StateStore = "memory"
    """"memory": in each worker for itself."""


class MiddlewareConfig(Table):
    """`[middleware.NAME]`: a class and its keyword arguments: every key of the file but `type`."""

    type: str
    """A built-in middleware, or "package.module:Class" of any ASGI middleware."""
    options: Mapping[str, Any] = {}
    """Its keyword arguments."""

    @model_validator(mode="before")
    @classmethod
    def _options_beside_type(cls, value: Any, info: ValidationInfo) -> Any:
        if info.mode != "json" or not isinstance(value, dict):
            return value
        if "type" not in value:  # then nobody knows the options; what may be a misspelt "type" is reported
            return {key: option for key, option in value.items() if closest(key, ("type",))}
        options = {key: option for key, option in value.items() if key != "type"}
        return {"type": value["type"], "options": options}


class MatchConfig(Table):
    """`match`: the conditions of a route; all that are given must hold."""

    host: Name | None = None
    """"api.example.com", or "*.example.com" for every name below it; without port."""
    path: Name | None = None
    """"/about", "/api/*" by whole segments, "/users/{id}", or "~^/v[12]/", a regular expression."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ()
    """One of these."""
    headers: Mapping[str, str] = {}
    """Field name to value: "1", "~^v[12]$" or "*" for any; all must hold."""
    cookies: Mapping[str, str] = {}
    """Cookie name to value, likewise."""
    query: Mapping[str, str] = {}
    """Query parameter to value, likewise."""
    json_body: Annotated[Mapping[str, Scalar], Field(alias="json")] = {}
    """JSON pointer to value, in a body of which no more than 64 KiB are looked at."""


class RouteConfig(Table):
    """`[[routes]]`: which requests, through which middlewares, to where.

    Exactly one of `backend`, `redirect` and `respond` is set; the latter two are the options of the
    middlewares of these names, which then answer in place of a backend.
    """

    name: Name
    """What logs, metrics and tests call it; unique."""
    match: MatchConfig = MatchConfig()
    """The conditions; without any, every request."""
    middleware: tuple[str, ...] = ()
    """Names of middlewares, outermost first, after those of [gateway]."""
    backend: str | None = None
    """Name of the backend that answers."""
    redirect: Mapping[str, Any] | None = None
    """Answer with a redirect: the options of that middleware."""
    respond: Mapping[str, Any] | None = None
    """Answer with a fixed text: the options of that middleware."""

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
    """As on the wire."""
    url: Name
    """Absolute, a path with its query, or "*"; the host is then "localhost"."""
    headers: Mapping[str, str] = {}
    """Fields to send."""
    cookies: Mapping[str, str] = {}
    """Cookies to send."""
    json_body: Annotated[Any, Field(alias="json")] = None
    """A body, sent as JSON."""
    client: IpAddress = "127.0.0.1"
    """The IP address that it comes from."""


class TestExpectConfig(Table):
    """`expect` of a `[[test]]`: what is given must be so."""

    route: str | None = None
    """Name of the route."""
    backend: str | None = None
    """Name of the backend that it is forwarded to."""
    middleware: tuple[str, ...] | None = None
    """Names of all middlewares that run, outermost first."""
    path: Name | None = None
    """The path that is forwarded; with "?", the query too."""
    status: HttpStatus | None = None
    """The status that the gateway itself answers with."""
    header: Mapping[str, str] = {}
    """Fields of the gateway's answer."""


class TestConfig(Table):
    """`[[test]]`: a request and what must become of it, checked before the configuration is used."""

    name: Name
    """Shown when it fails; unique."""
    request: TestRequestConfig
    """What is sent, in thought only."""
    expect: TestExpectConfig
    """What must become of it."""


class GatewayConfig(Table):
    """A whole file."""

    gateway: Settings = Settings()
    """The gateway as a whole."""
    admin: AdminConfig | None = None
    """The admin listener; without the table there is none."""
    state: StateConfig = StateConfig()
    """Where counters live that outlast a request."""
    backends: Mapping[Name, BackendConfig] = {}
    """Where requests go, by name."""
    middleware: Mapping[Name, MiddlewareConfig] = {}
    """What they run through, by name."""
    routes: tuple[RouteConfig, ...] = ()
    """Which requests go where."""
    tests: Annotated[tuple[TestConfig, ...], Field(alias="test")] = ()
    """Checked before the file is used."""
    relay: tuple[dict[str, Any], ...] = ()
    """Layer 4: read by l4relay."""
    l4relay: Mapping[str, Any] = {}
    """The relay's process: read by l4relay."""

    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """The text that this was read from; empty if it was built in Python."""
        return self._source

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Return the error `message` at `path`, such as `("routes", 0, "match")`, with file and line."""
        return self._source.error(path, message)
