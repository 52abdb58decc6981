"""What the relay tells about itself stays true over reloads, lists and workers."""

from typing import Any

from l4relay.observe.status import Status, merge, render_metrics


def merged(relay: Any, workers: int = 1) -> Status:
    return merge([relay.worker.status() for _ in range(workers)])


async def test_a_reload_keeps_the_counts_and_adds_no_connection_twice(
    start_relay: Any, start_server: Any, until: Any
) -> None:
    relay = await start_relay(endpoints=[await start_server()])
    for _ in range(3):
        await relay.exchange()
    await until(lambda: relay.relay()["active"] == 0)
    reader, writer = await relay.connect()
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    relay.path.write_text(relay.path.read_text() + 'idle_timeout = "60s"\n')
    assert await relay.worker.reload()
    [status] = merged(relay)["relays"]
    [endpoint] = status["endpoints"]
    assert (status["active"], status["accepted"], status["ended"]) == (1, 4, {"client_closed": 3})
    assert (endpoint["active"], endpoint["total"]) == (1, 4)
    writer.close()
    await until(lambda: relay.relay()["ended"] == {"client_closed": 4})
    await until(lambda: relay.relay()["active"] == 0)
    assert (relay.relay()["bytes_sent"], relay.relay()["accepted"]) == (16, 4)


async def test_an_address_of_several_lists_is_one_series(start_relay: Any, start_server: Any) -> None:
    address = await start_server()
    relay = await start_relay(endpoints=[address], sni={"a.example": [address], "b.example": [address]})
    assert await relay.exchange() == b"hello"
    status = merged(relay, workers=2)
    assert [each["total"] for each in status["relays"][0]["endpoints"]] == [2]
    series = [line.rpartition(" ")[0] for line in render_metrics(status).splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
