"""Who is let in: networks, counts, rates; and that what was counted in is counted out."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay import admission as admission_module
from l4relay.addresses import parse_listen_address
from l4relay.admission import Admission, LimitTable
from l4relay.config.model import RelayConfig
from l4relay.config.quantities import Rate


def bound(table: LimitTable, **bounds: Any) -> Admission:
    listen = (parse_listen_address("127.0.0.1:1"),)
    return Admission(RelayConfig("test", listen, (), **bounds), table)


@pytest.fixture(params=["alone", "shared"])
def table(request: pytest.FixtureRequest) -> Iterator[LimitTable]:
    if request.param == "alone":
        yield LimitTable()
        return
    shared = LimitTable(2)
    yield LimitTable(2, 1, shared.fd)
    os.close(shared.fd)


def test_the_total_is_bound(table: LimitTable) -> None:
    admission = bound(table, max_connections=2)
    assert [admission.admit(source, 1.0) for source in "abc"] == [None, None, "max_connections"]
    admission.release("a")
    assert admission.admit("c", 1.0) is None


def test_the_peers_of_unix_sockets_are_counted_once(table: LimitTable) -> None:
    admission = bound(table, max_connections=2, max_connections_per_source=2)
    assert [admission.admit("", 1.0) for _ in range(3)] == [None, None, "max_connections"]
    admission.release("")
    assert [admission.admit("", 1.0) for _ in range(2)] == [None, "max_connections"]


def test_each_source_is_bound(table: LimitTable) -> None:
    admission = bound(table, max_connections_per_source=1)
    assert admission.admit("a", 1.0) is None
    assert admission.admit("a", 1.0) == "max_connections_per_source"
    assert admission.admit("b", 1.0) is None
    admission.release("a")
    assert admission.admit("a", 1.0) is None


def test_the_path_of_a_unix_socket_s_peer_may_have_any_bytes(table: LimitTable) -> None:
    admission = bound(table, max_connections_per_source=1)
    source = os.fsdecode(b"/run/\xff")
    assert [admission.admit(source, 1.0) for _ in range(2)] == [None, "max_connections_per_source"]


def test_the_rate_allows_a_burst_and_fills_up(table: LimitTable) -> None:
    admission = bound(table, max_rate_per_source=Rate(2, 1.0))
    now = 100.0
    refused = "max_rate_per_source"
    assert [admission.admit("a", now) for _ in range(3)] == [None, None, refused]
    assert [admission.admit("a", now + 0.5) for _ in range(2)] == [None, refused]
    assert admission.admit("b", now) is None
    assert [admission.admit("a", now + 60) for _ in range(3)] == [None, None, refused]


@given(
    count=st.integers(1, 200),
    period_s=st.sampled_from([1.0, 60.0, 3600.0, 86_400.0]),
    now=st.floats(0, 1e7),
)
def test_a_burst_is_as_large_as_the_rate_says(count: int, period_s: float, now: float) -> None:
    admission = bound(LimitTable(), max_rate_per_source=Rate(count, period_s))
    assert {admission.admit("a", now) for _ in range(count)} == {None}
    assert admission.admit("a", now) == "max_rate_per_source"
    assert admission.admit("a", now + 1.001 * period_s / count) is None
    assert admission.admit("a", now + 1.001 * period_s / count) == "max_rate_per_source"


def test_a_reload_goes_on_counting(table: LimitTable) -> None:
    before = bound(table, max_connections=3)
    assert [before.admit(source, 1.0) for source in "aab"] == [None, None, None]
    after = bound(table, max_connections_per_source=2)
    assert after.admit("a", 1.0) == "max_connections_per_source"
    before.release("a")
    assert after.admit("a", 1.0) is None
    unbounded = bound(table)
    assert unbounded.admit("a", 1.0) is None
    unbounded.release("a")
    assert after.admit("a", 1.0) == "max_connections_per_source"


def test_a_relay_s_row_stays_its_own_although_nothing_is_counted_there() -> None:
    table = LimitTable()
    row = table.keep(7)
    same_place = 7 + (1 << 16)  # a row is looked for by the key's last bits
    assert table.find(same_place, 1.0) != row
    assert table.find(7, 1.0) == row


def test_a_row_is_free_again_when_nothing_is_counted_and_its_bucket_is_full() -> None:
    table = LimitTable()
    row, other, third = (7 + (each << 16) for each in range(3))
    at = table.find(row, 1.0)
    assert at is not None
    table.add(at, 1)
    assert table.find(other, 1.0) != at
    table.add(at, -1)
    assert table.take_token(at, Rate(1, 10.0), 1.0)
    assert table.find(third, 1.0) != at
    assert table.find(third + (1 << 16), 12.0) == at


def test_a_source_that_finds_no_room_is_bound_by_the_total_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "_ROWS", 64)
    admission = bound(LimitTable(), max_connections=300, max_connections_per_source=1)
    sources = [str(number) for number in range(200)]
    assert {admission.admit(source, 1.0) for source in sources} == {None}
    again = Counter(admission.admit(source, 1.0) for source in sources)
    assert again.keys() == {None, "max_connections_per_source", "max_connections"}
    assert again[None] == 100


def test_a_new_relay_is_bound_although_sources_fill_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "_ROWS", 64)
    table = LimitTable()
    flooded = bound(table, max_rate_per_source=Rate(1, 86_400.0))
    for source in map(str, range(1000)):
        assert flooded.admit(source, 1.0) is None
        flooded.release(source)
    listen = (parse_listen_address("127.0.0.1:2"),)
    added = Admission(RelayConfig("added", listen, (), max_connections=1), table)
    assert [added.admit("a", 1.0), added.admit("b", 1.0)] == [None, "max_connections"]
    assert [flooded.admit(str(number), 1.0) for number in range(10)].count("max_rate_per_source") > 8


def test_workers_count_together_and_a_dead_one_no_longer() -> None:
    made = LimitTable(2)
    tables = [made, LimitTable(2, 1, made.fd)]
    first, second = (bound(table, max_connections=3, max_connections_per_source=2) for table in tables)
    assert [first.admit("a", 1.0), second.admit("a", 1.0)] == [None, None]
    assert second.admit("a", 1.0) == "max_connections_per_source"
    assert second.admit("b", 1.0) is None
    assert first.admit("c", 1.0) == "max_connections"
    tables[0].forget_worker(1)
    assert [first.admit(source, 1.0) for source in "ac"] == [None, None]
    os.close(made.fd)


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
