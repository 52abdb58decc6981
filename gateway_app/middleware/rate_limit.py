"""`rate_limit`: so many requests in a time for each client, route, header value or cookie.

The `limits` library reads the notation and decides. The client learns where it stands from `RateLimit` and
`RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import Annotated, Final, Literal

from limits import RateLimitItem, parse_many
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.refusal import refuse
from gateway_app.middleware.request_key import compile_key
from gateway_app.problem import Cause
from gateway_app.state.memory import DEFAULT_MAX_KEYS, MemoryWindows
from gateway_app.state.rate_limits import STRATEGIES, Limit

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})


class RateLimit:
    """Answers 429 to those who ask more often than a limit allows.

    The limit belongs to the middleware's name: routes that use the same name share it. An answer tells the
    limits in `RateLimit-Policy`, and in `RateLimit` what remains of the one that is nearest to its end and in
    how many seconds some of it comes back; a 429 tells in `Retry-After` when to try again.

    Each worker counts for itself: with `workers = 4` up to four times as much passes. What is counted stays
    over a reload as long as the options do.

    Options:
        limit: "100/minute"; several with ";", such as "10/second; 1000/hour", of which each must hold.
        key: whom to count for: "client", "route", "header:NAME", "cookie:NAME", or a list of them, which
            counts each combination. Requests without that header or cookie are counted together.
        strategy: "fixed_window" counts from a first request on, and is the cheapest; "sliding_window" weighs
            in the window before, so that no burst passes at a boundary; "moving_window" is exact, and keeps
            the time of each request in memory.
        ipv6_prefix: bits of an IPv6 client's address that count, since a client usually has a whole /64.
        max_keys: how many keys are remembered; under a flood of more, the least recently seen start anew.

    Example:
        ```toml
        [middleware.per-client]
        type = "rate_limit"
        limit = "10/second; 1000/hour"
        key = ["client", "header:x-api-key"]
        strategy = "sliding_window"
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        limit: str,
        key: str | Sequence[str] = "client",
        strategy: Literal["fixed_window", "moving_window", "sliding_window"] = "sliding_window",
        ipv6_prefix: Annotated[int, Field(ge=16, le=128)] = 64,
        max_keys: Annotated[int, Field(ge=2)] = DEFAULT_MAX_KEYS,
    ) -> None:
        self._app = app
        self._name = context.name
        self._key = compile_key("key", key, context.route, ipv6_prefix)
        windows = context.shared(lambda: MemoryWindows(max_keys=max_keys))
        counting = STRATEGIES[strategy](windows)
        items = _parse_limits(limit)
        names = [
            context.name if len(items) == 1 else f"{context.name}-{item.get_expiry()}s" for item in items
        ]
        self._limits = tuple(
            (counting.taker(Limit(item)), item, _quoted(name) + b";r=%d;t=%d")
            for item, name in zip(items, names, strict=True)
        )
        self._policy = (
            b"ratelimit-policy",
            b", ".join(
                b"%b;q=%d;w=%d" % (_quoted(name), item.amount, item.get_expiry())
                for item, name in zip(items, names, strict=True)
            ),
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Count the request; pass it on if all limits hold.

        There is nothing to wait for, so it is no coroutine, which would cost as much as half of the rest.
        """
        if scope["type"] not in _SCOPE_TYPES:
            return self._app(scope, receive, send)
        exchange = scope["gateway"]
        key = self._key(exchange, scope)
        now = time.time()
        nearest = None
        least = 0
        # The shortest window comes first: who goes too fast does not use up the longer limit with it.
        for take, item, pattern in self._limits:
            is_within, reset, remaining = take(key, now)
            reset_s = int(reset - now) + 1
            if not is_within:
                standing = (b"ratelimit", pattern % (remaining, reset_s))
                return self._refuse(scope, send, item, standing, reset_s)
            if nearest is None or remaining < least:
                nearest, least = (b"ratelimit", pattern % (remaining, reset_s)), remaining
        exchange.answer_fields += (self._policy, nearest)
        return self._app(scope, receive, send)

    def _refuse(
        self, scope: Scope, send: Send, item: RateLimitItem, standing: tuple[bytes, bytes], retry_s: int
    ) -> Awaitable[None]:
        headers = [(b"retry-after", b"%d" % retry_s), self._policy, standing]
        per = f"{item.multiples} {item.GRANULARITY.name}s" if item.multiples > 1 else item.GRANULARITY.name
        detail = f"no more than {item.amount} per {per}"
        return refuse(scope, send, self._name, Cause.RATE_LIMITED, detail, headers)


def _parse_limits(text: str) -> list[RateLimitItem]:
    """Return the limits, that of the shortest window first."""
    try:
        items = parse_many(text)
    except ValueError as error:
        raise ValueError(
            f'limit: {text!r} is no rate; accepted are "100/minute", "10/second; 1000/hour"'
        ) from error
    windows = [item.get_expiry() for item in items]
    if 0 in windows or any(item.amount < 1 for item in items):
        raise ValueError(f"limit: {text!r} allows nothing; an amount and a time are at least 1")
    if len(set(windows)) < len(windows):
        raise ValueError(f"limit: {text!r} has two limits for the same time; leave one of them")
    return sorted(items, key=RateLimitItem.get_expiry)


def _quoted(name: str) -> bytes:
    """Return `name` as a structured field's string (RFC 9651 3.3.3), which has only printable ASCII."""
    ascii_name = name.encode("ascii", "replace").decode()
    return (
        f'"{ascii_name}"'.encode()
        if ascii_name.isprintable() and not set(ascii_name) & {'"', "\\"}
        else b'"limit"'
    )
