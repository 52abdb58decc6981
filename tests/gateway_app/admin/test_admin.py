import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_app.admin.listener import is_local, open_listener
from gateway_app.admin.server import AdminServer
from gateway_app.observe.metrics import Metrics


class Backend:
    def status(self) -> dict[str, object]:
        endpoint = {
            "endpoint": "http://127.0.0.1:9001",
            "state": "up",
            "weight": 1.0,
            "backup": False,
            "active": 1,
            "requests": 10,
            "failures": 2,
            "probe_error": "",
            "connections": {"open": 2, "idle": 1},
        }
        return {"balance": "round_robin", "endpoints": [endpoint]}


class View:
    """A worker, as the admin listener sees it."""

    config_path = Path("routes.toml")
    started_at = 1000.0
    loaded_at = 2000.0
    is_ready = True
    backends: Mapping[str, Backend] = {"users": Backend()}

    def routes(self) -> list[dict[str, object]]:
        return [{"name": "users", "path": "/api/*"}]


@asynccontextmanager
async def serving(
    directory: Path, listen: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[AdminServer, View, Metrics]]:
    metrics, view = Metrics(directory), View()
    admin = AdminServer(listen, view, metrics)
    try:
        await admin.start()
        yield admin, view, metrics
    finally:
        await admin.aclose()
        metrics.close()


def client_of(admin: AdminServer) -> httpx.AsyncClient:
    assert isinstance(admin.address, tuple)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin.address[1]}", trust_env=False)


async def test_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as (admin, view, metrics), client_of(admin) as client:
        metrics.unrouted.observe("", 404, 0.1, 0, 0)
        name = metrics.writer.name
        page = await client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'l47_gateway_requests_total{backend="",code="404",route=""} 1.0' in page.text
        assert "l47_gateway_config_loaded_timestamp_seconds 2000.0" in page.text
        metrics.in_flight = 3
        status = (await client.get("/status")).json()
        assert status["config"] == "routes.toml"
        assert status["in_flight"] == 3
        assert status["backends"]["users"]["endpoints"][0]["states"] == {"up": 1}
        assert (await client.get("/routes")).json() == [{"name": "users", "path": "/api/*"}]
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        view.is_ready = False
        assert (await client.get("/readyz")).status_code == 503
        assert "/metrics" in (await client.get("/")).text
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.post("/status")).status_code == 405
    assert sorted(os.listdir(tmp_path)) == [f"{name}.series", f"{name}.values", "admin.lock", "lock"]


async def serve_worker(directory: Path, port: str) -> None:
    """A worker, which runs this file: serves until it is told to end."""
    async with serving(directory, f"127.0.0.1:{port}") as (_, _, metrics):
        metrics.unrouted.observe("", 404, 0.1, 0, 0)
        metrics.in_flight = 2
        metrics.sample()
        print("serving", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def start_worker(directory: Path, port: int) -> asyncio.subprocess.Process:
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(directory),
        str(port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"serving\n"
    return worker


async def test_any_worker_answers_for_all(tmp_path: Path, new_port: Callable[[], int]) -> None:
    port = new_port()
    workers = [await start_worker(tmp_path, port) for _ in range(2)]

    async def ask(page: str) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:  # a connection of its own, to any worker
            return (await client.get(f"http://127.0.0.1:{port}{page}")).text

    for _ in range(8):
        assert 'l47_gateway_requests_total{backend="",code="404",route=""} 2.0' in await ask("/metrics")
        status: dict[str, Any] = json.loads(await ask("/status"))
        assert {worker["pid"] for worker in status["workers"]} == {worker.pid for worker in workers}
        assert status["in_flight"] == 4
        (endpoint,) = status["backends"]["users"]["endpoints"]
        assert (endpoint["states"], endpoint["requests"], endpoint["connections"]["open"]) == (
            {"up": 2},
            20,
            4,
        )

    another_gateway = tmp_path / "another"
    another_gateway.mkdir()
    with pytest.raises(OSError, match="another program listens there"):
        open_listener(f"127.0.0.1:{port}", another_gateway, "worker")

    await workers[0].communicate(b"")
    for _ in range(4):
        status = json.loads(await ask("/status"))
        assert [worker["pid"] for worker in status["workers"]] == [workers[1].pid]
        assert 'code="404",route=""} 2.0' in await ask("/metrics")
    await workers[1].communicate(b"")
    assert [worker.returncode for worker in workers] == [0, 0]


async def test_an_address_in_use_ends_the_start_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot use {address}: another program listens there"):
            async with serving(tmp_path, address):
                pass


async def test_a_unix_socket_is_served_by_one_worker(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(tmp_path, f"unix:{path}") as (first, _, _):
        async with serving(tmp_path, f"unix:{path}") as (second, _, _):
            assert second.address is None
        assert first.address == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("http://admin/healthz")).text == "ok\n"
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with serving(tmp_path, f"unix:{path}") as (
        third,
        _,
        _,
    ):  # left behind by a kill
        assert third.address == str(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="another program listens there"):
        open_listener(f"unix:{tmp_path}/file", tmp_path, "w")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("gateway.internal:1", False),
    ],
)
def test_who_can_reach_an_address(listen: str, local: bool) -> None:
    assert is_local(listen) is local


async def test_a_listener_for_everyone_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, "0.0.0.0:0"):
        pass
    assert "can be reached from other machines" in caplog.text


if __name__ == "__main__":
    asyncio.run(serve_worker(Path(sys.argv[1]), sys.argv[2]))
