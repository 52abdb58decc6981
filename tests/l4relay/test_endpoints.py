"""Endpoints that come and go: health checks, ejection, backups, slow start, names."""

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from l4relay import health
from l4relay.addresses import InetAddress
from l4relay.config.model import EndpointConfig, OutlierConfig, RelayConfig
from l4relay.dns.resolve import Resolution, ResolveError
from l4relay.endpoints import Group, Registry


def group(*configs: EndpointConfig, slow_start: float = 0.0, registry: Registry | None = None) -> Group:
    outlier = OutlierConfig(consecutive_failures=2, eject_for=10.0)
    relay = RelayConfig("test", (), configs, slow_start=slow_start, outlier=outlier)
    return Group("test", configs, relay, Registry() if registry is None else registry, lambda endpoint: None)


def at(port: int, **options: Any) -> EndpointConfig:
    return EndpointConfig(InetAddress("127.0.0.1", port), **options)


def shares(of: Group, turns: int) -> dict[str, int]:
    chosen = [of.choose("192.0.2.1") for _ in range(turns)]
    keys = [endpoint.key for endpoint in chosen if endpoint is not None]
    return {key.rpartition(":")[2]: keys.count(key) for key in keys}


def test_what_the_connections_of_before_a_reload_find_counts_after_it() -> None:
    registry = Registry()
    before, after = (group(at(1), at(2), registry=registry) for _ in range(2))
    first, _ = before.endpoints
    for _ in range(2):
        before.failed(first, now=0.0)
    after.tick(now=0.1)
    assert shares(after, 4) == {"2": 4}
    before.tick(now=10.0)
    after.tick(now=10.0)
    assert shares(after, 4) == {"1": 2, "2": 2}


def test_backups_stand_by_until_all_others_are_down() -> None:
    endpoints = group(at(1), at(2), at(3, backup=True))
    first, second, _ = endpoints.endpoints
    assert shares(endpoints, 4) == {"1": 2, "2": 2}
    endpoints.checked(first, is_well=False, needed=1, now=0.0)
    assert shares(endpoints, 4) == {"2": 4}
    endpoints.checked(second, is_well=False, needed=1, now=0.0)
    assert shares(endpoints, 4) == {"3": 4}
    endpoints.checked(first, is_well=True, needed=1, now=0.0)
    assert shares(endpoints, 4) == {"1": 4}


def test_when_nobody_is_well_all_but_the_backups_are_tried() -> None:
    endpoints = group(at(1), at(2), at(3, backup=True))
    for endpoint in endpoints.endpoints:
        endpoints.checked(endpoint, is_well=False, needed=1, now=0.0)
    assert shares(endpoints, 4) == {"1": 2, "2": 2}
    only_a_backup = group(at(1, backup=True))
    only_a_backup.checked(only_a_backup.endpoints[0], is_well=False, needed=1, now=0.0)
    assert shares(only_a_backup, 4) == {"1": 4}


def test_thresholds_want_answers_in_a_row() -> None:
    endpoints = group(at(1))
    [endpoint] = endpoints.endpoints
    for is_well in (False, False, True, False, False):
        endpoints.checked(endpoint, is_well, needed=3, now=0.0)
    assert endpoint.is_up
    endpoints.checked(endpoint, is_well=False, needed=3, now=0.0)
    assert not endpoint.is_up


def test_failures_of_live_connections_eject_for_a_while() -> None:
    endpoints = group(at(1), at(2))
    first, second = endpoints.endpoints
    for _ in range(2):
        endpoints.failed(first, now=100.0)
        endpoints.failed(second, now=100.0)
    assert (first.state, second.state) == ("ejected", "up")  # half of them at most
    assert shares(endpoints, 4) == {"2": 4}
    endpoints.tick(110.0)
    assert shares(endpoints, 4) == {"1": 2, "2": 2}


def test_an_endpoint_that_comes_back_starts_slowly() -> None:
    endpoints = group(at(1), at(2), slow_start=100.0)
    first, _ = endpoints.endpoints
    endpoints.checked(first, is_well=False, needed=1, now=0.0)
    endpoints.checked(first, is_well=True, needed=1, now=1000.0)
    assert shares(endpoints, 110)["1"] == 10
    endpoints.tick(1050.0)
    assert shares(endpoints, 90)["1"] == 30
    endpoints.tick(1100.0)
    assert shares(endpoints, 100)["1"] == 50


def test_a_name_stands_for_all_its_addresses_and_keeps_those_that_stay() -> None:
    named = EndpointConfig(InetAddress("service.example", 80))
    endpoints = group(named)
    assert endpoints.choose("192.0.2.1") is None
    endpoints.set_addresses(named, [InetAddress("192.0.2.1", 80), InetAddress("192.0.2.2", 80)])
    before = endpoints.endpoints
    endpoints.set_addresses(named, [InetAddress("192.0.2.2", 80), InetAddress("2001:db8::1", 80)])
    assert endpoints.endpoints[0] is before[1]
    assert [endpoint.key for endpoint in endpoints.endpoints] == ["192.0.2.2:80", "[2001:db8::1]:80"]


