from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.exchange import Exchange
from gateway_app.middleware.context import SharedObjects
from gateway_app.middleware.rewrite import Rewrite
from gateway_app.problem import GatewayError
from gateway_app.routing.target import TargetReader

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "asked", "forwarded"),
    [
        ({"strip_prefix": "/api"}, "/api/users/7?a=1", "/users/7?a=1"),
        ({"strip_prefix": "/api"}, "/api", "/"),
        ({"strip_prefix": "/api"}, "/api/", "/"),
        ({"strip_prefix": "/api"}, "/apiary", "/apiary"),
        ({"strip_prefix": "/größe"}, "/gr%C3%B6%C3%9Fe/x", "/x"),
        ({"strip_prefix": "/a:b"}, "/a%3Ab/%2Fx", "/%2Fx"),
        ({"strip_prefix": "/a:b"}, "/a%3Ab", "/"),
        ({"strip_prefix": "/a:b"}, "/a%3Abc/x", "/a%3Abc/x"),
        ({"strip_prefix": "/a%3Ab"}, "/a:b/x", "/x"),
        ({"strip_prefix": "/api/v1"}, "/api;x/v1;y/users;z", "/users;z"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/api;x/users", "/v1/users"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/api;x", "/v1"),
        ({"strip_prefix": "/api"}, "/ap;x/i", "/ap;x/i"),
        ({"add_prefix": "/v1"}, "/users", "/v1/users"),
        ({"add_prefix": "/v1"}, "/", "/v1/"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/api/users", "/v1/users"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/api", "/v1"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/other", "/other"),
        ({"path": "/v2/{id}"}, "/users/7?a=1", "/v2/7?a=1"),
        ({"path": "/v2/{param:id}/all"}, "/users/7", "/v2/7/all"),
        ({"path": "/{host}{path}"}, "/users/7", "/api.example.com/users/7"),
        ({"path": "/fixed"}, "/users/7", "/fixed"),
        ({"regex": "^/old/(.*)", "to": r"/new/\1"}, "/old/a%20b?q", "/new/a%20b?q"),
        ({"regex": "^/old/(?P<rest>.*)", "to": r"/new/\g<rest>"}, "/old/a", "/new/a"),
        ({"regex": "^/old/(.*)", "to": r"/new/\1"}, "/older", "/older"),
        ({"regex": "-", "to": "_"}, "/a-b-c", "/a_b-c"),
        ({"regex": "^/old(.*)", "to": r"/\1"}, "/old//evil", "/evil"),
    ],
)
async def test_the_backend_gets_the_new_path(
    gateway: Make, options: dict[str, str], asked: str, forwarded: str
) -> None:
    gate = gateway("rewrite", options, captured=frozenset({"id"}))
    gate.edge.params = {"id": "7"}

    await gate.get(asked)

    assert gate.backend.target == forwarded
    assert gate.backend.request["path"] == unquote(forwarded.partition("?")[0])


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("a\r\nb", None),
        ("é", "%C3%A9"),
        ("..", None),
        ("../x", None),
    ],
)
async def test_a_captured_segment_stays_one_segment(gateway: Make, value: str, segment: str | None) -> None:
    gate = gateway("rewrite", {"path": "/v2/{id}"})
    gate.edge.params = {"id": value}

    answer = await gate.get("/users/x")

    if segment is None:
        assert answer.status_code == 400
        assert gate.backend.requests == []
    else:
        assert gate.backend.target == f"/v2/{segment}"


async def test_dots_that_meet_are_refused(gateway: Make) -> None:
    gate = gateway("rewrite", {"path": "/v2/{a}{b}/x"})
    gate.edge.params = {"a": ".", "b": "."}

    assert (await gate.get("/")).status_code == 400


async def rewritten(options: dict[str, str], raw_path: bytes, params: dict[str, str]) -> bytes | None:
    targets: list[bytes] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        targets.append(scope["raw_path"])

    exchange = Exchange("", "", "http", 0.0, 0)
    exchange.params = params
    app = Rewrite(inner, context=SharedObjects().context("n", "r", "rewrite", {}), **options)
    scope = {"type": "http", "raw_path": raw_path, "gateway": exchange}
    try:
        await app(scope, None, None)  # type: ignore[arg-type]
    except GatewayError:
        return None
    return targets[0]


SEGMENT = st.text(st.characters(exclude_categories=["Cs"])) | st.text("./%\\2Fe:;", max_size=8)


@given(SEGMENT, SEGMENT)
async def test_no_captured_text_leaves_the_written_path(first: str, second: str) -> None:
    target = await rewritten({"path": "/v2/{a}{b}/end"}, b"/", {"a": first, "b": second})

    if target is not None:
        decoded = unquote(target)
        assert re.fullmatch(rb"/v2/(?:[^/?#\x00-\x20\x7f-\xff]+/)?end", target)
        assert not {".", ".."} & set(decoded.split("/"))
        assert target == TargetReader(encoded_slashes="keep", path_parameters="keep").normalise(target)


@given(st.lists(SEGMENT), st.sampled_from([r"/\1", r"\1", r"/v2/\1\1", r"/x\1y"]))
async def test_no_path_makes_a_regex_give_a_target_out_of_normal_form(segments: list[str], to: str) -> None:
    reader = TargetReader(encoded_slashes="keep", path_parameters="keep")
    try:
        raw_path = reader.normalise(
            b"/" + b"/".join(quote(segment, safe="").encode() for segment in segments)
        )
    except GatewayError:
        return
    target = await rewritten({"regex": "^/.?(.*)", "to": to}, raw_path, {})

    if target is not None:
        assert target.startswith(b"/")
        assert target == reader.normalise(target)


async def test_an_asterisk_is_left_alone() -> None:
    assert await rewritten({"add_prefix": "/v1"}, b"*", {}) == b"*"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of"),
        ({"path": "/a", "strip_prefix": "/b"}, "give one of"),
        ({"regex": "a"}, "belong together"),
        ({"to": "/a", "path": "/b"}, "belong together"),
        ({"strip_prefix": "/api/"}, "must not end with a slash"),
        ({"strip_prefix": "api"}, "begins with a slash"),
        ({"add_prefix": "/a/../b"}, "normal form, '/b'"),
        ({"add_prefix": "/a?b"}, "without \\? or #"),
        ({"path": "/a/{idd}"}, "captures id, not 'idd'"),
        ({"path": "/a?{query}"}, "must not have the query"),
        ({"regex": "(", "to": "/a"}, "do not fit together"),
        ({"regex": "(a)", "to": r"/\2"}, "do not fit together"),
        ({"regex": "(a)", "to": "/$1"}, r'written "\\\\1" here, not "\$1"'),
        ({"regex": "a", "to": "/?b"}, "without a space"),
    ],
)
def test_what_makes_no_path_is_refused_at_load(gateway: Make, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("rewrite", options, captured=frozenset({"id"}))
