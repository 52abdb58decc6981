"""One of three endpoint processes dies under load: no idempotent request is lost, it comes back by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ENDPOINT = '''
"""Answers with the number of its port."""

import asyncio
import sys

PORT = int(sys.argv[1])


async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            await asyncio.sleep(0.002)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%d" % (len(str(PORT)), PORT))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    await server.serve_forever()


asyncio.run(main())
'''

CONFIG = """
[gateway]
listen = ["127.0.0.1:PORT"]
access_log = "off"
[admin]
listen = "127.0.0.1:ADMIN_PORT"
[backends.three]
endpoints = [ENDPOINTS]
BACKEND
[[routes]]
name = "all"
match = { path = "/*" }
backend = "three"
"""

RETRY = 'retry = { attempts = 2, on = ["connect", "reset"] }'
HEALTH = 'health = { path = "/", interval = "200ms", timeout = "2s", unhealthy_after = 2, healthy_after = 1 }'
OUTLIER = 'outlier = { consecutive_failures = 3, eject_for = "500ms" }'


class Endpoints:
    """Three processes that can be killed and started again at the same ports."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.ports = ports
        self._program = directory / "endpoint.py"
        self._program.write_text(ENDPOINT)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for port in ports:
            self.start(port)

    def start(self, port: int) -> None:
        self._processes[port] = subprocess.Popen([sys.executable, str(self._program), str(port)])

    def kill(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGKILL)
        self._processes[port].wait()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def endpoints(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Endpoints]:
    endpoints = Endpoints(tmp_path, free_ports(3))
    yield endpoints
    endpoints.close()


@pytest.fixture
def serve(serve_gateway: Any, endpoints: Endpoints) -> Callable[[str], Any]:
    def start(backend: str) -> Any:
        urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in endpoints.ports)
        return serve_gateway(CONFIG.replace("ENDPOINTS", urls).replace("BACKEND", backend))

    return start


@pytest.mark.parametrize("finds_out", [HEALTH, OUTLIER, ""], ids=["health", "outlier", "neither"])
async def test_a_killed_endpoint_loses_no_idempotent_request(
    serve: Callable[[str], Any], endpoints: Endpoints, make_load: Any, finds_out: str
) -> None:
    gateway = serve(f"{RETRY}\n{finds_out}")
    killed, *others = endpoints.ports
    async with make_load(gateway.url) as load:
        await load.becomes(*map(str, endpoints.ports))
        endpoints.kill(killed)
        await load.answers(400)
        await load.becomes(*map(str, others))
        endpoints.start(killed)
        await load.becomes(*map(str, endpoints.ports))
    assert not load.lost


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_retry_table_what_cannot_be_sent_goes_elsewhere(
    serve: Callable[[str], Any], endpoints: Endpoints, make_load: Any, method: str
) -> None:
    """Only what the endpoint was answering when it was killed is lost: nobody knows whether it was done."""
    gateway = serve("")
    killed, *others = endpoints.ports
    endpoints.kill(killed)
    async with make_load(gateway.url, method) as load:
        assert set(await load.answers(200)) == {str(port) for port in others}
        endpoints.start(killed)
        await load.becomes(*map(str, endpoints.ports))
    assert not load.lost


async def test_where_all_are_gone_the_client_hears_it_after_each_was_asked_once(
    serve: Callable[[str], Any], endpoints: Endpoints
) -> None:
    gateway = serve("")
    for port in endpoints.ports:
        endpoints.kill(port)
    async with httpx.AsyncClient() as client:
        answer = await client.get(gateway.url)
    assert answer.status_code == 502
    assert answer.headers["proxy-status"] == "l47-gateway; error=connection_refused"
    metrics = gateway.admin("/metrics")[1].splitlines()
    failures = [line for line in metrics if line.startswith("l47_gateway_upstream_failures_total{")]
    assert len(failures) == 3
    assert all(line.endswith(" 1.0") for line in failures), failures
