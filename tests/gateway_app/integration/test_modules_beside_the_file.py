"""Modules that lie beside `routes.toml` are found, whatever reads the file and wherever it is started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE_S = 30.0

SHOP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"PLACE"})
"""
MIDDLEWARE = """
class Pass:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)
"""
ROUTES = """
[gateway]
listen = ["127.0.0.1:PORT"]
[backends.shop]
endpoints = ["asgi:beside_shop:app"]
[middleware.pass]
type = "beside_pass:Pass"
[[routes]]
name = "shop"
middleware = ["pass"]
backend = "shop"
"""


@pytest.fixture
def port(new_port: Callable[[], int]) -> int:
    return new_port()


@pytest.fixture
def file(tmp_path: Path, port: int) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "beside_shop.py").write_text(SHOP.replace("PLACE", "beside the file"))
    (directory / "beside_pass.py").write_text(MIDDLEWARE)
    file = directory / "routes.toml"
    file.write_text(ROUTES.replace("PORT", str(port)))
    return file


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("command", [["check"], ["routes"], ["explain", "GET", "/"]])
def test_a_command_finds_them(command: list[str], file: Path, elsewhere: Path) -> None:
    arguments = [sys.executable, "-m", "gateway_app", *command, "--config", str(file)]
    done = subprocess.run(arguments, cwd=elsewhere, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "")


def served(arguments: list[str], file: Path, directory: Path, port: int) -> bytes:
    """What the gateway answers that `arguments` start."""
    server = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=directory,
        env={**os.environ, "GATEWAY_CONFIG": str(file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE_S) as answer:
                    return bytes(answer.read())
            except OSError:
                assert time.monotonic() < deadline, "it does not answer"
                assert server.poll() is None, "it has ended"
                time.sleep(0.02)
    finally:
        server.terminate()
        server.wait(DEADLINE_S)


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
def test_what_gateway_serve_starts_finds_them(server: str, file: Path, elsewhere: Path, port: int) -> None:
    arguments = ["gateway_app", "serve", "--server", server]
    assert served(arguments, file, elsewhere, port) == b"beside the file"


def test_hypercorn_finds_them(file: Path, elsewhere: Path, port: int) -> None:
    arguments = ["hypercorn", "gateway_app:app", "-b", f"127.0.0.1:{port}"]
    assert served(arguments, file, elsewhere, port) == b"beside the file"


def test_those_in_the_working_directory_come_first(file: Path, elsewhere: Path, port: int) -> None:
    (elsewhere / "beside_shop.py").write_text(SHOP.replace("PLACE", "working directory"))
    assert served(["gateway_app", "serve"], file, elsewhere, port) == b"working directory"
