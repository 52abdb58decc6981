from __future__ import annotations

from pathlib import Path

import pytest

from gateway_app.config.load import load_text
from gateway_app.dry_run import DryRun, ImaginedRequest
from gateway_app.expectations import failed_expectations
from gateway_app.routing.json_body import LOOK_AHEAD_BYTES

FILE = """
[gateway]
trusted_proxies = ["10.0.0.0/8"]
[backends.a]
endpoints = ["http://127.0.0.1:1"]
[backends.b]
endpoints = ["http://127.0.0.1:1"]
[middleware.once]
type = "rate_limit"
limit = "1/hour"
[middleware.strip]
type = "rewrite"
strip_prefix = "/a"
[middleware.small]
type = "body_limit"
max = "10B"
[[routes]]
name = "a"
match.path = "/a/*"
middleware = ["once", "strip"]
backend = "a"
[[routes]]
name = "gold"
match = { path = "/b", json = { "/tier" = "gold" } }
backend = "b"
[[routes]]
name = "b"
match.path = "/b"
middleware = ["small"]
backend = "b"
[[routes]]
name = "down"
match.path = "/down"
respond = { status = 503, headers = { retry-after = "60" } }
"""


async def problems_of(test: str) -> list[str]:
    """What a test of FILE finds wrong, after its line and key."""
    config = load_text(f'{FILE}[[test]]\nname = "t"\n{test}\n')
    return [error.message.removeprefix('test "t": ') for error in await failed_expectations(config)]


@pytest.mark.parametrize(
    "test",
    [
        'request.url = "/a/x?q=1"\nexpect = { route = "a", backend = "a", path = "/x" }',
        'request.url = "/a/x?q=1"\nexpect = { path = "/x?q=1", middleware = ["once", "strip"] }',
        'request = { method = "POST", url = "/b", json = { tier = "gold" } }\nexpect.route = "gold"',
        'request = { method = "POST", url = "/b", json = [1] }\nexpect.route = "b"',
        'request = { method = "POST", url = "/b", json = "longer than allowed" }\nexpect = { status = 413 }',
        'request.url = "https://a.com/down"\nexpect = { status = 503, header = { Retry-After = "60" } }',
        'request.url = "/nowhere"\nexpect.status = 404',
        'request = { url = "*", method = "OPTIONS" }\nexpect.status = 404',
        'request = { url = "/a/x", headers = { content-length = "x" } }\nexpect.status = 400',
    ],
)
async def test_what_is_so(test: str) -> None:
    assert await problems_of(test) == []


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        ('request.url = "/b"\nexpect.route = "a"', 'expected route "a", found "b": it goes to backend "b"'),
        (
            'request.url = "/b"\nexpect.backend = "a"',
            'expected backend "a", found "b": it goes to backend "b"',
        ),
        (
            'request.url = "/b"\nexpect.path = "/c"',
            'expected to forward "/c", found "/b": it goes to backend "b"',
        ),
        ('request.url = "/b"\nexpect.middleware = []', "expected [], found [small]"),
        (
            'request.url = "/b"\nexpect.status = 200',
            'expected the gateway to answer 200, but it goes to backend "b"',
        ),
        (
            'request.url = "/x"\nexpect.route = "a"',
            'expected route "a", found none: the gateway answers 404 (no_route)',
        ),
        ('request.url = "/down"\nexpect.header.retry-after = "6"', 'expected "6", found "60"'),
        ('request.url = "/down"\nexpect.header.x = "6"', 'expected "6", found no such field'),
        (
            'request.url = "x"\nexpect.status = 200',
            "expected a URL such as \"https://example.com/path\" or a path, not 'x'",
        ),
    ],
)
async def test_what_is_not_so(test: str, problem: str) -> None:
    assert await problems_of(test) == [problem]


async def test_errors_name_the_line_of_the_expectation() -> None:
    text = f'{FILE}[[test]]\nname = "t"\nrequest.url = "/b"\n[test.expect]\nroute = "b"\nstatus = 500\n'
    (error,) = await failed_expectations(load_text(text))
    assert (error.line, error.key) == (FILE.count("\n") + 6, "test[0].expect.status")


async def test_no_run_uses_up_the_limits_of_another() -> None:
    test = '[[test]]\nname = "{}"\nrequest.url = "/a/x"\nexpect.path = "/x"\n'
    config = load_text(FILE + test.format("first") + test.format("second"))
    assert await failed_expectations(config) == ()


async def test_a_dry_run_tells_what_would_be_sent() -> None:
    config = load_text(FILE)
    request = ImaginedRequest(
        "POST",
        "https://Example.com/b?x=%2f",
        (("X-Forwarded-For", "192.0.2.1"),),
        (("c", "1"),),
        b"{}",
        "10.1.2.3",
    )
    with DryRun(config) as dry_run:
        outcome = await dry_run.run(request)
    assert outcome.forwarded is not None
    assert (outcome.forwarded.method, outcome.forwarded.target) == ("POST", "/b?x=%2f")
    fields = dict(outcome.forwarded.headers)
    assert fields["x-forwarded-for"].startswith("192.0.2.1")
    assert fields["cookie"] == "c=1"
    assert fields["host"] == "Example.com"
    assert outcome.status == 0


async def test_a_dry_run_takes_a_path_for_a_path_and_looks_no_further_ahead() -> None:
    config = load_text(FILE)
    large = b'{"tier": "gold", "x": "%b"}' % (b"x" * LOOK_AHEAD_BYTES)
    with DryRun(config) as dry_run:
        doubled = await dry_run.run(ImaginedRequest("GET", "//a"))
        beyond = await dry_run.run(ImaginedRequest("POST", "/b", body=large))
    assert doubled.forwarded is not None
    assert dict(doubled.forwarded.headers)["host"] == "localhost"
    assert beyond.route is not None
    assert beyond.route.name == "b"


async def test_a_middleware_that_fails_is_an_answer_of_500(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_middleware.py").write_text(
        "class Broken:\n"
        "    def __init__(self, app): pass\n"
        "    async def __call__(self, scope, receive, send): raise RuntimeError('as it is')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = '[middleware.m]\ntype = "broken_middleware:Broken"\n'
    route = '[[routes]]\nname = "r"\nmiddleware = ["m"]\nrespond = {}\n'
    with DryRun(load_text(text + route)) as dry_run:
        outcome = await dry_run.run(ImaginedRequest("GET", "/"))
    assert outcome.status == 500
    assert outcome.error == "internal: RuntimeError: as it is"
