"""The subcommands that send nothing, as typer runs them; a few as the processes that users start."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway_app.cli.main import app

FILE = """
[gateway]
middleware = ["baseline"]

[backends.users]
endpoints = ["http://127.0.0.1:9001", { url = "http://127.0.0.1:9002", weight = 2, backup = true }]

[middleware.baseline]
type = "header_filter"
block = ["suspicious"]
remove_request = ["x-debug"]

[middleware.strip-api]
type = "rewrite"
strip_prefix = "/api"

[[routes]]
name = "users"
match = { host = "api.example.com", path = "/api/users/{id}", methods = ["GET", "POST"] }
middleware = ["strip-api"]
backend = "users"

[[routes]]
name = "beta"
match = { host = "api.example.com", path = "/api/users/*", headers = { x-beta = "1" } }
backend = "users"

[[routes]]
name = "gold"
match = { path = "/orders", json = { "/tier" = "gold" } }
backend = "users"

[[routes]]
name = "old"
match = { path = "/blog/*" }
redirect = { to = "https://blog.example.com{path}" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text(FILE)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("option", [["--config"], []])
def test_check_says_what_there_is(file: Path, option: list[str]) -> None:
    result = run("check", *option, file)
    assert result.exit_code == 0
    assert result.output == (
        f"{file}: nothing wrong with 4 routes, 1 backend, 2 middlewares, 0 relays, 0 tests\n"
    )


def test_check_reports_every_error_and_ends_with_2(file: Path) -> None:
    file.write_text("[gateway]\nworker = 1\n[admin]\nlistn = 1\n")
    result = run("check", "-c", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f'{file}:2: gateway.worker: unknown key; did you mean "workers"?\n'
        f'{file}:4: admin.listn: unknown key; did you mean "listen"?\n'
        "2 errors\n"
    )


def test_check_imports_what_backends_run_in_process(file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_shop.py").write_text("1 / 0")
    file.write_text(
        '[backends.b]\nendpoints = [\n"asgi:starlette.routing:Ruoter",\n{ url = "wsgi:broken_shop:app" }]\n'
        '[backends.c]\nendpoints = ["http://h"]\ntransport = "httpx:AsyncHttpTransport"\n'
    )
    result = run("check", "-c", file)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith(
        f'{file}:3: backends.b.endpoints[0]: "starlette.routing:Ruoter" cannot be imported: AttributeError('
    )
    assert lines[1] == (
        f'{file}:4: backends.b.endpoints[1]: "broken_shop:app" cannot be imported: '
        f"ZeroDivisionError('division by zero') in {os.path.relpath(tmp_path)}/broken_shop.py:1"
    )
    assert lines[2].startswith(f"{file}:7: backends.c.transport: ")


def test_check_runs_the_tests_of_the_file(file: Path) -> None:
    file.write_text(f'{FILE}\n[[test]]\nname = "t"\nrequest.url = "/blog/x"\nexpect.status = 301\n')
    result = run("check", "-c", file)
    assert result.exit_code == 2
    line = FILE.count("\n") + 5
    assert result.stderr.startswith(
        f'{file}:{line}: test[0].expect.status: test "t": expected the gateway to answer 301, '
        "but the gateway answers 308\n"
    )


def test_routes_are_listed_in_precedence_order(file: Path) -> None:
    result = run("routes", "-c", file)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [
        "ROUTE",
        "beta",
        "users",
        "gold",
        "old",
    ]
    assert 'json /tier="gold"' in result.output
    assert "redirect https://blog.example.com{path}" in result.output


def test_explain_a_forwarded_request(file: Path) -> None:
    result = run(
        "explain",
        "GET",
        "https://api.example.com/api/users/7?a=1",
        "-H",
        "X-Debug: 1",
        "-b",
        "a=b",
        "--client",
        "192.0.2.7",
        "-c",
        file,
    )
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines[:10] == [
        "GET https://api.example.com/api/users/7?a=1",
        "",
        f"route users ({file}:17)",
        "GET POST, api.example.com/api/users/{id}",
        "captures id = '7'",
        "-> backend users",
        "not beta: headers: header x-beta must be '1', and the request has none",
        "middleware 1. baseline (header_filter)",
        "2. strip-api (rewrite)",
        "forwards GET /users/7?a=1",
    ]
    assert "x-forwarded-for: 192.0.2.7" in lines
    assert "x-forwarded-proto: https" in lines
    assert "cookie: a=b" in lines
    assert "x-debug: 1" not in lines
    assert lines[-3:] == [
        "to backend users, round_robin, the Host as it is",
        "http://127.0.0.1:9001",
        "http://127.0.0.1:9002 weight 2 backup",
    ]


def test_explain_a_json_condition(file: Path) -> None:
    gold = run("explain", "POST", "/orders", "--json", '{"tier": "gold"}', "-c", file).output
    assert "route       gold" in gold
    silver = run("explain", "POST", "/orders", "--json", '{"tier": "silver"}', "-c", file).output
    assert "route       none matches" in silver
    assert "gold: json:" in silver
    assert "answers     404 (no_route)" in silver


def test_explain_what_the_gateway_answers(file: Path) -> None:
    output = run("explain", "GET", "/blog/a", "-c", file).output
    assert "answers     308" in output
    assert "location: https://blog.example.com/blog/a" in output
    blocked = run("explain", "GET", "/blog/a", "-H", "proxy: x", "-c", file).output
    assert "answers     400 (blocked" in blocked
    refused = run("explain", "GET", "/blog;x/a", "-c", file).output
    assert "route       refused before routing" in refused
    assert "answers     400 (malformed" in refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["GET", "blog"], "expected a URL"),
        (["GET", "ftp://example.com/"], "expected a URL"),
        (["GET", "http:///x"], "expected a URL"),
        (["get", "/"], 'methods are written in capitals: "GET"'),
        (["G T", "/"], "expected an HTTP method"),
        (["GET", "/", "--client", "me"], "expected an IP address"),
        (["GET", "/", "-H", "x"], 'expected "name:value"'),
        (["GET", "/", "-b", "=x"], 'expected "name=value"'),
    ],
)
def test_explain_refuses_what_is_no_request(file: Path, arguments: list[str], message: str) -> None:
    result = run("explain", *arguments, "-c", file)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_schema_is_json() -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert set(json.loads(result.output)["properties"]) >= {
        "gateway",
        "backends",
        "middleware",
        "routes",
        "test",
    }


