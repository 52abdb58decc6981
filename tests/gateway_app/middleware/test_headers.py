from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.exchange import Exchange
from gateway_app.middleware.context import SharedObjects
from gateway_app.middleware.headers import Headers

Make = Callable[..., Any]


async def test_request_fields_are_removed_then_set_then_added(gateway: Make) -> None:
    gate = gateway(
        "headers",
        {
            "remove_request": ["X-Debug"],
            "set_request": {"X-Team": "blue"},
            "add_request": {"X-Tag": "b"},
        },
    )

    await gate.get(headers=[("x-debug", "1"), ("x-team", "red"), ("x-team", "green"), ("x-tag", "a")])

    assert gate.backend.values("x-debug") == []
    assert gate.backend.values("x-team") == ["blue"]
    assert gate.backend.values("x-tag") == ["a", "b"]


async def test_response_fields_are_removed_then_set_then_added(gateway: Make) -> None:
    gate = gateway(
        "headers",
        {
            "remove_response": ["server"],
            "set_response": {"content-type": "text/css"},
            "add_response": {"x-request": "{request_id}"},
        },
    )

    answer = await gate.get()

    assert "server" not in answer.headers
    assert answer.headers.get_list("content-type") == ["text/css"]
    assert answer.headers["x-request"] == "req-1"


async def test_places_are_filled_in_from_the_request(gateway: Make) -> None:
    text = "{client} {request_id} {scheme} {host} {method} {path} {query} {route} {param:id} {{braces}} 100%"
    gate = gateway("headers", {"set_request": {"x-all": text}}, captured=frozenset({"id"}))
    gate.edge.params = {"id": "7"}

    await gate.get("/users/7?a=%20")

    expected = "192.0.2.7 req-1 http api.example.com GET /users/7 a=%20 the-route 7 {braces} 100%"
    assert gate.backend.values("x-all") == [expected]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("a\r\nx-admin: 1", "a%0D%0Ax-admin: 1"),
        ("naïve", "na%C3%AFve"),
        ("\x00", "%00"),
        ("100%", "100%"),
    ],
)
async def test_a_captured_segment_cannot_end_the_line(gateway: Make, value: str, sent: str) -> None:
    gate = gateway(
        "headers", {"set_request": {"x-id": "<{param:id}>"}, "set_response": {"x-id": "{param:id}"}}
    )
    gate.edge.params = {"id": value}

    answer = await gate.get()

    assert gate.backend.values("x-id") == [f"<{sent}>"]
    assert answer.headers["x-id"] == sent


@given(st.text())
async def test_any_captured_text_gives_printable_ascii(value: str) -> None:
    sent: list[bytes] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        sent.extend(field for name, field in scope["headers"] if name == b"x-id")

    context = SharedObjects().context("n", "r", "headers", {})
    app = Headers(
        inner, context=context, set_request={"x-id": "{param:id}"}, add_request={"x-id": "a{param:id}%"}
    )
    exchange = Exchange("", "", "http", 0.0, 0)
    exchange.params = {"id": value}

    await app({"type": "http", "headers": [], "gateway": exchange}, None, None)  # type: ignore[arg-type]

    assert len(sent) == 2
    assert all(32 <= octet < 127 for octet in b"".join(sent))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set_request": {"x y": "1"}}, "'x y' is no field name"),
        ({"set_request": {"x-a": "1\n2"}}, "must be printable ASCII"),
        ({"set_request": {"x-a": "é"}}, "must be printable ASCII"),
        ({"set_request": {"Host": "a"}}, "backend's host key"),
        ({"remove_response": ["Content-Length"]}, "frames the message"),
        ({"add_response": {"transfer-encoding": "chunked"}}, "frames the message"),
        ({"set_request": {"x-a": "{clinet}"}}, "did you mean {client}?"),
        ({"set_request": {"x-a": "{param:ix}"}}, "captures id, not 'ix'"),
        ({"set_request": {"x-a": "{"}}, "single '{'"),
        ({"set_request": {"x-a": "a}"}}, "single '}'"),
    ],
)
def test_what_cannot_be_done_is_refused_at_load(gateway: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("headers", options, captured=frozenset({"id"}))


async def test_other_scope_types_pass_untouched(gateway: Make) -> None:
    seen: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    gate = gateway("headers", {"set_request": {"x-a": "1"}}, inner=inner)
    await gate.middleware({"type": "lifespan"}, None, None)

    assert seen == [{"type": "lifespan"}]
