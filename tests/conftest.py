"""For all tests: ports that nobody else takes, and property tests that a slow machine does not fail."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code. In CI the examples are those of
# every other run: a run there proves the change that it is for, and finds nothing about others.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

LOWEST, BEYOND = 10_000, 32_000  # below those that the kernel gives out, from 32768 on


def _ports() -> Iterator[int]:
    """Go round this worker's share, from anywhere: another run of the suite may use the same machine."""
    share = (BEYOND - LOWEST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = LOWEST + share * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = random.randrange(share)
    while True:
        for turn in range(share):
            port = first + (start + turn) % share
            if _is_free(port):
                yield port


def _is_free(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("", port))
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def new_port() -> Callable[[], int]:
    """Give a port on which nobody listens, and which nobody is given while a test still starts its server.

    What `bind` to port 0 gives is free again once it is closed: a test in another process may get it next.
    """
    ports = _ports()
    return lambda: next(ports)