def test_serve_refuses_what_cannot_be_served(file: Path) -> None:
    result = run("serve", "--relay", "-c", file)
    assert result.exit_code == 2
    assert "has no [[relay]] tables" in result.stderr
    file.write_text('[gateway]\nlisten = ["127.0.0.1:0", "127.0.0.1:0"]\n')
    result = run("serve", "--server", "granian", "-c", file)
    assert result.exit_code == 2
    assert "granian listens on one address" in result.stderr


def test_a_server_that_is_missing_is_told_with_its_own_package(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run("serve", "--server", "granian", "-c", file)
    assert (result.exit_code, result.stderr) == (
        2,
        "gateway: granian is not installed: pip install 'granian>=2.5'\n",
    )


def test_the_command_as_a_process(file: Path) -> None:
    def output_of(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway_app", *arguments],
            capture_output=True,
            text=True,
            cwd=file.parent,
            timeout=30,
            check=False,
        )

    assert output_of("version").stdout == "l47-gateway 0.1.0\n"
    assert output_of("check").stdout.startswith("routes.toml: nothing wrong")
    file.write_text("[gateway\n")
    wrong = output_of("routes")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("routes.toml:1: is not TOML in column 9: ")


def test_modules_beside_the_working_directory_are_found(file: Path) -> None:
    (file.parent / "own_app.py").write_text("async def app(scope, receive, send): ...\n")
    file.write_text('[backends.own]\nendpoints = ["asgi:own_app:app"]\n')
    command = Path(sys.executable).with_name("gateway")
    result = subprocess.run(
        [command, "check"], capture_output=True, text=True, cwd=file.parent, timeout=30, check=False
    )
    assert result.stderr == ""
    assert result.returncode == 0
