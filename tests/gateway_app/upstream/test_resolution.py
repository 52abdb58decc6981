from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gateway_app.config.backends import HealthConfig
from gateway_app.upstream.resolution import one_family
from l4relay.dns.message import encode_name
from l4relay.dns.resolve import Resolver

Eventually = Callable[[Callable[[], bool]], Any]


class Nameserver(asyncio.DatagramProtocol):
    """Answers A queries for users.example with `addresses`, TTL 0; fails while they are None."""

    def __init__(self) -> None:
        self.addresses: list[int] | None = [1, 2]
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        is_a = data[-4:-2] == b"\0\1"
        addresses = (self.addresses or []) if is_a else []
        answers = b"".join(
            encode_name("users.example") + b"\0\1\0\1\0\0\0\0\0\4" + bytes((127, 0, 0, last))
            for last in addresses
        )
        flags = b"\x81\x82" if self.addresses is None else b"\x81\x80"
        header = data[:2] + flags + b"\0\1" + len(addresses).to_bytes(2, "big") + bytes(4)
        self.transport.sendto(header + data[12:] + answers, addr)


@pytest.fixture
async def nameserver() -> AsyncIterator[Nameserver]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Nameserver, ("127.0.0.1", 0))
    yield protocol
    transport.close()


@pytest.fixture
def resolver(nameserver: Nameserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    monkeypatch.setattr("l4relay.dns.resolve.MIN_TTL_S", 0.02)
    monkeypatch.setattr("gateway_app.upstream.resolution.RETRY_S", 0.02)
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    port = nameserver.transport.get_extra_info("sockname")[1]
    return Resolver(conf, tmp_path / "none", port)


NAME = "http://users.example:9001"


async def test_a_name_becomes_an_endpoint_an_address(bench: Any, resolver: Resolver) -> None:
    bench.resolver = resolver
    backend = bench.of(NAME, 9000)
    assert [endpoint.key for endpoint in backend.endpoints] == ["http://127.0.0.1:9000"]

    await backend.start()

    assert [endpoint.key for endpoint in backend.endpoints] == [
        f"{NAME} (127.0.0.1)",
        f"{NAME} (127.0.0.2)",
        "http://127.0.0.1:9000",
    ]
    assert [(e.host, e.port, e.authority) for e in backend.endpoints[:2]] == [
        ("127.0.0.1", 9001, "users.example:9001"),
        ("127.0.0.2", 9001, "users.example:9001"),
    ]


async def test_addresses_come_and_go_without_touching_the_others(
    bench: Any, resolver: Resolver, nameserver: Nameserver, eventually: Eventually
) -> None:
    bench.resolver = resolver
    backend = bench.of(NAME)
    await backend.start()
    first, second = backend.endpoints
    first.active += 1

    nameserver.addresses = [2, 3]
    await eventually(lambda: first not in backend.endpoints)

    assert backend.endpoints[0] is second
    assert backend.endpoints[1].host == "127.0.0.3"
    assert not second.transport.is_closed
    assert not first.transport.is_closed, "a request is still in flight"
    first.finish()
    await eventually(lambda: first.transport.is_closed)


async def test_an_outage_of_dns_changes_nothing(
    bench: Any,
    resolver: Resolver,
    nameserver: Nameserver,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
) -> None:
    bench.resolver = resolver
    backend = bench.of(NAME)
    await backend.start()
    before = backend.endpoints

    with caplog.at_level(logging.WARNING, "gateway.upstream"):
        nameserver.addresses = []
        await eventually(lambda: "keeping 127.0.0.1, 127.0.0.2" in caplog.text)
        assert backend.endpoints == before
        nameserver.addresses = [2]
        await eventually(lambda: len(backend.endpoints) == 1)


async def test_an_outage_of_dns_is_told_once_and_so_is_its_end(
    bench: Any,
    resolver: Resolver,
    nameserver: Nameserver,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
) -> None:
    bench.resolver = resolver
    backend = bench.of(NAME)
    with caplog.at_level(logging.INFO, "gateway.upstream"):
        await backend.start()
        for outage in (1, 2):
            nameserver.addresses = []
            asked = nameserver.asked
            await eventually(lambda asked=asked: nameserver.asked > asked + 10)  # type: ignore[misc]
            nameserver.addresses = [1, 2]
            told = 1 + 2 * outage
            await eventually(lambda told=told: len(caplog.messages) >= told)  # type: ignore[misc]
    assert [("keeping" in message) for message in caplog.messages] == [False, True, False, True, False]


async def test_a_name_unknown_at_the_start_is_served_once_it_is_known(
    bench: Any, resolver: Resolver, nameserver: Nameserver, eventually: Eventually, exchange: Any, scope: Any
) -> None:
    bench.resolver = resolver
    nameserver.addresses = []
    backend = bench.of(NAME)
    await backend.start()
    assert backend.choose(exchange, scope) is None

    nameserver.addresses = [5]
    await eventually(lambda: backend.choose(exchange, scope) is not None)


async def test_a_reload_keeps_the_addresses_while_it_asks_again(bench: Any, resolver: Resolver) -> None:
    bench.resolver = resolver
    old = bench.of(NAME)
    await old.start()
    resolved = old.endpoints

    new = bench.make(bench.config(NAME, balance="random"), old)

    assert new.endpoints == resolved
    await new.start()
    await old.close()
    assert new.endpoints == resolved
    assert not any(endpoint.transport.is_closed for endpoint in new.endpoints)


async def test_new_addresses_are_probed_and_old_ones_no_more(
    bench: Any, resolver: Resolver, nameserver: Nameserver, eventually: Eventually
) -> None:
    bench.resolver = resolver
    with_health = HealthConfig(path="/", interval=60.0, timeout=1.0)
    backend = bench.of("http://users.example:1", health=with_health)
    await backend.start()
    await eventually(lambda: all(endpoint.down for endpoint in backend.endpoints))

    nameserver.addresses = [3]
    await eventually(lambda: [endpoint.host for endpoint in backend.endpoints] == ["127.0.0.3"])
    await eventually(lambda: backend.endpoints[0].down)
    await backend.stop()
    await asyncio.sleep(0.1)  # what was on its way has arrived
    asked = nameserver.asked
    await asyncio.sleep(0.1)

    assert nameserver.asked == asked, "nothing is resolved after a stop"


@pytest.mark.parametrize(
    ("addresses", "kept"),
    [
        (("127.0.0.1", "::1"), ("127.0.0.1",)),
        (("::1", "2001:db8::1"), ("2001:db8::1", "::1")),
        (("10.0.0.2", "10.0.0.1", "10.0.0.2"), ("10.0.0.1", "10.0.0.2")),
    ],
)
def test_one_family(addresses: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert one_family(addresses) == kept
