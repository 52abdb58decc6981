"""What the relay tells about itself: one JSON document, and the same as Prometheus metrics.

Each worker makes its part; `merge` adds the parts of several workers up, so that a reader sees one relay.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from l4relay.endpoints import Endpoint
from l4relay.relay import Relay

Status = dict[str, Any]

_STATES: Final = ("up", "ejected", "down")


def relay_status(relays: Sequence[Relay]) -> Status:
    """Return the counters and endpoints of a relay, given before those of its name that a reload replaced."""
    relay = relays[0]
    endpoints = [endpoint for each in relays for group in each.groups for endpoint in group.endpoints]
    return {
        "name": relay.config.name,
        "transport": relay.config.transport,
        "active": sum(each.active for each in relays),
        "accepted": relay.counts.accepted,
        "bytes_sent": relay.counts.sent,
        "bytes_received": relay.counts.received,
        "refused": dict(relay.counts.refused),
        "ended": dict(relay.counts.ended),
        # Lists and reloads share endpoints, each of which counts once.
        "endpoints": _add_endpoints([], [_endpoint_status(each) for each in dict.fromkeys(endpoints)]),
    }


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
    relays: dict[str, Status] = {}
    for part in parts:
        merged["workers"] += 1
        _add(merged["reloads"], part["reloads"])
        for relay in part["relays"]:
            known = relays.get(relay["name"])
            if known is None:
                relays[relay["name"]] = relay
            else:
                _add_relay(known, relay)
    merged["relays"] = list(relays.values())
    return merged


def _add(to: Status, more: Status) -> None:
    for key, number in more.items():
        to[key] = to.get(key, 0) + number


def _add_relay(to: Status, more: Status) -> None:
    for key in ("active", "accepted", "bytes_sent", "bytes_received"):
        to[key] += more[key]
    for key in ("refused", "ended"):
        _add(to[key], more[key])
    _add_endpoints(to["endpoints"], more["endpoints"])


def _add_endpoints(to: list[Status], more: Iterable[Status]) -> list[Status]:
    """Add up by address: a list of `sni` may have an address that another has, with a health of its own."""
    known = {endpoint["address"]: endpoint for endpoint in to}
    for endpoint in more:
        same = known.setdefault(endpoint["address"], endpoint)
        if same is endpoint:
            to.append(endpoint)
            continue
        for key in ("active", "total", "failures"):
            same[key] += endpoint[key]
        same["state"] = max(same["state"], endpoint["state"], key=_STATES.index)
    return to


def render_metrics(status: Status) -> str:
    """Return the merged status in Prometheus' text format, version 0.0.4."""
    families = _Families()
    families.add("l4relay_workers", "gauge", "Processes that answered.", {}, status["workers"])
    for outcome, count in status["reloads"].items():
        families.add("l4relay_reloads_total", "counter", "Reloads.", {"outcome": outcome}, count)
    for relay in status["relays"]:
        _add_relay_metrics(families, relay)
    return families.render()


def _add_relay_metrics(families: "_Families", relay: Status) -> None:
    labels = {"relay": relay["name"], "transport": relay["transport"]}
    add = families.add
    add("l4relay_active", "gauge", "Open connections or sessions.", labels, relay["active"])
    add("l4relay_accepted_total", "counter", "Connections or sessions taken.", labels, relay["accepted"])
    for direction, key in (("sent", "bytes_sent"), ("received", "bytes_received")):
        add(
            *("l4relay_bytes_total", "counter", "Bytes relayed to (sent) and from (received) endpoints."),
            *({**labels, "direction": direction}, relay[key]),
        )
    for reason, count in relay["refused"].items():
        add("l4relay_refused_total", "counter", "Refused clients.", {**labels, "reason": reason}, count)
    for reason, count in relay["ended"].items():
        add("l4relay_ended_total", "counter", "Ended ones, by reason.", {**labels, "reason": reason}, count)
    for endpoint in relay["endpoints"]:
        own = {**labels, "endpoint": endpoint["address"]}
        add("l4relay_endpoint_up", "gauge", "1 when it is used.", own, int(endpoint["state"] == "up"))
        add("l4relay_endpoint_active", "gauge", "Open ones on it.", own, endpoint["active"])
        add("l4relay_endpoint_connections_total", "counter", "Made to it.", own, endpoint["total"])
        add("l4relay_endpoint_failures_total", "counter", "Failed ones.", own, endpoint["failures"])


class _Families:
    """Samples by metric, as the format wants them together."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, text: str, labels: dict[str, str], number: float) -> None:
        lines = self._lines.setdefault(name, [f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
        pairs = ",".join(f'{label}="{_escape(each)}"' for label, each in labels.items())
        lines.append(f"{name}{{{pairs}}} {number}" if pairs else f"{name} {number}")

    def render(self) -> str:
        return "".join(f"{line}\n" for lines in self._lines.values() for line in lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
