"""Starlette's own middlewares run as they are, by their import path and keyword arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]

CORS = "starlette.middleware.cors:CORSMiddleware"


async def test_cors_answers_preflights_and_marks_answers(gateway: Make) -> None:
    gate = gateway(CORS, {"allow_origins": ["https://app.example.com"], "allow_methods": ["GET", "PUT"]})
    origin = {"origin": "https://app.example.com"}

    preflight = await gate.request("OPTIONS", "/", headers={**origin, "access-control-request-method": "PUT"})
    answer = await gate.get(headers=origin)
    foreign = await gate.get(headers={"origin": "https://evil.example"})

    assert preflight.status_code == 200
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.text == "forwarded"
    assert "access-control-allow-origin" not in foreign.headers
    assert len(gate.backend.requests) == 2


async def test_cors_marks_a_refusal_of_an_inner_middleware_too(gateway: Make) -> None:
    limit = gateway("rate_limit", {"limit": "1/hour"})
    cors = gateway(CORS, {"allow_origins": ["*"]}, inner=limit.middleware)
    await cors.get(headers={"origin": "https://app.example.com"})

    refused = await cors.get(headers={"origin": "https://app.example.com"})

    assert refused.status_code == 429
    assert refused.headers["access-control-allow-origin"] == "*"


async def test_trusted_host_refuses_other_hosts(gateway: Make) -> None:
    gate = gateway(
        "starlette.middleware.trustedhost:TrustedHostMiddleware", {"allowed_hosts": ["*.example.com"]}
    )

    assert (await gate.get("http://api.example.com/")).status_code == 200
    assert (await gate.get("http://evil.example/")).status_code == 400


async def test_gzip_compresses(gateway: Make) -> None:
    gate = gateway("starlette.middleware.gzip:GZipMiddleware", {"minimum_size": 1})

    answer = await gate.get(headers={"accept-encoding": "gzip"})

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "forwarded"
