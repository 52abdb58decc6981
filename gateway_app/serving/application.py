"""The application of the server processes that `gateway serve` starts."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Final

from gateway_app.gateway import Gateway

_NEW_OBJECTS: Final = 25_000
"""How many objects come together before the garbage collector looks at them. Requests leave it nothing to do;
with Python's 700 it ran whenever some dozens of them were under way, and took 6 % of all CPU."""


def for_hypercorn() -> Gateway:
    """Return the application of a hypercorn worker, which would give a backend's answer a second Date."""
    return _make(adds_date=True, reads_proxy_headers=True)


def for_granian() -> Gateway:
    """Return the application of a granian worker, which adds Date itself where there is none."""
    return _make(adds_date=False, reads_proxy_headers=False)


def _make(*, adds_date: bool, reads_proxy_headers: bool) -> Gateway:
    gc.collect()
    gc.freeze()  # what was imported stays; there is nothing to find in it
    gc.set_threshold(_NEW_OBJECTS, 20, 50)
    return Gateway(
        Path(os.environ["GATEWAY_CONFIG"]), adds_date=adds_date, reads_proxy_headers=reads_proxy_headers
    )
