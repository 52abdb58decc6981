from __future__ import annotations

from pathlib import Path

import pytest

from gateway_app.cli.serve import announcement, example
from gateway_app.config.load import load_text
from gateway_app.config.model import MatchConfig
from gateway_app.serving.start import ServeOptions


@pytest.mark.parametrize(
    ("match", "command"),
    [
        (MatchConfig(), "curl -i http://h:1/"),
        (MatchConfig(path="/api/*"), "curl -i http://h:1/api/"),
        (MatchConfig(path="/u/{id}/x"), "curl -i http://h:1/u/1/x"),
        (MatchConfig(host="*.a.com"), "curl -i -H 'host: www.a.com' http://h:1/"),
        (MatchConfig(host="::1"), "curl -i -H 'host: [::1]' http://h:1/"),
        (MatchConfig(methods=("POST",), query={"v": "2"}), "curl -i -X POST 'http://h:1/?v=2'"),
        (MatchConfig(headers={"x": "1"}, cookies={"c": "2"}), "curl -i -H 'x: 1' -b c=2 http://h:1/"),
        (MatchConfig(path="~^/v[12]/"), ""),
        (MatchConfig(headers={"x": "~^a"}), ""),
        (MatchConfig(json_body={"/a": 1}), ""),
    ],
)
def test_a_request_that_the_route_takes(match: MatchConfig, command: str) -> None:
    assert example(match, "h:1") == command


def test_over_a_unix_socket() -> None:
    assert example(MatchConfig(), "unix:/run/g.sock") == "curl -i --unix-socket /run/g.sock http://localhost/"


def test_the_admin_listener_is_told_as_it_is_reached() -> None:
    config = load_text('[admin]\nlisten = "unix:/run/a.sock"')
    options = ServeOptions("hypercorn", 1, with_relay=False)
    lines = list(announcement(config, Path("routes.toml"), options, ("127.0.0.1:1",)))
    assert lines[-1] == "  curl -s --unix-socket /run/a.sock http://localhost/metrics"
