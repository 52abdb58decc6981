from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.exchange import Exchange
from gateway_app.middleware.context import SharedObjects
from gateway_app.middleware.redirect import Redirect
from gateway_app.problem import GatewayError

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("to", "asked", "location"),
    [
        (
            "https://blog.example.com{path}",
            "/blog/2019/hello?x=1",
            "https://blog.example.com/blog/2019/hello",
        ),
        ("https://{host}{path}?{query}", "/a%20b?x=1", "https://api.example.com/a%20b?x=1"),
        ("https://{host}{path}?{query}", "/a", "https://api.example.com/a"),
        ("https://www.{host}:8443/", "/a", "https://www.api.example.com:8443/"),
        ("/new?from=gateway&{query}", "/a?x=1", "/new?from=gateway&x=1"),
        ("/new?from=gateway&{query}", "/a", "/new?from=gateway"),
        ("/users/{id}", "/u/7", "/users/7"),
        ("{path}/", "/a", "/a/"),
    ],
)
async def test_the_client_is_sent_there(gateway: Make, to: str, asked: str, location: str) -> None:
    gate = gateway("redirect", {"to": to})
    gate.edge.params = {"id": "7"}

    answer = await gate.get(asked)

    assert (answer.status_code, answer.headers["location"]) == (308, location)
    assert gate.backend.requests == []


async def test_the_status_is_the_configured_one(gateway: Make) -> None:
    answer = await gateway("redirect", {"to": "/new", "status": 302}).get()

    assert answer.status_code == 302


async def test_another_scheme_passes(gateway: Make) -> None:
    gate = gateway("redirect", {"to": "https://{host}{path}", "scheme": "http"})

    assert (await gate.get("http://api.example.com/a")).headers["location"] == "https://api.example.com/a"
    assert (await gate.get("https://api.example.com/a")).text == "forwarded"


async def located(
    to: str, raw_path: bytes = b"/", query: bytes = b"", host: str = "a.example", **params: str
) -> str:
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    exchange = Exchange("", "", "http", 0.0, 0)
    exchange.params = params
    exchange.host = host
    app = Redirect(None, context=SharedObjects().context("n", "r", "redirect", {}), to=to)  # type: ignore[arg-type]
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": raw_path,
        "query_string": query,
        "gateway": exchange,
    }
    await app(scope, None, send)  # type: ignore[arg-type]
    location: bytes = dict(answers[0]["headers"]).get(b"location", b"")
    return location.decode()


@pytest.mark.parametrize("raw_path", [b"//evil.example", b"/\\evil.example", b"///evil.example", b"*"])
@pytest.mark.parametrize("to", ["{path}", "https://good.example{path}", "/{id}{path}"])
async def test_no_path_leads_to_another_host(to: str, raw_path: bytes) -> None:
    location = await located(to, raw_path, id="")

    assert urlsplit(location).hostname in (None, "good.example")
    assert not location.startswith(("//", "/\\"))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.binary())
async def test_whatever_is_filled_in_the_host_stays_and_the_line_does_not_end(
    value: str, path: bytes, query: bytes
) -> None:
    for to, host in (
        ("https://good.example/{id}{path}?{query}", "good.example"),
        ("/{id}{path}?{query}", None),
    ):
        location = await located(to, b"/" + path, query, id=value)

        assert location.isascii()
        assert location.isprintable()
        assert " " not in location
        assert urlsplit(location).hostname == host
        assert not location.startswith(("//", "/\\"))


async def test_a_captured_segment_called_as_a_place_does_not_take_it(gateway: Make) -> None:
    gate = gateway("redirect", {"to": "https://good.example{path}"}, captured=frozenset({"path"}))
    gate.edge.params = {"path": ".evil.example"}

    assert (await gate.get("/x")).headers["location"] == "https://good.example/x"


async def test_without_a_host_there_is_none_to_redirect_to() -> None:
    assert await located("https://{host}{path}", b"/evil.example/", host="") == ""


async def test_an_ipv6_host_keeps_its_brackets() -> None:
    assert await located("https://{host}/", host="[::1]") == "https://[::1]/"


async def test_a_websocket_handshake_is_refused() -> None:
    app = Redirect(None, context=SharedObjects().context("n", "r", "redirect", {}), to="/a")  # type: ignore[arg-type]
    scope = {"type": "websocket", "gateway": Exchange("", "", "http", 0.0, 0)}

    with pytest.raises(GatewayError, match="websocket_unsupported"):
        await app(scope, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "to",
    [
        "https://example.com{id}",
        "https://{id}.example.com/",
        "https://{client}/",
        "https://user@example.com/",
        "https:///x",
        "//example.com/",
        "/\\example.com",
        "{id}/x",
        "javascript:alert(1)",
        "ftp://example.com/",
        "https://example.com/a b",
        "https://example.com/\r\nx: 1",
        "https://example.com/{",
        "",
    ],
)
def test_a_target_that_a_request_could_turn_is_refused_at_load(gateway: Make, to: str) -> None:
    with pytest.raises(ValueError, match=r"^to: "):
        gateway("redirect", {"to": to})
