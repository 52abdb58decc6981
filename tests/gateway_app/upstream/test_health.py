from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway_app.config.backends import BackendTlsConfig, HealthConfig
from gateway_app.upstream.endpoint import Endpoint
from gateway_app.upstream.health import HealthChecker, probe_url, take_result
from gateway_app.upstream.tls import client_context

Eventually = Callable[[Callable[[], bool]], Any]
FAST = HealthConfig(path="/healthz?full", interval=0.02, timeout=5.0, healthy_after=2, unhealthy_after=3)


class Service:
    """A tiny HTTP server: answers `status`, keeps what it was asked, and is silent while `is_stuck`."""

    def __init__(self) -> None:
        self.status = 200
        self.is_stuck = False
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.is_stuck:
                await reader.read()
            writer.write(b"HTTP/1.1 %d X\r\nlocation: /x\r\ncontent-length: 100000000\r\n\r\n" % self.status)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(service: Service, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(service, "127.0.0.1", port, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def probing(
    *endpoints: Endpoint, tls: ssl.SSLContext | None = None, config: HealthConfig = FAST
) -> AsyncIterator[HealthChecker]:
    checker = HealthChecker("users", config, tls, random.Random(1))
    for endpoint in endpoints:
        checker.watch(endpoint)
    yield checker
    await checker.aclose()


async def test_the_log_names_backend_and_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.status = 500
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        went_down = asyncio.Event()
        endpoint.hold(went_down.set)
        async with probing(endpoint), asyncio.timeout(5):
            await went_down.wait()

    assert f"backend users: http://127.0.0.1:{port} is down: status 500" in caplog.messages


async def test_what_is_asked() -> None:
    service = Service()
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        asked = asyncio.Event()
        endpoint.hold(asked.set)
        service.status = 500
        async with probing(endpoint), asyncio.timeout(5):
            await asked.wait()

    head = service.requests[0].lower()
    assert head.startswith(b"get /healthz?full http/1.1\r\n")
    assert b"host: 127.0.0.1:%d\r\n" % port in head
    assert b"user-agent: l47-gateway health check\r\n" in head


async def test_down_and_up_again_after_as_many_probes_as_configured(eventually: Eventually) -> None:
    service = Service()
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        async with probing(endpoint):
            await eventually(lambda: endpoint.probes_in_row >= 1)
            service.status = 503
            await eventually(lambda: endpoint.down)
            assert endpoint.probes_in_row <= -3
            assert endpoint.probe_error == "status 503"

            service.status = 302
            await eventually(lambda: not endpoint.down)
            assert endpoint.probes_in_row >= 2
            assert endpoint.probe_error == ""


async def test_a_killed_endpoint_comes_back_by_itself(
    eventually: Eventually, new_port: Callable[[], int]
) -> None:
    service = Service()
    async with listening(service, new_port()) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        async with probing(endpoint):
            await eventually(lambda: endpoint.probes_in_row >= 1)
    async with probing(endpoint):
        await eventually(lambda: endpoint.down)
        assert endpoint.probe_error
        async with listening(service, port):
            await eventually(lambda: not endpoint.down)


async def test_an_endpoint_that_cannot_be_asked_is_not_down(
    eventually: Eventually, no_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    service = Service()
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        checker = CountingChecker("users", FAST, None, random.Random(1))
        checker.watch(endpoint)
        await eventually(lambda: endpoint.probes_in_row >= 1)
        with no_descriptors():
            asked = checker.asked
            await eventually(lambda: checker.asked > asked + FAST.unhealthy_after)
            assert not endpoint.down
        await checker.aclose()


class CountingChecker(HealthChecker):
    """Counts the probes that have ended, whatever they told."""

    asked = 0

    async def _probe(self, client: httpx.AsyncClient, endpoint: Endpoint) -> str | None:
        try:
            return await super()._probe(client, endpoint)
        finally:
            self.asked += 1


async def test_silence_is_failure(eventually: Eventually) -> None:
    service = Service()
    service.is_stuck = True
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        async with probing(endpoint, config=FAST.model_copy(update={"timeout": 0.2})):
            await eventually(lambda: endpoint.down)
    assert endpoint.probe_error == "no answer within 0.2 s"


async def test_garbage_is_failure(eventually: Eventually) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01 what?\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with probing(endpoint):
            await eventually(lambda: endpoint.down)


async def test_unix_socket(tmp_path: Path, eventually: Eventually) -> None:
    service = Service()
    path = tmp_path / "app.sock"
    endpoint = Endpoint(f"http+unix:{path}")
    async with probing(endpoint):
        await eventually(lambda: endpoint.down)
        async with await asyncio.start_unix_server(service, path):
            await eventually(lambda: not endpoint.down)


async def test_tls_is_verified_by_the_name_in_the_url(tmp_path: Path, eventually: Eventually) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example.com").configure_cert(server_tls)
    service = Service()
    async with listening(service, tls=server_tls) as port:
        right = Endpoint(f"https://api.example.com:{port}", "127.0.0.1")
        wrong = Endpoint(f"https://other.example.com:{port}", "127.0.0.1")
        async with probing(right, wrong, tls=client_context(BackendTlsConfig.model_construct(ca=str(ca)))):
            await eventually(lambda: bool(right.probes_in_row and wrong.probes_in_row))
        assert right.state == "up"
        assert wrong.state == "down"
        assert "certificate" in wrong.probe_error.lower()

        unverified = Endpoint(f"https://other.example.com:{port}", "127.0.0.1")
        async with probing(unverified, tls=client_context(BackendTlsConfig(verify=False))):
            await eventually(lambda: bool(unverified.probes_in_row))
        assert unverified.state == "up"


async def test_in_process_endpoints_are_not_probed() -> None:
    async with probing(Endpoint("asgi:reports.app:app")) as checker:
        assert not checker.watched


async def test_forgotten_endpoints_are_asked_no_more(eventually: Eventually) -> None:
    service = Service()
    async with listening(service) as port:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        async with probing(endpoint) as checker:
            await eventually(lambda: endpoint.probes_in_row >= 1)
            await checker.forget(endpoint)
            await asyncio.sleep(5 * FAST.interval)  # what was on its way has arrived
            asked = len(service.requests)
            await asyncio.sleep(5 * FAST.interval)
            assert len(service.requests) == asked
            assert not checker.watched


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("F", "D"),  # the first decides alone
        ("P", "U"),
        ("PFFPFF", "UUUUUU"),
        ("PFFF", "UUUD"),
        ("FPP", "DDU"),
        ("FPFPP", "DDDDU"),
    ],
)
def test_thresholds(results: str, states: str) -> None:
    endpoint = Endpoint("http://127.0.0.1:1")
    seen = ""
    for result in results:
        take_result(endpoint, "broken" if result == "F" else "", healthy_after=2, unhealthy_after=3)
        seen += "D" if endpoint.down else "U"

    assert seen == states


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (Endpoint("http://[::1]:81"), "http://[::1]:81/up"),
        (Endpoint("https://api.example.com", "192.0.2.1"), "https://192.0.2.1:443/up"),
        (Endpoint("http+unix:/run/app.sock"), "http://localhost/up"),
    ],
)
def test_the_address_itself_is_asked(endpoint: Endpoint, url: str) -> None:
    assert probe_url(endpoint, "/up") == url