def test_a_name_that_is_resolved_again_keeps_its_slow_start() -> None:
    named = EndpointConfig(InetAddress("service.example", 80))
    endpoints = group(named, slow_start=100.0)
    endpoints.set_addresses(named, [InetAddress("192.0.2.1", 80)])
    [endpoint] = endpoints.endpoints
    for is_well in (False, True):
        endpoints.checked(endpoint, is_well, needed=1, now=0.0)
    endpoints.set_addresses(named, [InetAddress("192.0.2.1", 80)])
    assert endpoint.weight == 0.1


class Nameserver:
    """Gives one answer after the other; without one it waits for the gate."""

    def __init__(self, *answers: Resolution) -> None:
        self.answers = list(answers)
        self.gate = asyncio.Event()
        self.asked = 0

    def __call__(self) -> "Nameserver":
        return self

    async def resolve(self, host: str) -> Resolution:
        self.asked += 1
        if not self.answers:
            await self.gate.wait()
        if not self.answers:
            raise ResolveError("no nameserver answers")
        return self.answers.pop(0)


async def test_a_reload_while_no_nameserver_answers_keeps_the_addresses(
    start_relay: Any, start_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameserver = Nameserver(Resolution(("127.0.0.1",), 60.0))
    nameserver.gate.set()
    monkeypatch.setattr("l4relay.worker.Resolver", nameserver)
    port = (await start_server()).rpartition(":")[2]
    relay = await start_relay(endpoints=[f"service.example:{port}"])
    assert await relay.exchange() == b"hello"
    relay.path.write_text(relay.path.read_text() + 'idle_timeout = "60s"\n')
    assert await relay.worker.reload()
    assert await relay.exchange() == b"hello"


async def test_a_name_is_asked_for_again_when_its_time_is_over(
    start_relay: Any, start_server: Any, free_port: int, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(b"second")

    port = free_port
    await start_server(address=f"127.0.0.1:{port}")
    await start_server(say_second, address=f"127.0.0.2:{port}")
    nameserver = Nameserver(Resolution(("127.0.0.1",), 0.01))
    monkeypatch.setattr("l4relay.worker.Resolver", nameserver)
    relay = await start_relay(endpoints=[f"service.example:{port}"])
    assert await relay.exchange() == b"hello"
    nameserver.answers.append(Resolution(("127.0.0.2",), 60.0))
    nameserver.gate.set()
    await until(lambda: relay.relay()["endpoints"][0]["address"] == f"127.0.0.2:{port}")
    assert await relay.exchange() == b"second"


async def test_a_stop_that_meets_a_reload_drains_all_the_same(
    start_relay: Any, start_server: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameserver = Nameserver()
    monkeypatch.setattr("l4relay.worker.Resolver", nameserver)
    address = await start_server()
    relay = await start_relay(endpoints=[address])
    port = relay.port
    reader, writer = await relay.connect()
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    relay.path.write_text(relay.path.read_text().replace(address, "service.example:1"))
    reloading = asyncio.create_task(relay.worker.reload())
    await until(lambda: nameserver.asked == 1)
    relay.worker.stop()
    await asyncio.sleep(0)
    nameserver.gate.set()
    assert await reloading
    await until(lambda: not relay.worker.listeners)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"y")
    assert await reader.read(1) == b"y"
    writer.close()
    await until(lambda: relay.relay()["ended"] == {"client_closed": 1})


async def test_a_dead_endpoint_is_found_and_found_again(
    start_relay: Any, start_server: Any, refused_address: str, until: Any
) -> None:
    relay = await start_relay(
        endpoints=[refused_address, await start_server()],
        health={"interval": "30ms", "healthy_after": 1, "unhealthy_after": 2},
    )
    await until(lambda: relay.relay()["endpoints"][0]["state"] == "down")
    assert await relay.exchange() == b"hello"
    assert "attempts" not in (await relay.ended())[0]  # nobody tried it
    await start_server(address=refused_address)
    await until(lambda: relay.relay()["endpoints"][0]["state"] == "up")


async def test_an_endpoint_that_refuses_clients_is_left_alone_for_a_while(
    start_relay: Any, start_server: Any, refused_address: str
) -> None:
    relay = await start_relay(
        endpoints=[refused_address, await start_server()],
        outlier={"consecutive_failures": 2, "eject_for": "1h"},
    )

    def state() -> Any:
        return relay.relay()["endpoints"][0]["state"]

    while state() == "up":
        assert await relay.exchange() == b"hello"
    failures = relay.relay()["endpoints"][0]["failures"]
    assert (state(), failures) == ("ejected", 2)
    for _ in range(4):
        assert await relay.exchange() == b"hello"
    assert relay.relay()["endpoints"][0]["failures"] == 2
    relay.worker.relays[0].tick(time.monotonic() + 3601)
    assert state() == "up"


@pytest.mark.parametrize(("expect", "state"), [("+PONG", "up"), ("-ERR", "down")])
async def test_a_check_compares_the_answer(
    start_relay: Any, start_server: Any, until: Any, expect: str, state: str
) -> None:
    asked = []

    async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"+PO")
        await asyncio.sleep(0.01)
        writer.write(b"NG\r\n")

    relay = await start_relay(
        endpoints=[await start_server(pong)],
        health={"interval": "20ms", "unhealthy_after": 1, "send": "PING\r\n", "expect": expect},
    )
    await until(lambda: len(asked) > 2)
    await until(lambda: relay.relay()["endpoints"][0]["state"] == state)


@pytest.mark.parametrize("health", [{}, {"send": "ping"}])
async def test_udp_endpoints_are_asked_too(
    start_relay: Any, refused_address: str, until: Any, health: dict[str, str]
) -> None:
    class Answer(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, datagram: bytes, peer: Any) -> None:
            self.transport.sendto(b"pong", peer)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Answer, local_addr=("127.0.0.1", 0)
    )
    alive = "127.0.0.1:" + str(transport.get_extra_info("sockname")[1])
    relay = await start_relay(
        listen="udp://127.0.0.1:0",
        endpoints=[refused_address, alive],
        health={"interval": "20ms", "timeout": "500ms", "unhealthy_after": 2, **health},
    )
    await until(lambda: [each["state"] for each in relay.relay()["endpoints"]] == ["down", "up"])
    transport.close()


