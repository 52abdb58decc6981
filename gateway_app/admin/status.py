"""How the gateway stands, across its workers.

Each worker writes what it knows into a JSON file in the run directory, about once a second; whichever worker
is asked reads those of all that live, and adds up what they say about each endpoint.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from importlib.metadata import version
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway_app.observe.families import CONFIG_LOADED
from gateway_app.observe.run_directory import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway_app.observe.metrics import Metrics

_SUMMED: Final = ("active", "requests", "failures")


class HasStatus(Protocol):
    """What is asked of a backend."""

    def status(self) -> dict[str, object]:
        """Return its state as JSON values; of each endpoint under "endpoints"."""


class GatewayView(Protocol):
    """What the admin listener asks a worker.

    Attributes:
        config_path: the configuration file.
        started_at: when the worker started, in seconds since the epoch.
        loaded_at: when it took over its configuration, in seconds since the epoch.
        backends: those in use, by name.
        is_ready: whether it takes requests: started, and not stopping.

    """

    @property
    def config_path(self) -> Path: ...  # noqa: D102
    @property
    def started_at(self) -> float: ...  # noqa: D102
    @property
    def loaded_at(self) -> float: ...  # noqa: D102
    @property
    def backends(self) -> Mapping[str, HasStatus]: ...  # noqa: D102
    @property
    def is_ready(self) -> bool: ...  # noqa: D102
    def routes(self) -> Sequence[Mapping[str, object]]:
        """Return the routes in precedence order, as JSON values."""


class StatusFile:
    """Writes this worker's status; a sampler for `Metrics.add_sampler`."""

    def __init__(self, metrics: Metrics, view: GatewayView) -> None:
        self._metrics = metrics
        self._view = view
        self._loaded = metrics.cell(CONFIG_LOADED)
        self._path = metrics.directory / f"{metrics.writer.name}.status"

    def __call__(self) -> None:
        """Replace the file, in one step for those who read it."""
        view = self._view
        self._loaded.set(view.loaded_at)
        status = {
            "pid": os.getpid(),
            "ready": view.is_ready,
            "started_at": view.started_at,
            "config_loaded_at": view.loaded_at,
            "in_flight": self._metrics.in_flight,
            "backends": {name: backend.status() for name, backend in view.backends.items()},
        }
        written = self._path.with_suffix(".new")
        written.write_text(json.dumps(status))
        written.replace(self._path)

    def remove(self) -> None:
        """Take the worker out of the status."""
        self._path.unlink(missing_ok=True)


def gateway_status(directory: Path, config_path: Path) -> dict[str, object]:
    """Return the status of all workers that share the run directory."""
    workers = _read(directory)
    now = time()
    backends: dict[str, dict[str, Any]] = {}
    for worker in workers:
        for name, backend in worker.pop("backends").items():
            _add_backend(backends.setdefault(name, {"workers": 0}), backend)
    for worker in workers:
        worker["config_age_s"] = round(now - worker["config_loaded_at"], 3)
    return {
        "version": version("l47-gateway"),
        "config": str(config_path),
        "uptime_s": round(now - min((worker["started_at"] for worker in workers), default=now), 3),
        "config_loaded_at": min((worker["config_loaded_at"] for worker in workers), default=None),
        "in_flight": sum(worker["in_flight"] for worker in workers),
        "workers": workers,
        "backends": {
            name: backend | {"endpoints": list(backend["endpoints"].values())}
            for name, backend in backends.items()
        },
    }


def _read(directory: Path) -> list[dict[str, Any]]:
    """Return what the workers that live have written; those that do not are forgotten."""
    workers = []
    for path in sorted(directory.glob("*.status")):
        process = ProcessIdentity.parse(path.name.partition(".")[0])
        if process is None or not process.is_running:
            path.unlink(missing_ok=True)
            continue
        try:
            workers.append(json.loads(path.read_text()))
        except FileNotFoundError:  # it has just ended
            continue
    return workers


def _add_backend(total: dict[str, Any], backend: dict[str, Any]) -> None:
    """Add one worker's view of a backend to `total`."""
    total["workers"] += 1
    total.update({key: value for key, value in backend.items() if key in ("balance",)})
    endpoints = total.setdefault("endpoints", {})
    for endpoint in backend["endpoints"]:
        seen = endpoints.setdefault(
            endpoint["endpoint"],
            {"endpoint": endpoint["endpoint"], "weight": endpoint["weight"], "backup": endpoint["backup"]}
            | {"states": Counter(), "connections": Counter(), "probe_error": ""}
            | dict.fromkeys(_SUMMED, 0),
        )
        seen["states"][endpoint["state"]] += 1
        seen["connections"].update(endpoint["connections"])
        seen["probe_error"] = seen["probe_error"] or endpoint["probe_error"]
        for name in _SUMMED:
            seen[name] += endpoint[name]
