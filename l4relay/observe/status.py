"""What the relay tells about itself: a JSON document, the same as metrics for Prometheus, and their address.

Each worker makes its part; `merge` adds the parts of several workers up, so that a reader sees one relay.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from l4relay.addresses import Address, UnixAddress
from l4relay.endpoints import Endpoint
from l4relay.relay import Relay

Status = dict[str, Any]

_STATES: Final = ("up", "ejected", "down")
_NOT_ADDED: Final = ("name", "transport", "address", "weight", "backup")
_REQUEST_TIMEOUT_S: Final = 5.0
_MAX_REQUEST_BYTES: Final = 8192


def relay_status(relays: Sequence[Relay]) -> Status:
    """Return the counters and endpoints of a relay, given before those of its name that a reload replaced."""
    relay = relays[0]
    endpoints = [endpoint for each in relays for group in each.groups for endpoint in group.endpoints]
    status: Status = {
        "name": relay.config.name,
        "transport": relay.config.transport,
        "active": sum(each.active for each in relays),
        "accepted": relay.counts.accepted,
        "bytes_sent": relay.counts.sent,
        "bytes_received": relay.counts.received,
        "refused": dict(relay.counts.refused),
        "ended": dict(relay.counts.ended),
        "endpoints": [],
    }
    # Reloads share endpoints, each of which counts once; two lists of `sni` may have one each at an address.
    own = [_endpoint_status(each) for each in dict.fromkeys(endpoints)]
    _add_entries(status["endpoints"], own, "address")
    return status


def _endpoint_status(endpoint: Endpoint) -> Status:
    return {
        "address": endpoint.key,
        "state": endpoint.state,
        "weight": endpoint.weight,
        "backup": endpoint.backup,
        "active": endpoint.active,
        "total": endpoint.total,
        "failures": endpoint.failures,
    }


def merge(parts: Iterable[Status]) -> Status:
    """Add up: numbers are summed, a relay or endpoint is found by its name, the worst state is shown."""
    merged: Status = {"workers": 0, "reloads": {}, "relays": []}
    for part in parts:
        _add(merged, part)
    return merged


def _add(to: Status, more: Status) -> None:
    for key, value in more.items():
        if key == "state":
            to[key] = max(to[key], value, key=_STATES.index)
        elif isinstance(value, dict):
            _add(to[key], value)
        elif isinstance(value, list):
            _add_entries(to[key], value, "name" if key == "relays" else "address")
        elif key not in _NOT_ADDED:
            to[key] = to.get(key, 0) + value


def _add_entries(to: list[Status], more: Iterable[Status], name: str) -> None:
    known = {entry[name]: entry for entry in to}
    for entry in more:
        same = known.setdefault(entry[name], entry)
        if same is entry:
            to.append(entry)
        else:
            _add(same, entry)


def render_metrics(status: Status) -> str:
    """Return the merged status in Prometheus' text format, version 0.0.4."""
    families: dict[str, list[str]] = {}  # the format wants the samples of one together

    def add(name: str, text: str, labels: dict[str, str], number: float) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        head = f"# HELP l4relay_{name} {text}\n# TYPE l4relay_{name} {kind}\n"
        pairs = ",".join(f'{label}="{_escape(each)}"' for label, each in labels.items())
        sample = f"l4relay_{name}{{{pairs}}} {number}\n" if pairs else f"l4relay_{name} {number}\n"
        families.setdefault(name, [head]).append(sample)

    add("workers", "Processes that answered.", {}, status["workers"])
    for outcome, count in status["reloads"].items():
        add("reloads_total", "Reloads.", {"outcome": outcome}, count)
    for relay in status["relays"]:
        labels = {"relay": relay["name"], "transport": relay["transport"]}
        add("active", "Open connections or sessions.", labels, relay["active"])
        add("accepted_total", "Connections or sessions taken.", labels, relay["accepted"])
        for direction in ("sent", "received"):
            text = "Bytes relayed to (sent) and from (received) endpoints."
            add("bytes_total", text, {**labels, "direction": direction}, relay[f"bytes_{direction}"])
        for reason, count in relay["refused"].items():
            add("refused_total", "Refused clients.", {**labels, "reason": reason}, count)
        for reason, count in relay["ended"].items():
            add("ended_total", "Ended ones, by reason.", {**labels, "reason": reason}, count)
        for endpoint in relay["endpoints"]:
            own = {**labels, "endpoint": endpoint["address"]}
            add("endpoint_up", "1 when it is used.", own, int(endpoint["state"] == "up"))
            add("endpoint_active", "Open ones on it.", own, endpoint["active"])
            add("endpoint_connections_total", "Made to it.", own, endpoint["total"])
            add("endpoint_failures_total", "Failed ones.", own, endpoint["failures"])
    return "".join(line for lines in families.values() for line in lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def start_admin(address: Address, collect: Callable[[], Awaitable[Status]]) -> asyncio.Server:
    """Serve ``GET /metrics`` and ``GET /status`` of what `collect` gathers at each request.

    Raises:
        OSError: the address is taken.

    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                answer = await _answer(request, collect)
                if not writer.is_closing():  # by a reset: uvloop would raise
                    writer.write(answer)
                    await writer.drain()
        writer.close()

    if isinstance(address, UnixAddress):
        return await asyncio.start_unix_server(serve, address.path, limit=_MAX_REQUEST_BYTES)
    return await asyncio.start_server(serve, address.host, address.port, limit=_MAX_REQUEST_BYTES)


async def _answer(request: bytes, collect: Callable[[], Awaitable[Status]]) -> bytes:
    method, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    status, kind = "200 OK", "text/plain; version=0.0.4; charset=utf-8"
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", "only GET\n"
    elif path == b"/metrics":
        body = render_metrics(await collect())
    elif path == b"/status":
        body, kind = json.dumps(await collect(), indent=2) + "\n", "application/json"
    else:
        status, body = "404 Not Found", "/metrics or /status\n"
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else content)
