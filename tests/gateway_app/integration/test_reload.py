"""The file changes while requests run: new ones see the new file, nothing that runs is disturbed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

CONFIG = """
[gateway]
listen = ["127.0.0.1:PORT"]
access_log = "off"
[admin]
listen = "127.0.0.1:ADMIN_PORT"
[backends.service]
endpoints = [{ url = "http://127.0.0.1:ENDPOINT", weight = WEIGHT }, "http://127.0.0.1:NOBODY"]
health = { path = "/healthz", interval = "5m", timeout = "20s" }  # the test stands still while it starts
[middleware.few]
type = "rate_limit"
limit = "5/hour"
[middleware.stamp]
type = "headers"
set_response = { x-version = "VERSION" }
[[routes]]
name = "service"
match = { path = "/service/*" }
middleware = ["stamp"]
backend = "service"
[[routes]]
name = "few"
match = { path = "/few" }
middleware = ["few"]
respond = { body = "few" }
[[routes]]
name = "version"
match = { path = "/version" }
respond = { body = "VERSION" }
"""

FAILING_TEST = """
[[test]]
name = "few is ours"
request = { url = "/few" }
expect = { route = "version" }
"""


class Endpoint:
    """Answers "ok"; what asks for `/service/held` waits until it is released. Counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/held" in head:
                    self.arrived.set()
                    await self.released.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def endpoint() -> Endpoint:
    return Endpoint()


Configure = Callable[..., str]


@pytest.fixture
async def configure(endpoint: Endpoint, free_ports: Callable[[int], list[int]]) -> AsyncIterator[Configure]:
    """Make the file's text for a version."""
    server = await asyncio.start_server(endpoint, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (nobody,) = free_ports(1)

    def make(version: str, weight: int = 1) -> str:
        text = CONFIG.replace("VERSION", version).replace("WEIGHT", str(weight))
        return text.replace("ENDPOINT", str(port)).replace("NOBODY", str(nobody))

    yield make
    endpoint.released.set()
    server.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


async def version_is(client: httpx.AsyncClient, gateway: Any, version: str) -> None:
    async def holds() -> bool:
        return (await client.get(f"{gateway.url}/version")).text == version

    await until(holds)


async def reloads_are(client: httpx.AsyncClient, gateway: Any, result: str, count: int) -> None:
    line = f'l47_gateway_config_reloads_total{{result="{result}"}} {count}.0'

    async def holds() -> bool:
        return line in (await client.get(f"http://127.0.0.1:{gateway.admin_port}/metrics")).text.splitlines()

    await until(holds)


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_saving_the_file_swaps_what_is_served(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, server: str
) -> None:
    gateway = serve_gateway(configure("one"), server=server)
    await version_is(client, gateway, "one")
    gateway.write(configure("two"))
    await version_is(client, gateway, "two")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("[[routes]\n", "routes.toml:1"),
        ("[[routes]]\nname = 'x'\nbackend = 'nobody'\n", "nobody"),
        (FAILING_TEST, "few is ours"),
    ],
    ids=["no TOML", "an error", "a failing test"],
)
async def test_a_broken_file_is_told_and_changes_nothing(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, broken: str, told: str
) -> None:
    gateway = serve_gateway(configure("one"))
    gateway.write(broken if told != "few is ours" else configure("two") + broken)
    await reloads_are(client, gateway, "failed", 1)
    assert told in gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()
    await version_is(client, gateway, "one")
    gateway.write(configure("three"))
    await version_is(client, gateway, "three")


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_sighup_reads_the_file_again(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, server: str
) -> None:
    gateway = serve_gateway(configure("one"), server=server)
    gateway.process.send_signal(signal.SIGHUP)  # the file is the same: it is the signal that counts
    await reloads_are(client, gateway, "ok", 1)


async def test_a_request_ends_on_what_it_began_with(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    gateway = serve_gateway(configure("one"))
    held = asyncio.create_task(client.get(f"{gateway.url}/service/held"))
    await asyncio.wait_for(endpoint.arrived.wait(), 10)
    without_service = configure("two").partition("[[routes]]")[0] + (
        "[[routes]]\nname = 'version'\nmatch = { path = '/version' }\nrespond = { body = 'two' }\n"
    )
    without_service = without_service.replace("[backends.service]", "[backends.other]")
    gateway.write(without_service)
    await version_is(client, gateway, "two")
    assert (await client.get(f"{gateway.url}/service/x")).status_code == 404
    endpoint.released.set()
    answer = await held
    assert (answer.status_code, answer.text, answer.headers["x-version"]) == (200, "ok", "one")


async def test_what_did_not_change_goes_on(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    """Connections, health, counters and used-up limits are those of before, also where a weight changes."""
    gateway = serve_gateway(configure("one"))

    async def endpoints() -> list[tuple[dict[str, int], int]]:
        answer = await client.get(f"http://127.0.0.1:{gateway.admin_port}/status")
        known = answer.json()["backends"]["service"]["endpoints"]
        return [(each["states"], each["requests"]) for each in known]

    async def one_is_down() -> bool:
        return {"down": 1} in [states for states, _ in await endpoints()]

    await until(one_is_down)
    for _ in range(4):
        assert (await client.get(f"{gateway.url}/service/x")).text == "ok"
        assert (await client.get(f"{gateway.url}/few")).status_code == 200
    connections = endpoint.connections
    gateway.write(configure("two"))
    await version_is(client, gateway, "two")
    gateway.write(configure("three", weight=3))
    await version_is(client, gateway, "three")

    assert await endpoints() == [({"up": 1}, 4), ({"down": 1}, 0)]
    for _ in range(4):
        assert (await client.get(f"{gateway.url}/service/x")).text == "ok"
    statuses = [(await client.get(f"{gateway.url}/few")).status_code for _ in range(2)]
    assert statuses == [200, 429]
    assert endpoint.connections - connections <= 1  # the new backend's probe


async def test_two_hundred_reloads_under_load_lose_no_request(
    serve_gateway: Any, configure: Configure, client: httpx.AsyncClient, make_load: Any
) -> None:
    gateway = serve_gateway(configure("0"))
    async with make_load(f"{gateway.url}/service/x", clients=4) as load:
        await load.answers(20)
        for number in range(1, 201):
            gateway.write(configure(str(number), weight=1 + number % 2))
            gateway.process.send_signal(signal.SIGHUP)  # the watch waits for an editor to be done with it
            await version_is(client, gateway, str(number))
        answers = await load.answers(20)
    assert set(answers) == {"ok"}
    assert not load.lost
    assert load.seen.total() > 200
