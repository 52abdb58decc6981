import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_app.observe.run_directory import (
    VARIABLE,
    ProcessIdentity,
    create_run_directory,
    remove_ended,
    run_directory,
)

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_workers_of_one_server_share_a_directory() -> None:
    for _ in range(2):
        with SPAWN.Pool(1) as pool:
            assert pool.apply(run_directory) == run_directory()
    assert ProcessIdentity.parse(run_directory().name) == ProcessIdentity.of_self()


def test_the_variable_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert run_directory() == tmp_path / "mine"


def test_directories_are_private_and_others_are_refused(tmp_path: Path) -> None:
    directory = create_run_directory()
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="only this user"):
        run_directory()
    directory.parent.chmod(0o700)
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="only this user"):
        run_directory()


def test_directories_of_ended_gateways_are_removed() -> None:
    root = run_directory().parent
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    gone = root / f"{int(ended.stdout)}-1"
    reused = root / f"{os.getpid()}-1"
    other = root / "unrelated"
    for directory in (gone, reused, other):
        directory.mkdir()
        (directory / "file").touch()
    remove_ended(root)
    assert sorted(root.iterdir()) == sorted([run_directory(), other])


def test_identities() -> None:
    own = ProcessIdentity.of_self()
    assert ProcessIdentity.parse(str(own)) == own
    assert own.is_running
    assert not ProcessIdentity(own.pid, own.start + 1).is_running
    assert not ProcessIdentity(2**22 + 1, 5).is_running
    for text in ("", "1", "a-b", "1-", "-1-2"):
        assert ProcessIdentity.parse(text) is None
