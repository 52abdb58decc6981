"""What a worker takes, and when: nothing before its start, nothing that it keeps after one that fails."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from gateway_app.config.errors import ConfigErrors
from gateway_app.observe.run_directory import VARIABLE
from gateway_app.worker import Worker

ROUTES = """
[gateway]
access_log = "off"
[admin]
listen = "127.0.0.1:PORT"
[[routes]]
name = "hello"
respond = { body = "hello" }
"""


STARTING = """
from pathlib import Path

def tell(line):
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(f"{line}\\n")

class Good:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

    async def startup(self):
        tell("started")

    async def shutdown(self):
        tell("shut down")

class Bad(Good):
    async def startup(self):
        raise RuntimeError("no database")
"""


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv(VARIABLE, str(directory))
    return directory


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*"))


def routes_file(directory: Path, port: int) -> Path:
    path = directory / "routes.toml"
    path.write_text(ROUTES.replace("PORT", str(port)))
    return path


async def test_nothing_is_on_disk_before_the_start(tmp_path: Path, run_directory: Path) -> None:
    worker = Worker(routes_file(tmp_path, 0))
    assert files_in(run_directory) == []
    await worker.start()
    try:
        assert files_in(run_directory) != []
    finally:
        await worker.aclose()


async def test_a_start_that_has_failed_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, run_directory: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = Worker(routes_file(tmp_path, taken.getsockname()[1]))
        with pytest.raises(OSError, match="another program listens there"):
            await worker.start()
    assert worker.snapshot is None
    assert not worker.is_ready
    await worker.start()
    assert worker.is_ready
    await worker.aclose()


async def test_a_wrong_file_can_be_mended(tmp_path: Path, run_directory: Path) -> None:
    path = routes_file(tmp_path, 0)
    text = path.read_text()
    path.write_text("[gatway]")
    worker = Worker(path)
    with pytest.raises(ConfigErrors):
        await worker.start()
    assert files_in(run_directory) == []
    path.write_text(text)
    await worker.start()
    await worker.aclose()


async def test_a_backend_that_cannot_be_set_up_is_told_with_its_line(
    tmp_path: Path, run_directory: Path
) -> None:
    path = routes_file(tmp_path, 0)
    backend = '[backends.b]\nendpoints = ["https://127.0.0.1:1"]\ntls = { ca = "ca.pem" }\n'
    (tmp_path / "ca.pem").write_text("no certificate")
    path.write_text(path.read_text() + backend)
    worker = Worker(path)
    with pytest.raises(
        ConfigErrors, match=rf"routes\.toml:{len(path.read_text().splitlines()) - 2}: .*set up"
    ):
        await worker.start()
    assert worker.snapshot is None
    assert not worker.backends


async def test_an_application_that_exits_while_it_is_imported_does_not_end_the_gateway(
    tmp_path: Path, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting.py").write_text("import sys\nsys.exit(3)\n")
    path = routes_file(tmp_path, 0)
    monkeypatch.setattr(sys, "path", [*sys.path])
    worker = Worker(path)
    await worker.start()
    try:
        path.write_text(path.read_text() + '[backends.b]\nendpoints = ["asgi:exiting:app"]\n')
        assert not await worker.reload()
        assert not worker.backends
    finally:
        await worker.aclose()


async def test_middlewares_that_have_started_are_shut_down_if_a_later_one_cannot_start(
    tmp_path: Path, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starting.py").write_text(STARTING)
    text = routes_file(tmp_path, 0).read_text()
    path = tmp_path / "routes.toml"
    middlewares = [f'[middleware.{name}]\ntype = "starting:{name.title()}"\n' for name in ("bad", "good")]
    path.write_text(f'{text}middleware = ["bad", "good"]\n' + "".join(middlewares))
    monkeypatch.setattr(sys, "path", [*sys.path])
    worker = Worker(path)
    with pytest.raises(RuntimeError, match="no database"):
        await worker.start()
    assert (tmp_path / "starting.log").read_text() == "started\nshut down\n"


async def test_a_reload_tells_of_modules_whose_change_it_cannot_take_over(
    tmp_path: Path,
    run_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = tmp_path / "changing.py"
    module.write_text(STARTING)
    path = routes_file(tmp_path, 0)
    path.write_text(f'{path.read_text()}middleware = ["m"]\n[middleware.m]\ntype = "changing:Good"\n')
    monkeypatch.setattr(sys, "path", [*sys.path])
    worker = Worker(path)
    await worker.start()
    try:
        await worker.reload()
        assert "changing" not in caplog.text
        module.write_text(STARTING + "\nclass Later(Good): ...\n")
        path.write_text(path.read_text().replace("Good", "Later"))
        assert not await worker.reload()
    finally:
        await worker.aclose()
    assert "changing has no class Later" in caplog.text
    assert "module changing has changed since it was imported; only a new start" in caplog.text
