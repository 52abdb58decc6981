from __future__ import annotations

from pathlib import Path

import pytest

from gateway_app.testing import GatewayClient

ROUTES = """
[[routes]]
name = "hello"
match = { host = "gateway.test", path = "/*" }
respond = { body = "hello" }
"""


def test_it_asks_the_whole_gateway(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text(ROUTES)

    with GatewayClient(tmp_path / "routes.toml") as client:
        answer = client.get("/a")
        posted = client.post("/a", content=b"x")

    assert (answer.status_code, answer.text) == (200, "hello")
    assert posted.text == "hello"


def test_a_wrong_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text(ROUTES.replace("body", "bdy"))

    with pytest.raises(RuntimeError, match="does not start"), GatewayClient(tmp_path / "routes.toml"):
        pytest.fail("it must not start")


def test_outside_of_its_context_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        GatewayClient(tmp_path / "routes.toml").get("/")
