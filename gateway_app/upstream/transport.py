"""What every upstream protocol promises to the forwarder, whatever bytes it speaks.

A `Transport` belongs to one endpoint. It takes an `UpstreamRequest` and gives an `UpstreamResponse`, of which
the forwarder is the one owner: it reads the body and closes the response, exactly once, in every case.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway_app.problem import Cause, GatewayError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from gateway_app.upstream.deadlines import Flight

IDEMPOTENT_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
FieldList = list[tuple[bytes, bytes]]


class Sent(enum.Enum):
    """How much of a failed request the endpoint can have acted on; decides whether a repeat is safe."""

    NOTHING = "nothing"
    """No byte of it left: every request may be repeated."""
    REUSED = "reused"
    """A kept-open connection ended before the answer's first byte, which is most often an idle timeout."""
    MAYBE = "maybe"
    """The endpoint may have acted on it."""


class UpstreamError(GatewayError):
    """An attempt that failed on the endpoint's side. `sent` says how far it had come."""

    def __init__(self, cause: Cause, detail: str, sent: Sent) -> None:
        super().__init__(cause, detail)
        self.sent = sent


class UpstreamRequest:
    """One request as it goes to an endpoint.

    Attributes:
        method: upper case, as the client sent it.
        target: origin-form path and query, as bytes on the wire.
        headers: end-to-end fields, lower-case names; framing fields excepted, which the transport writes.
        body: the whole body, or its first piece where `receive` is given.
        receive: the ASGI callable that gives the rest of the body, None if `body` is whole.
        content_length: the declared length of the whole body, None if unknown.
        expects_continue: the client waits for 100 before it sends the body; False once the body is read.
        scope: the client's scope, for transports that run the request in this process.
    """

    __slots__ = (
        "body",
        "content_length",
        "expects_continue",
        "headers",
        "method",
        "receive",
        "scope",
        "target",
    )

    def __init__(self, scope: Scope, target: bytes, headers: FieldList) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.target = target
        self.headers = headers
        self.body = b""
        self.receive: Receive | None = None
        self.content_length: int | None = None
        self.expects_continue = False

    @property
    def is_repeatable(self) -> bool:
        """Say whether it can be sent again without harm: idempotent (RFC 9110 9.2.2), no body used up."""
        is_unread = self.receive is None or self.expects_continue
        return is_unread and self.method in IDEMPOTENT_METHODS


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Hop-by-hop fields are removed already."""

    status: int
    headers: FieldList

    def take(self) -> bytes:
        """Give what has arrived of the body, without waiting; b"" if nothing has."""
        ...

    @property
    def is_complete(self) -> bool:
        """Say whether nothing will follow what `take` has given."""
        ...

    async def read(self) -> bytes:
        """Give the next piece of the body, b"" once it has ended. Raises UpstreamError if it is cut short."""
        ...

    def close(self) -> None:
        """End the exchange: the connection is kept if the body was read whole, else it is dropped."""
        ...


class Transport(Protocol):
    """Carries requests to one endpoint. Safe to use for many requests at once."""

    async def send(self, request: UpstreamRequest, flight: Flight) -> UpstreamResponse:
        """Send `request` and wait for the answer's head; leaves nothing open if it raises UpstreamError."""
        ...

    def status(self) -> dict[str, int]:
        """Count connections: open, idle and waiting requests, as far as the protocol has them."""
        ...

    async def aclose(self) -> None:
        """Close idle connections now and those in use when their exchange ends."""
        ...


@runtime_checkable
class StartsUp(Protocol):
    """A transport that has something to do before its first request."""

    async def startup(self) -> None:
        """Do it, once; `send` does not need it to be over. Raises what keeps it from working."""
        ...
