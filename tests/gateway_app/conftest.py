from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a file puts its directory on the import path: each test has a path of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
