from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway_app.upstream.endpoint import Endpoint, EndpointUrl


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:9001", ("http", "127.0.0.1", 9001, "", "127.0.0.1:9001")),
        ("https://api.example.com/", ("https", "api.example.com", 443, "", "api.example.com")),
        ("http://[::1]:81", ("http", "::1", 81, "", "[::1]:81")),
        ("http+unix:/run/app.sock", ("http+unix", "", 0, "/run/app.sock", "localhost")),
        ("asgi:reports.app:app", ("asgi", "", 0, "reports.app:app", "localhost")),
    ],
)
def test_url(url: str, parts: tuple[object, ...]) -> None:
    assert EndpointUrl.parse(url) == EndpointUrl(*cast("Any", parts))


@pytest.mark.parametrize("url", ["ftp://example.com", "http://", "http+unix:", "127.0.0.1:80"])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        EndpointUrl.parse(url)


def test_a_resolved_address_is_part_of_its_key() -> None:
    endpoint = Endpoint("https://api.example.com", "192.0.2.1")

    assert endpoint.key == "https://api.example.com (192.0.2.1)"
    assert (endpoint.host, endpoint.port) == ("192.0.2.1", 443)
    assert endpoint.server_name == endpoint.authority == "api.example.com"


async def test_it_returns_from_ejection_by_itself_and_says_so() -> None:
    endpoint = Endpoint("http://127.0.0.1:1")
    states: list[str] = []
    returned = asyncio.Event()

    def note() -> None:
        states.append(endpoint.state)
        if endpoint.is_available:
            returned.set()

    endpoint.hold(note)
    endpoint.failures_in_row = 5

    endpoint.eject(0.02)
    async with asyncio.timeout(5):
        await returned.wait()

    assert states == ["ejected", "up"]
    assert endpoint.failures_in_row == 0
    assert (endpoint.ejections, endpoint.ejected_until) == (1, 0.0)


async def test_down_and_ejected_do_not_know_of_each_other() -> None:
    endpoint = Endpoint("http://127.0.0.1:1")
    endpoint.eject(60)
    endpoint.set_down(True)
    endpoint.readmit()
    assert endpoint.state == "down"

    endpoint.set_down(False)

    assert endpoint.is_available


class Transport:
    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


async def test_the_transport_closes_when_the_last_request_has_ended(
    eventually: Callable[[Callable[[], bool]], Any],
) -> None:
    endpoint = Endpoint("http://127.0.0.1:1")
    transport = Transport()
    endpoint.transport = cast("Any", transport)
    endpoint.active += 2
    retired = asyncio.create_task(endpoint.retire())
    await asyncio.sleep(0)

    endpoint.finish()
    await asyncio.sleep(0)
    assert not transport.is_closed
    endpoint.finish()
    await retired

    assert transport.is_closed
    assert endpoint.requests == 2


async def test_what_replaces_it_inherits_what_is_known() -> None:
    old, new = Endpoint("http://127.0.0.1:1"), Endpoint("http://127.0.0.1:1")
    old.set_down(True)
    old.probes_in_row, old.requests, old.latency_ewma = -3, 7, 0.2
    old.eject(60)

    new.inherit(old)

    assert (new.down, new.probes_in_row, new.requests, new.latency_ewma) == (True, -3, 7, 0.2)
    assert new.ejected_until == pytest.approx(old.ejected_until, abs=0.1)
    assert new.ejections == 1
    new.readmit()
    old.readmit()
