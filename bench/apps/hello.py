"""The least that an ASGI application can do: the cost of the server itself."""

from typing import Any

from bench.backend import LARGE_BYTES, SMALL_BYTES

_SMALL = b'{"padding":"' + b"x" * (SMALL_BYTES - 14) + b'"}'
_LARGE = bytes(LARGE_BYTES)


def _answer(body: bytes, media_type: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return start, {"type": "http.response.body", "body": body, "more_body": False}


_ANSWERS = {
    "/small": _answer(_SMALL, b"application/json"),
    "/large": _answer(_LARGE, b"application/octet-stream"),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer /small and /large from memory."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    start, body = _ANSWERS[scope["path"]]
    await send(start)
    await send(body)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
