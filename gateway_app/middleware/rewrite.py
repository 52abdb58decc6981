"""`rewrite`: another path for the backend than the one that the client asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_app.middleware import template
from gateway_app.middleware.context import MiddlewareContext
from gateway_app.middleware.url_template import compile_url
from gateway_app.problem import Cause, GatewayError
from gateway_app.routing.target import TargetError, TargetReader, path_for_matching

if TYPE_CHECKING:
    from gateway_app.exchange import Exchange

Rewriting = Callable[[bytes, "Exchange", Scope], bytes]

_SCOPE_TYPES: Final = frozenset({"http", "websocket"})
_TARGETS: Final = TargetReader(encoded_slashes="keep", path_parameters="keep")
"""Only brings into normal form; what the gateway refuses was refused when the request came in."""

_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"
_OTHER_GROUP: Final = re.compile(r"\$([0-9])")
_DOT_SEGMENT: Final = re.compile(rb"(?:^|/|%2F|%5C)\.\.?(?:/|%2F|%5C|$)", re.IGNORECASE)


class Rewrite:
    r"""Changes the path that the backend gets; the query stays as it is.

    Paths are taken and made in their normal, percent-encoded form. What a request fills in is encoded so that
    it adds no segment, and one that would make a `.` or `..` segment is answered with 400: nobody gets out of
    the path that is written here. Give `path`, or `regex` with `to`, or a prefix to strip, to add, or both.

    Options:
        strip_prefix: whole segments to take away at the front; another path passes unchanged.
        add_prefix: what to put in front, after `strip_prefix`.
        path: the new path; `{id}` is the captured segment of that name, `{path}` the path so far.
        regex: what to look for in the path; a path without it passes unchanged.
        to: what to put there instead; `\\1` is the first group, `\\g<name>` a named one.

    Example:
        ```toml
        [middleware.strip-api]
        type = "rewrite"
        strip_prefix = "/api"

        [middleware.new-users]
        type = "rewrite"
        path = "/v2/users/{id}"

        [middleware.moved]
        type = "rewrite"
        regex = "^/old/(.*)"
        to = "/new/\\1"
        ```

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        context: MiddlewareContext,
        strip_prefix: str = "",
        add_prefix: str = "",
        path: str = "",
        regex: str = "",
        to: str = "",
    ) -> None:
        if [bool(path), bool(regex), bool(strip_prefix or add_prefix)].count(True) != 1:
            raise ValueError("give one of: path; regex and to; strip_prefix, add_prefix or both of these")
        if bool(regex) != bool(to):
            raise ValueError("regex and to belong together; give both")
        self._app = app
        if path:
            self._rewrite = _to_path(path, context)
        elif regex:
            self._rewrite = _by_regex(regex, to)
        else:
            self._rewrite = _by_prefix(
                _prefix("strip_prefix", strip_prefix), _prefix("add_prefix", add_prefix)
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its new path."""
        if scope["type"] in _SCOPE_TYPES:
            old = scope["raw_path"]
            if old.startswith(b"/"):  # "*" is not about a path
                new = self._rewrite(old, scope["gateway"], scope)
                if new is not old:
                    scope["raw_path"] = new
                    scope["path"] = unquote(new.decode("ascii"))
        await self._app(scope, receive, send)


def _by_prefix(strip: bytes, add: bytes) -> Rewriting:
    length = len(strip)
    below = strip + b"/"
    segments = strip.count(b"/") + 1
    matched = path_for_matching(strip)
    is_escaped = b"%" in strip

    def rewrite(path: bytes, exchange: Exchange, scope: Scope) -> bytes:
        if path.startswith(below):
            return add + path[length:]
        if path == strip:
            return add or b"/"
        if not strip:
            return add + path
        if is_escaped or b"%" in path or b";" in path:  # routes take "/a%3Ab" for "/a:b", and "/a;x" for "/a"
            parts = path.split(b"/", segments)
            if path_for_matching(b"/".join(parts[:segments])) == matched:
                return b"/".join([add, *parts[segments:]]) or b"/"
        return path

    return rewrite


def _to_path(path: str, context: MiddlewareContext) -> Rewriting:
    parts = template.parse("path", path, context, params_by_name=True)
    encoded = [quote(part, safe=_PATH_CHARACTERS) if isinstance(part, str) else part for part in parts]
    if any(getter is template.PLACES["query"] for getter in parts):
        raise ValueError(f"path: {path!r} must not have the query, which stays as it is")
    _check_path("path", path, "".join([_sample(part) for part in encoded]))
    render = compile_url(encoded)

    def rewrite(old: bytes, exchange: Exchange, scope: Scope) -> bytes:
        return _checked(render(exchange, scope).encode("ascii"))

    return rewrite


def _sample(part: template.Part) -> str:
    """Return what a part of the template may become, to check the whole."""
    if isinstance(part, str):
        return part
    return "/-" if part is template.PLACES["path"] else "-"


def _by_regex(regex: str, to: str) -> Rewriting:
    if not to.isascii() or not to.isprintable() or set(to) & set(" ?#"):
        raise ValueError(f"to: {to!r} must be a path of printable ASCII, without a space, ? or #")
    if other := _OTHER_GROUP.search(to):
        raise ValueError(rf'to: {to!r}: a group is written "\\{other[1]}" here, not "{other[0]}"')
    try:
        pattern = re.compile(regex)
        pattern.sub(to, "")  # reads the replacement, whether there is something to replace or not
    except (re.error, IndexError) as error:
        raise ValueError(f"regex, to: {regex!r} and {to!r} do not fit together: {error}") from error

    def rewrite(old: bytes, exchange: Exchange, scope: Scope) -> bytes:
        new, count = pattern.subn(to, old.decode("ascii"), count=1)
        return _checked(new.encode("ascii")) if count else old

    return rewrite


def _checked(path: bytes) -> bytes:
    """Return `path` in its normal form.

    Raises:
        GatewayError: what the request filled in makes it no path, or one that leaves its place.

    """
    if not path.startswith(b"/") or _DOT_SEGMENT.search(path):
        raise GatewayError(Cause.MALFORMED, "the request's path cannot be rewritten")
    return _TARGETS.normalise(path)


def _prefix(option: str, prefix: str) -> bytes:
    if not prefix:
        return b""
    encoded = quote(prefix, safe=_PATH_CHARACTERS)
    if prefix.endswith("/"):
        raise ValueError(f"{option}: {prefix!r} must not end with a slash; whole segments are meant anyway")
    _check_path(option, prefix, encoded)
    return encoded.encode("ascii")


def _check_path(option: str, text: str, encoded: str) -> None:
    """Check that a configured path is in its normal form already, so that it means what it says."""
    if not text.startswith(("/", "{path}")):
        raise ValueError(f"{option}: {text!r} is no path; it begins with a slash")
    if set(text) & set("?#"):
        raise ValueError(f"{option}: {text!r} must be a path alone, without ? or #")
    raw_path = encoded.encode("ascii")
    try:
        normal = _TARGETS.normalise(raw_path)
    except TargetError as error:
        raise ValueError(f"{option}: {text!r} is no path: {error.detail}") from error
    if normal != raw_path:
        raise ValueError(f"{option}: {text!r} is not in its normal form, {normal.decode()!r}")
