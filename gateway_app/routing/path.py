"""The path patterns of routes: exact, prefix, template, regular expression.

Patterns are compared with a path in its normal form (`routing.target`). A pattern written in another form is
brought into it where that is only a matter of escapes, and refused where it could never match.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from gateway_app.routing.target import TargetError, TargetReader, path_for_matching

_SAFE: Final = "".join(map(chr, range(0x21, 0x7F)))
_ESCAPED_DOT: Final = re.compile("%2e", re.IGNORECASE)
_PARAM: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_OTHER_CAPTURE: Final = re.compile(r":([A-Za-z_]\w*)|<(?:\w+:)?([A-Za-z_]\w*)>", re.ASCII)
_LEADING_SEGMENTS: Final = re.compile(r"\^((?:/[A-Za-z0-9_~!@,:=&%'-]+)+/)(?![?*+{])", re.ASCII)
_NO_LEADING_SLASH: Final = re.compile(r"\^[A-Za-z0-9_~!@,:=&%-](?![?*{])", re.ASCII)
_ALTERNATIVE: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[(|)]", re.DOTALL)


class PathKind(enum.IntEnum):
    """The kinds of path patterns, in the order of their precedence."""

    EXACT = 0
    PREFIX = 1
    TEMPLATE = 2
    REGEX = 3
    ANY = 4


@dataclass(frozen=True, slots=True)
class PathPattern:
    """What a route says about the path.

    Attributes:
        kind: which of the kinds it is; the attributes below that another kind uses are empty.
        text: EXACT: the path. PREFIX: the prefix with its closing slash. REGEX: the expression.
        segments: TEMPLATE: its segments, None for a captured one.
        names: TEMPLATE: the names of the captured segments, in order.
        positions: TEMPLATE: where the captured ones stand, in a path split at its slashes.
        has_tail: TEMPLATE: whether ``/*`` follows.
        regex: REGEX: the compiled expression.

    """

    kind: PathKind
    text: str = ""
    segments: tuple[str | None, ...] = ()
    names: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    has_tail: bool = False
    regex: re.Pattern[str] | None = None

    @property
    def rank(self) -> tuple[int, int, tuple[int, ...]]:
        """Sorts by precedence the patterns that match one path.

        Of prefixes the longest is first. Templates are compared segment by segment from the left: a literal
        comes before a captured segment, and that before ``/*``. Regular expressions are equals.
        """
        length = -len(self.text) if self.kind is PathKind.PREFIX else 0
        shape = tuple([int(segment is None) for segment in self.segments] + [2] * self.has_tail)
        return (self.kind, length, shape)

    def capture(self, path: str) -> dict[str, str] | None:
        """Return what the named segments or groups captured, None if the path is not one of those meant."""
        match self.kind:
            case PathKind.EXACT:
                holds = path == self.text
            case PathKind.PREFIX:
                holds = f"{path}/".startswith(self.text)
            case PathKind.TEMPLATE:
                return self._capture_segments(path)
            case PathKind.REGEX:
                return self._capture_groups(path)
            case PathKind.ANY:
                holds = True
        return {} if holds else None

    def pick(self, path: str) -> dict[str, str]:
        """Return what a template captures from a path that is known to match it."""
        found = path.split("/", len(self.segments) + 1)
        if "%" in path:
            return {name: _unescape(found[at]) for name, at in zip(self.names, self.positions, strict=True)}
        return {name: found[at] for name, at in zip(self.names, self.positions, strict=True)}

    def _capture_segments(self, path: str) -> dict[str, str] | None:
        count = len(self.segments)
        found = path.split("/", count + 1)[1:]
        if len(found) < count or (len(found) > count and not self.has_tail):
            return None
        for wanted, segment in zip(self.segments, found, strict=False):
            if wanted != segment and (wanted is not None or not segment):
                return None
        return self.pick(path)

    def _capture_groups(self, path: str) -> dict[str, str] | None:
        assert self.regex is not None
        found = self.regex.search(path) if path.startswith("/") else None
        if found is None:
            return None
        return {name: _unescape(value) for name, value in found.groupdict("").items()}

    @property
    def leading_text(self) -> str:
        """The whole segments that every matching path begins with, as ``/api/v1/``; at least ``/``."""
        if self.kind is PathKind.REGEX:
            leading = _LEADING_SEGMENTS.match(self.text)
            return leading[1] if leading and not _has_alternatives(self.text) else "/"
        if self.kind is PathKind.TEMPLATE:
            literals = self.segments[: self.segments.index(None)]
            return "".join(f"/{literal}" for literal in literals) + "/"
        return self.text or "/"

    def __str__(self) -> str:
        match self.kind:
            case PathKind.ANY:
                return "/*"
            case PathKind.PREFIX:
                return f"{self.text}*"
            case PathKind.REGEX:
                return f"~{self.text}"
            case PathKind.TEMPLATE:
                names = iter(self.names)
                shown = [f"{{{next(names)}}}" if segment is None else segment for segment in self.segments]
                return "/" + "/".join(shown) + "/*" * self.has_tail
            case PathKind.EXACT:
                return self.text


ANY_PATH: Final = PathPattern(PathKind.ANY)


def parse_path_pattern(text: str | None) -> PathPattern:
    """Return what a route's ``path`` means; None and ``/*`` are any path.

    Raises:
        ValueError: it is no pattern, or one that no path in normal form matches; the message says what to
            write instead.

    """
    if text is None or text == "/*":
        return ANY_PATH
    if text.startswith("~"):
        return _parse_regex(text)
    if not text.startswith("/"):
        raise ValueError(
            f'{text!r} is no path; accepted are "/about", "/api/*", "/users/{{id}}" or "~^/v[12]/"'
        )
    body, has_tail = (text[:-2], True) if text.endswith("/*") else (text, False)
    if "*" in body:
        raise ValueError(
            f'{text!r}: "*" stands only at the end, as in "/api/*"; name a segment with "{{name}}"'
        )
    if "{" in body or "}" in body:
        return _parse_template(text, body, has_tail)
    path = _normal_form(text, body)
    return PathPattern(PathKind.PREFIX, f"{path}/") if has_tail else PathPattern(PathKind.EXACT, path)


def _parse_regex(text: str) -> PathPattern:
    try:
        pattern = PathPattern(PathKind.REGEX, text[1:], regex=re.compile(text[1:]))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    if _NO_LEADING_SLASH.match(pattern.text) and not _has_alternatives(pattern.text):
        raise ValueError(f'{text!r}: every path begins with "/"; did you mean "~^/{text[2:]}"?')
    return pattern


def _parse_template(text: str, body: str, has_tail: bool) -> PathPattern:
    segments: list[str | None] = []
    names: list[str] = []
    for segment in body.split("/")[1:]:
        if param := _PARAM.fullmatch(segment):
            segments.append(None)
            names.append(param[1])
        elif "{" in segment or "}" in segment:
            raise ValueError(
                f'{text!r}: a capture is a whole segment, as in "/users/{{id}}"; {segment!r} is not'
            )
        else:
            segments.append(segment)
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r}: two segments are captured under one name")
    # Checked and normalised as a whole, with a letter for each capture, then taken apart again.
    path = _normal_form(text, "".join(f"/{'x' if segment is None else segment}" for segment in segments))
    literals = path.split("/")[1:]
    shape = tuple(None if segment is None else literals[index] for index, segment in enumerate(segments))
    positions = tuple(index for index, segment in enumerate(shape, 1) if segment is None)
    return PathPattern(
        PathKind.TEMPLATE, segments=shape, names=tuple(names), positions=positions, has_tail=has_tail
    )


def _normal_form(text: str, path: str) -> str:
    """Return the literal path as it is matched, refusing what a request could never bring."""
    if ";" in path:
        raise ValueError(f"{text!r}: path parameters (;) are never matched; leave them out")
    for segment in path.split("/"):
        if capture := _OTHER_CAPTURE.fullmatch(segment):
            raise ValueError(
                f'{text!r}: a capture is written "{{{capture[1] or capture[2]}}}", not {segment!r}'
            )
    if "?" in path or "#" in path:
        raise ValueError(
            f"{text!r}: a path has no query and no fragment; conditions on the query go to `query`"
        )
    segments = _ESCAPED_DOT.sub(".", path).split("/")[1:]
    if {".", ".."} & set(segments) or "" in (segments if text.endswith("/*") else segments[:-1]):
        raise ValueError(f"{text!r} has empty or dot segments, which requests lose before they are matched")
    try:
        return path_for_matching(_READER.normalise(quote(path, safe=_SAFE).encode("ascii")))
    except TargetError as error:
        raise ValueError(f"{text!r}: {error.detail}") from error


def _has_alternatives(regex: str) -> bool:
    """Whether a ``|`` stands outside all groups, so that the beginning is not all of the paths' beginning.

    Comments, the only place for an unpaired parenthesis, are not looked into: with a ``#`` the answer is yes.
    """
    if "#" in regex:
        return True
    depth = 0
    for part in _ALTERNATIVE.findall(regex):
        if part == "|" and depth == 0:
            return True
        depth += (part == "(") - (part == ")")
    return False


def _unescape(text: str) -> str:
    return unquote(text) if "%" in text else text


_READER: Final = TargetReader(encoded_slashes="keep")