async def test_without_descriptors_nobody_is_taken_for_ill(
    start_relay: Any, start_server: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    ask = health._ask

    async def counted(*arguments: Any) -> None:
        nonlocal asked
        await ask(*arguments)
        asked += 1

    monkeypatch.setattr(health, "_ask", counted)
    relay = await start_relay(
        endpoints=[await start_server()], health={"interval": "10ms", "unhealthy_after": 1}
    )
    await until(lambda: asked > 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        before = asked
        await until(lambda: asked > before + 2)
        assert relay.relay()["endpoints"][0]["state"] == "up"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1])
async def test_without_descriptors_it_waits_and_goes_on(
    start_relay: Any, start_server: Any, until: Any, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    """None is left for the client's socket, or one for that and none for the endpoint's."""
    relay = await start_relay(endpoints=[await start_server()])
    assert await relay.exchange() == b"hello"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        highest = os.dup(client.fileno())
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left, hard))
        try:
            client.connect_ex(("127.0.0.1", relay.port))
            await until(lambda: "accepting nothing" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if left:  # closed, since nothing could be done for it
            assert await asyncio.wait_for(loop.sock_recv(client, 5), 5) == b""
        else:  # it has waited in the backlog
            await loop.sock_sendall(client, b"hello")
            assert await asyncio.wait_for(loop.sock_recv(client, 5), 5) == b"hello"
    assert await relay.exchange() == b"hello"


WITHOUT_IPV6 = """
import asyncio, socket, sys
from pathlib import Path
from l4relay.config.load import load
from l4relay.worker import Worker

sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 7))

def echo_over_udp():
    while True:
        sock.sendto(*sock.recvfrom(100))

async def main():
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 7):
        asyncio.get_running_loop().run_in_executor(None, echo_over_udp)
        worker = Worker(Path(sys.argv[1]), load(Path(sys.argv[1])))
        running = asyncio.create_task(worker.run())
        while not worker.listeners:
            await asyncio.sleep(0)
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", 8)
            writer.write(b"over TCP ")
            sys.stderr.write((await reader.read(100)).decode())
            writer.close()
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(("127.0.0.1", 8))
                client.send(b"over UDP ")
                async with asyncio.timeout(5):
                    sys.stderr.write((await asyncio.get_running_loop().sock_recv(client, 100)).decode())
        sys.stderr.flush()
        os._exit(0)

import os
asyncio.run(main())
"""


def test_where_ipv6_is_off_its_endpoints_are_passed_over(tmp_path: Path) -> None:
    """The kernel says EADDRNOTAVAIL then, as it does when local ports are used up."""
    path = tmp_path / "routes.toml"
    path.write_text(
        '[l4relay]\nlog = "off"\n'
        '[[relay]]\nname = "tcp"\nlisten = "127.0.0.1:8"\nendpoints = ["[::1]:7", "127.0.0.1:7"]\n'
        '[[relay]]\nname = "udp"\nlisten = "udp://127.0.0.1:8"\nendpoints = ["[::1]:7", "127.0.0.1:7"]\n'
    )
    set_up = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6 && echo ready >&2"
    inside = ["unshare", "--map-root-user", "--net", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or b"ready" not in subprocess.run([*inside, set_up], capture_output=True, check=False).stderr
    ):
        pytest.skip("needs a network namespace of its own")
    command = f'{set_up} && exec "$0" -c "$1" "$2"'
    ran = subprocess.run(
        [*inside, command, sys.executable, WITHOUT_IPV6, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stderr == "ready\n" + 4 * "over TCP over UDP ", ran
