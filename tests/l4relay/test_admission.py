"""Who is let in: networks, counts, rates; and that what was counted in is counted out."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from l4relay.admission import Bounds, Limits, LocalLimits
from l4relay.config.quantities import Rate
from l4relay.shared_limits import SharedLimits, SharedTable


@pytest.fixture(params=["local", "shared"])
def limits(request: pytest.FixtureRequest) -> Iterator[Limits]:
    if request.param == "local":
        yield LocalLimits()
        return
    fd = SharedTable.create(2)
    yield SharedLimits(SharedTable(fd, 2, 0), "test")
    os.close(fd)


def test_the_total_is_bound(limits: Limits) -> None:
    bounds = Bounds(total=2)
    assert [limits.admit(source, bounds, 1.0) for source in "abc"] == [None, None, "max_connections"]
    limits.release("a")
    assert limits.admit("c", bounds, 1.0) is None


def test_the_peers_of_unix_sockets_are_counted_once(limits: Limits) -> None:
    bounds = Bounds(total=2, per_source=2)
    assert [limits.admit("", bounds, 1.0) for _ in range(3)] == [None, None, "max_connections"]
    limits.release("")
    assert [limits.admit("", bounds, 1.0) for _ in range(2)] == [None, "max_connections"]


def test_each_source_is_bound(limits: Limits) -> None:
    bounds = Bounds(per_source=1)
    assert limits.admit("a", bounds, 1.0) is None
    assert limits.admit("a", bounds, 1.0) == "max_connections_per_source"
    assert limits.admit("b", bounds, 1.0) is None
    limits.release("a")
    assert limits.admit("a", bounds, 1.0) is None


def test_the_rate_allows_a_burst_and_fills_up(limits: Limits) -> None:
    bounds = Bounds(rate=Rate(2, 1.0))
    now = 100.0
    refused = "max_rate_per_source"
    assert [limits.admit("a", bounds, now) for _ in range(3)] == [None, None, refused]
    assert [limits.admit("a", bounds, now + 0.5) for _ in range(2)] == [None, refused]
    assert limits.admit("b", bounds, now) is None
    assert [limits.admit("a", bounds, now + 60) for _ in range(3)] == [None, None, refused]


def test_a_source_whose_row_would_be_the_relay_s_own_has_another() -> None:
    """Nothing is counted in the relay's row when its first client comes, so it looks free."""
    fd = SharedTable.create(1)
    table = SharedTable(fd, 1, 0)
    total = table.find(b"a-relay!", 1.0)
    assert table.find(b"a-relay!", 1.0, but=total) == total
    same_place = b"b-relay!"  # a row is looked for by the last bytes
    assert table.find(same_place, 1.0, but=total) != total
    assert table.find(b"a-relay!", 1.0) == total
    os.close(fd)


def test_workers_count_together_and_a_dead_one_no_longer() -> None:
    fd = SharedTable.create(2)
    tables = [SharedTable(fd, 2, index) for index in (0, 1)]
    first, second = (SharedLimits(table, "test") for table in tables)
    bounds = Bounds(total=3, per_source=2)
    assert [first.admit("a", bounds, 1.0), second.admit("a", bounds, 1.0)] == [None, None]
    assert second.admit("a", bounds, 1.0) == "max_connections_per_source"
    assert second.admit("b", bounds, 1.0) is None
    assert first.admit("c", bounds, 1.0) == "max_connections"
    tables[0].forget_worker(1)
    assert [first.admit(source, bounds, 1.0) for source in "ac"] == [None, None]
    os.close(fd)


async def test_networks_do_not_keep_a_unix_socket_s_clients_out(
    start_relay: Any, start_server: Any, tmp_path: Path
) -> None:
    await start_relay(
        listen=["tcp://127.0.0.1:0", f"unix:{tmp_path}/down"],
        endpoints=[await start_server()],
        allow=["10.0.0.0/8"],
    )
    reader, writer = await asyncio.open_unix_connection(tmp_path / "down")
    writer.write(b"hello")
    assert await reader.read(5) == b"hello"
    writer.close()


async def test_networks(start_relay: Any, start_server: Any) -> None:
    endpoint = await start_server()
    relay = await start_relay(endpoints=[endpoint], allow=["10.0.0.0/8"])
    with pytest.raises(ConnectionResetError):  # as it connects, or at the first read
        await relay.exchange()
    [line] = await relay.ended()
    assert (line["end"], relay.relay()["refused"]) == ("denied", {"denied": 1})
    relay = await start_relay(endpoints=[endpoint], allow=["127.0.0.0/8"], deny=["127.0.0.2"])
    assert await relay.exchange() == b"hello"
