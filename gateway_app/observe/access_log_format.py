r"""One line of the access log, as JSON or text.

Whatever a client sent is written as a JSON string in ASCII, so no byte of it can begin a line of its own or
reach a terminal as a control sequence. Query strings are not logged, since they carry secrets (tokens, signed
links); `query_bytes` tells that there was one. Request and answer bodies, cookies and other fields are not
logged either.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Scope

    from gateway_app.exchange import Exchange

Format = Literal["json", "text"]

MAX_PATH: Final = 1024
MAX_USER_AGENT: Final = 256
MAX_DETAIL: Final = 512


class Entry(NamedTuple):
    """A finished request; `ended` is in seconds since the epoch."""

    ended: float
    duration_s: float
    exchange: Exchange
    scope: Scope


class Timestamps:
    """RFC 3339 times in UTC with milliseconds; the second is formatted once."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, time_s: float) -> str:
        """Return `time_s`, seconds since the epoch."""
        milliseconds = int(time_s * 1000.0)
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{rest:03d}Z"


class JsonFormatter:
    """A JSON object a line. Members that say nothing ("" or none) are left out."""

    def __init__(self) -> None:
        self._timestamps = Timestamps()

    def __call__(self, entry: Entry) -> str:
        """Return the line, its newline included."""
        ended, duration_s, exchange, scope = entry
        parts = [
            f'{{"time":"{self._timestamps.format(ended)}","request_id":{quoted(exchange.request_id)}'
            f',"client":"{exchange.client}","method":{quoted(method_of(scope))},"scheme":"{exchange.scheme}"'
            f',"host":{quoted(exchange.host)},"path":{quoted(path_of(exchange, scope))}'
        ]
        add = parts.append
        if query := scope.get("query_string"):
            add(f',"query_bytes":{len(query)}')
        add(f',"protocol":{quoted(protocol_of(scope))},"status":{exchange.status}')
        if exchange.route is not None:
            add(f',"route":{quoted(exchange.route.name)}')
        if exchange.attempts:
            add(
                f',"backend":{quoted(exchange.backend)},"endpoint":{quoted(exchange.endpoint)}'
                f',"attempts":{exchange.attempts},"upstream_started_ms":{upstream_started_ms(exchange):.3f}'
            )
            if exchange.upstream_first_byte:
                add(f',"upstream_first_byte_ms":{first_byte_ms(exchange):.3f}')
        add(
            f',"duration_ms":{duration_s * 1000.0:.3f}'
            f',"bytes_in":{exchange.bytes_in},"bytes_out":{exchange.bytes_out}'
        )
        if agent := user_agent_of(scope):
            add(f',"user_agent":{quoted(agent)}')
        if exchange.error:
            add(f',"error":"{exchange.error}"')
            if exchange.error_detail:
                add(f',"detail":{quoted(exchange.error_detail[:MAX_DETAIL])}')
            if exchange.refused_by:
                add(f',"refused_by":{quoted(exchange.refused_by)}')
        if connection_id := connection_id_of(scope):
            add(f',"connection_id":{quoted(connection_id)}')
        add(f',"worker":{os.getpid()}')
        if exchange.log:
            for name, value in exchange.log.items():
                add(f",{quoted(str(name))}:{json.dumps(value, default=str)}")
        add("}\n")
        return "".join(parts)


class TextFormatter:
    """A line for people: when, who, what, the answer, where it came from, how long it took."""

    def __init__(self) -> None:
        self._timestamps = Timestamps()

    def __call__(self, entry: Entry) -> str:
        """Return the line, its newline included."""
        ended, duration_s, exchange, scope = entry
        path = quoted(path_of(exchange, scope))[1:-1]
        host = quoted(exchange.host)[1:-1]
        line = (
            f"{self._timestamps.format(ended)} {exchange.client or '-'} {quoted(method_of(scope))[1:-1]} "
            f"{exchange.scheme}://{host}{path} {exchange.status or '-'} {exchange.bytes_out}B "
            f"{duration_s * 1000.0:.1f}ms"
        )
        if exchange.route is not None:
            line += f" route={exchange.route.name}"
        if exchange.attempts:
            line += f" endpoint={exchange.endpoint}"
            if exchange.attempts > 1:
                line += f" attempts={exchange.attempts}"
        if exchange.error:
            line += f" error={exchange.error}"
            if exchange.error_detail:
                line += f" {quoted(exchange.error_detail[:MAX_DETAIL])}"
        if exchange.log:
            line += "".join(
                f" {quoted(str(name))[1:-1]}={json.dumps(value, default=str)}"
                for name, value in exchange.log.items()
            )
        if connection_id := connection_id_of(scope):
            line += f" connection={quoted(connection_id)[1:-1]}"
        return f"{line} id={exchange.request_id}\n"


FORMATTERS: Final[dict[Format, Callable[[], Callable[[Entry], str]]]] = {
    "json": JsonFormatter,
    "text": TextFormatter,
}


def method_of(scope: Scope) -> str:
    """Return the request's method; a WebSocket's handshake is a GET."""
    method: str = scope.get("method", "GET")
    return method


def path_of(exchange: Exchange, scope: Scope) -> str:
    """Return the normalised path; as it came, if the request was refused before that."""
    path: str = exchange.path or scope["path"]
    return path[:MAX_PATH]


def protocol_of(scope: Scope) -> str:
    """Return the protocol as in "HTTP/1.1"; a WebSocket's as in "WebSocket/1.1"."""
    return f"{'HTTP' if scope['type'] == 'http' else 'WebSocket'}/{scope['http_version']}"


def user_agent_of(scope: Scope) -> str:
    """Return what the client says it is, "" if it does not."""
    for name, value in scope["headers"]:
        if name == b"user-agent":
            return str(value[:MAX_USER_AGENT], "latin-1")
    return ""


def connection_id_of(scope: Scope) -> str:
    """Return the id that a PROXY header has given the connection, "" if none has (`serving.proxy_header`)."""
    state = scope.get("state")
    return str(state.get("connection_id", "")) if state else ""


def upstream_started_ms(exchange: Exchange) -> float:
    """Return when the last attempt began, after the request's arrival."""
    return max(0.0, exchange.upstream_started - exchange.started) * 1000.0


def first_byte_ms(exchange: Exchange) -> float:
    """Return when the answer's first byte arrived, after the request's arrival."""
    return max(0.0, exchange.upstream_first_byte - exchange.started) * 1000.0
