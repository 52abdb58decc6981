from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware import registry
from gateway_app.middleware.context import MiddlewareContext, SharedObjects

if TYPE_CHECKING:
    from decimal import Decimal


class Plain:
    def __init__(self, app: ASGIApp, *, context: MiddlewareContext, colour: str, size: int = 3) -> None:
        self.context = context
        self.colour = colour

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Untyped:
    def __init__(self, app, colour="red", **more):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN204
        self.more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def factory(app: ASGIApp, rate: Decimal, *, depth: int = 1) -> Callable[..., Awaitable[None]]:
    return app


async def inner(scope: Scope, receive: Receive, send: Send) -> None: ...


def context(name: str = "n", **options: Any) -> MiddlewareContext:
    return SharedObjects().context(name, "r", "t", options)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_built_in_resolves(name: str) -> None:
    signature = registry.signature_of(registry.resolve(name))

    assert not signature.accepts_any


def test_keyword_arguments_are_the_options_and_the_context_is_none() -> None:
    signature = registry.signature_of(Plain)

    assert dict(signature.options) == {
        "colour": registry.Option(str, registry.REQUIRED),
        "size": registry.Option(int, 3),
    }
    assert signature.context_parameter == "context"


def test_without_annotations_any_value_is_accepted() -> None:
    signature = registry.signature_of(Untyped)

    assert dict(signature.options) == {"colour": registry.Option(Any, "red")}
    assert signature.accepts_any


def test_an_annotation_for_the_type_checker_only_accepts_any_value_and_spares_the_others() -> None:
    options = registry.signature_of(factory).options

    assert options["rate"] == registry.Option(Any, registry.REQUIRED)
    assert options["depth"] == registry.Option(int, 1)


def test_whatever_holds_several_values_is_a_list_in_the_file() -> None:
    def middleware(
        app: ASGIApp, *, hosts: Collection[str], names: Iterable[int] | None = None, sizes: Mapping[str, int]
    ) -> ASGIApp:
        return app

    annotations = [option.annotation for option in registry.signature_of(middleware).options.values()]

    assert annotations == [Sequence[str], Sequence[int] | None, Mapping[str, int]]


def test_build_passes_the_context_where_it_is_asked_for() -> None:
    where = context()

    plain = registry.build(Plain, inner, {"colour": "red"}, where)
    untyped = registry.build(Untyped, inner, {"other": 1}, where)

    assert isinstance(plain, Plain)
    assert plain.context is where
    assert isinstance(untyped, Untyped)
    assert untyped.more == {"other": 1}


@pytest.mark.parametrize(
    ("type_name", "message"),
    [
        ("header_fliter", "did you mean 'header_filter'"),
        ("nowhere.at.all:Thing", "nowhere.at.all cannot be imported"),
        ("starlette.middleware.cors:CorsMiddleware", "did you mean 'CORSMiddleware'"),
    ],
)
def test_a_type_that_is_not_there_is_named_with_the_nearest(type_name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.resolve(type_name)


def test_what_takes_no_application_is_no_middleware() -> None:
    def takes_options_only(*, colour: str) -> ASGIApp:
        return inner

    with pytest.raises(ValueError, match="first argument must be the next application"):
        registry.signature_of(takes_options_only)


def test_routes_share_one_object_per_name() -> None:
    shared = SharedObjects()
    first: list[int] = shared.context("limit", "a", "t", {"n": 1}).shared(list)

    assert shared.context("limit", "b", "t", {"n": 1}).shared(list) is first
    assert shared.context("other", "a", "t", {"n": 1}).shared(list) is not first


@pytest.mark.parametrize(
    ("type_name", "options", "is_kept"),
    [("t", {"n": 1}, True), ("t", {"n": 2}, False), ("u", {"n": 1}, False)],
)
def test_a_reload_keeps_the_object_while_type_and_options_stay(
    type_name: str, options: dict[str, Any], is_kept: bool
) -> None:
    before = SharedObjects()
    kept: list[int] = before.context("limit", "a", "t", {"n": 1}).shared(list)

    after = SharedObjects(before)

    assert (after.context("limit", "a", type_name, options).shared(list) is kept) == is_kept
    assert before.context("limit", "a", "t", {"n": 1}).shared(list) is kept
