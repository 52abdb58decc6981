"""The kinds of text in `routes.toml` that have a grammar of their own: addresses, paths, names, schemes.

Each is an annotation for a field of the model. Its check raises `ValueError` with what was expected, which
the error at the file's line repeats; what is known but not built yet says so.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from gateway_app.client_address import UNIX
from gateway_app.config.errors import closest, nearest
from gateway_app.problem import GatewayError
from gateway_app.routing.host import normalise_host
from l4relay.addresses import ip_bytes, parse_address, parse_network

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_IMPORT_PATH: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")

_NETWORK_SCHEMES: Final = frozenset({"http", "https"})
_UNIX_SCHEMES: Final = frozenset({"http+unix"})
_APP_SCHEMES: Final = frozenset({"asgi", "wsgi"})
_SCHEMES: Final = _NETWORK_SCHEMES | _UNIX_SCHEMES | _APP_SCHEMES
_SCHEMES_NOT_YET: Final = frozenset({"h2", "h2c", "h3", "grpc", "grpcs", "ws", "wss", "https+unix"})

_RETRY_CAUSES: Final = frozenset({"connect", "reset", "timeout"})
_STORES_NOT_YET: Final = ("machine", "redis", "valkey")


def _listen_address(value: str) -> str:
    parse_address(value, port_zero_allowed=True)
    return value


def _trusted_proxy(value: str) -> str:
    if value == UNIX:
        return value
    if value.startswith(UNIX):
        raise ValueError(f'expected "{UNIX}" alone: the peers of all Unix sockets, whatever their path')
    return str(parse_network(value))


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError('expected a word without spaces, such as "edge-1"')
    return value


def checked_method(value: str) -> str:
    """Return an HTTP method. Raises ValueError."""
    if not _TOKEN.fullmatch(value):
        raise ValueError('expected an HTTP method, such as "GET"')
    if value != value.upper():
        raise ValueError(f'methods are written in capitals: "{value.upper()}"')
    return value


def checked_ip_address(value: str) -> str:
    """Return an IP address without a port. Raises ValueError."""
    if ip_bytes(value) is None:
        raise ValueError('expected an IP address, such as "192.0.2.7"')
    return value


def _host_field(value: str) -> str:
    try:
        normalise_host(value.encode())
    except GatewayError as error:
        raise ValueError(
            'expected "pass", "endpoint" or a host, such as "users.internal" or "users.internal:8080"'
        ) from error
    return value


def _endpoint_url(value: str) -> str:
    scheme, colon, rest = value.partition(":")
    if scheme in _SCHEMES_NOT_YET:
        raise ValueError(f'"{scheme}:" endpoints are not supported yet')
    if not colon or scheme not in _SCHEMES:
        raise ValueError(
            f'expected a URL such as "http://127.0.0.1:9001" or "asgi:package.module:app"'
            f"{_missing_scheme(value) or nearest(scheme, _SCHEMES)}"
        )
    if scheme in _APP_SCHEMES:
        _app_path(rest)
    elif scheme in _UNIX_SCHEMES:
        if not rest.startswith("/") or _CONTROL.search(rest):
            raise ValueError('expected the absolute path of a socket, as in "http+unix:/run/app.sock"')
        parse_address(f"unix:{rest}")
    else:
        _check_network_url(value)
    return value


def _missing_scheme(value: str) -> str:
    """Return the URL that is meant by one without a scheme, as a question; "" if it means none."""
    try:
        parse_address(value)
    except ValueError:
        return f'; did you mean "asgi:{value}"?' if _IMPORT_PATH.fullmatch(value) else ""
    return f'; did you mean "http://{value}"?'


def _check_network_url(value: str) -> None:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError as error:
        raise ValueError(f'expected a URL such as "http://127.0.0.1:9001" ({error})') from error
    if _CONTROL.search(value) or not url.hostname:
        raise ValueError('expected a URL with a host, such as "http://127.0.0.1:9001"')
    if url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError('expected no more than host and port; a "rewrite" middleware changes the path')
    if "@" in url.netloc:
        raise ValueError('expected no user name in the URL; a "headers" middleware can set authorization')
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    parse_address(f"{host}:{port if port is not None else 80}")


def _app_path(value: str) -> str:
    if not _IMPORT_PATH.fullmatch(value):
        raise ValueError('expected an import path "package.module:name"')
    try:
        found = importlib.util.find_spec(value.partition(":")[0])
    except (ImportError, ValueError):  # a parent package that does not exist, or fails to import
        found = None
    if found is None:
        raise ValueError(f'there is no module "{value.partition(":")[0]}" to import')
    return value


def _hash_key(value: str) -> str:
    kind, colon, name = value.partition(":")
    if value in ("client", "path") or (kind in ("header", "cookie") and colon and _TOKEN.fullmatch(name)):
        return value
    hint = "" if kind in ("header", "cookie") else closest(kind, ("client", "path", "header:", "cookie:"))
    raise ValueError(f'expected "client", "path", "header:NAME" or "cookie:NAME"{hint}')


def _retry_cause(value: str) -> str:
    if value in _RETRY_CAUSES or re.fullmatch("5[0-9][0-9]", value):
        return value
    raise ValueError(
        f'expected "connect", "reset", "timeout" or a status such as "503"{closest(value, _RETRY_CAUSES)}'
    )


def _state_store(value: str) -> str:
    if value == "memory":
        return value
    if value.startswith(_STORES_NOT_YET):
        raise ValueError('this store is not supported yet; "memory" is')
    raise ValueError(f'expected "memory"{closest(value, ("memory",))}')


def _url_path(value: str) -> str:
    if not value.startswith("/") or _CONTROL.search(value) or "#" in value:
        raise ValueError('expected a path from the root, such as "/healthz"')
    return value


def _file_path(value: str, info: ValidationInfo) -> str:
    base_dir = info.context["base_dir"] if info.context else Path()
    path = base_dir / value
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    return str(path)


Name = Annotated[str, Field(min_length=1)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]
TrustedProxy = Annotated[str, AfterValidator(_trusted_proxy)]
Token = Annotated[str, AfterValidator(_token)]
Method = Annotated[str, AfterValidator(checked_method)]
IpAddress = Annotated[str, AfterValidator(checked_ip_address)]
HostField = Annotated[str, Field(min_length=1), AfterValidator(_host_field)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
AppPath = Annotated[str, AfterValidator(_app_path)]
HashKey = Annotated[str, AfterValidator(_hash_key)]
RetryCause = Annotated[str, AfterValidator(_retry_cause)]
StateStore = Annotated[str, AfterValidator(_state_store)]
UrlPath = Annotated[str, AfterValidator(_url_path)]
FilePath = Annotated[str, AfterValidator(_file_path)]
HttpStatus = Annotated[int, Field(ge=200, le=599)]
