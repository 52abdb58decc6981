"""Conditions on a JSON body: a bounded look ahead, and JSON pointers into what was found.

Looking ahead takes nothing away: `look_ahead` returns a `receive` that gives the body whole.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from starlette.types import Message, Receive

LOOK_AHEAD_BYTES: Final = 64 * 1024

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_BROKEN_ESCAPE: Final = re.compile(r"~(?![01])")


class BodyState(enum.Enum):
    """Stands for a request's JSON value where there is none."""

    UNREAD = enum.auto()
    UNPARSABLE = enum.auto()


UNREAD: Final = BodyState.UNREAD
"""The body has not been looked at."""
UNPARSABLE: Final = BodyState.UNPARSABLE
"""The body is no JSON, or longer than the look-ahead; no JSON condition holds for it."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class JsonCondition:
    """The value that a JSON pointer (RFC 6901) leads to equals `expected`, in type and value.

    Numbers are compared by value, so 1 equals 1.0; they never equal a boolean.
    """

    pointer: str
    keys: tuple[str, ...]
    expected: Scalar

    def holds(self, body: object) -> bool:
        """Whether a parsed body fulfils the condition; `UNPARSABLE` never does."""
        for key in self.keys:
            if isinstance(body, dict):
                if key not in body:
                    return False
                body = body[key]
            elif isinstance(body, list):
                if not _INDEX.fullmatch(key) or int(key) >= len(body):
                    return False
                body = body[int(key)]
            else:
                return False
        return same_scalar(body, self.expected)

    def __str__(self) -> str:
        return f"json {self.pointer!r} must be {json.dumps(self.expected, ensure_ascii=False)}"


def same_scalar(one: object, other: object) -> bool:
    """Whether two values are the same JSON scalar; Python alone would say that True equals 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and not isinstance(one, list | dict | BodyState) and one == other


def parse_json_condition(pointer: str, expected: Scalar) -> JsonCondition:
    """Return the condition that a route writes as ``"/pointer" = value`` under json.

    Raises:
        ValueError: it is no JSON pointer; the message says what one looks like.

    """
    if (pointer and not pointer.startswith("/")) or _BROKEN_ESCAPE.search(pointer):
        raise ValueError(
            f'{pointer!r} is no JSON pointer; accepted is "/customer/tier", with ~0 for ~ and ~1 for /'
        )
    keys = tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])
    return JsonCondition(pointer, keys, expected)


def parse_body(body: bytes) -> object:
    """Return the JSON value of a body, `UNPARSABLE` if it is none by RFC 8259, in UTF-8 (8.1) for a start.

    Of a name that occurs twice the last value counts, as nearly every parser has it (RFC 8259 4).
    """
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return UNPARSABLE


async def look_ahead(receive: Receive, limit: int = LOOK_AHEAD_BYTES) -> tuple[object, Receive]:
    """Read a body of up to `limit` bytes and return its JSON value, and a `receive` that gives it again.

    What was read comes back as one message, however many small ones it came in, so that memory is bounded by
    the bytes and not by their pieces; the rest and a disconnect follow as they come. A body that is longer,
    or whose client leaves, is `UNPARSABLE`. What `receive` raises passes.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return UNPARSABLE, _Replay([_body_message(pieces, more_body=True), message], receive)
        piece, more_body = message.get("body", b""), message.get("more_body", False)
        if piece:
            pieces.append(piece)
            size += len(piece)
            if len(pieces) > _MAX_PIECES:
                pieces = [b"".join(pieces)]
        if size > limit or not more_body:
            whole = _body_message(pieces, more_body=more_body)
            return (UNPARSABLE if size > limit else parse_body(whole["body"])), _Replay([whole], receive)


_MAX_PIECES: Final = 1024
"""So many small pieces are joined, since each costs more than the bytes it holds."""


class _Replay:
    """A `receive` that gives `messages`, then whatever the inner one gives."""

    __slots__ = ("_messages", "_receive")

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self._messages = messages
        self._receive = receive

    async def __call__(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()


def _body_message(pieces: list[bytes], *, more_body: bool) -> Message:
    return {"type": "http.request", "body": b"".join(pieces), "more_body": more_body}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
