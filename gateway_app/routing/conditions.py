"""Conditions on header fields, cookies and query parameters, and the request they are asked of.

A condition's value is written like a path: ``"1"`` is that value alone, ``"~^v[12]$"`` a regular expression
(searched, so anchor it), ``"*"`` any value: the name is there. A name that occurs more than once holds if any
of its values does, so that no repetition hides one from a rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Scope

Source = Literal["header", "cookie", "query"]

_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
"""A token (RFC 9110 5.6.2)."""


class Request:
    """What conditions look at; header fields, cookies and query are parsed when first asked for.

    `header_names` are the fields that any route asks for, in lower case; others are skipped.
    """

    __slots__ = ("_cookies", "_headers", "_query", "body", "header_names", "method", "path", "scope")

    def __init__(
        self, method: str, path: str, scope: Scope, body: object, header_names: frozenset[bytes]
    ) -> None:
        self.method = method
        self.path = path
        self.scope = scope
        self.body = body
        self.header_names = header_names
        self._headers: dict[str, list[str]] | None = None
        self._cookies: dict[str, list[str]] | None = None
        self._query: dict[str, list[str]] | None = None

    def values(self, source: Source, name: str) -> Sequence[str]:
        """Return all values under a name, none if it does not occur."""
        if source == "header":
            found = self._headers if self._headers is not None else self._read_headers()
        elif source == "cookie":
            found = self._cookies if self._cookies is not None else self._read_cookies()
        else:
            found = self._query if self._query is not None else self._read_query()
        return found.get(name, ())

    def _read_headers(self) -> Mapping[str, list[str]]:
        self._headers = {}
        for name, value in self.scope["headers"]:
            if name in self.header_names:
                text = value.decode("utf-8", "surrogateescape").strip(" \t")
                self._headers.setdefault(name.decode("ascii"), []).append(text)
        return self._headers

    def _read_cookies(self) -> Mapping[str, list[str]]:
        self._cookies = {}
        for name, value in self.scope["headers"]:
            if name == b"cookie":  # HTTP/2 splits the field (RFC 9113 8.2.3)
                for key, cookie in parse_cookies(value.decode("utf-8", "surrogateescape")):
                    self._cookies.setdefault(key, []).append(cookie)
        return self._cookies

    def _read_query(self) -> Mapping[str, list[str]]:
        self._query = {}
        query = self.scope["query_string"].decode("latin-1")
        for name, value in parse_qsl(query, keep_blank_values=True):
            self._query.setdefault(name, []).append(value)
        return self._query


def parse_cookies(field: str) -> list[tuple[str, str]]:
    """Return names and values of a Cookie field, as leniently as servers read it (RFC 6265 5.4 and 4.2).

    Quotes around a value are left out. A piece without ``=`` is a value without a name.
    """
    cookies = []
    for piece in field.split(";"):
        name, separator, value = piece.partition("=")
        if not separator:
            name, value = "", piece
        value = value.strip(" \t")
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
        cookies.append((name.strip(" \t"), value))
    return cookies


@dataclass(frozen=True, slots=True)
class ValuePattern:
    """What a condition says about a value: exactly `text`, a match of `regex`, or (neither) anything."""

    text: str | None = None
    regex: re.Pattern[str] | None = None

    def holds(self, value: str) -> bool:
        """Whether the value is one of those meant."""
        if self.text is not None:
            return value == self.text
        return self.regex is None or self.regex.search(value) is not None

    def implies(self, other: ValuePattern) -> bool:
        """Whether a value that this holds for surely makes `other` hold too."""
        if self == other or other == ANY_VALUE:
            return True
        return self.text is not None and other.holds(self.text)

    def __str__(self) -> str:
        if self.text is not None:
            return repr(self.text)
        return "any value" if self.regex is None else f"a match of {self.regex.pattern!r}"


ANY_VALUE: Final = ValuePattern()


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: a value under `name` in `source` is one of those that `pattern` means."""

    source: Source
    name: str
    pattern: ValuePattern

    def holds(self, request: Request) -> bool:
        """Whether the request fulfils the condition."""
        return any(self.pattern.holds(value) for value in request.values(self.source, self.name))

    def implies(self, other: Condition) -> bool:
        """Whether every request that fulfils this condition surely fulfils `other`."""
        same_value = self.source == other.source and self.name == other.name
        return same_value and self.pattern.implies(other.pattern)

    def __str__(self) -> str:
        return f"{self.source} {self.name} must be {self.pattern}"


def parse_condition(source: Source, name: str, value: str) -> Condition:
    """Return the condition that a route writes as ``name = "value"`` under headers, cookies or query.

    Raises:
        ValueError: the name is no field name, or the value no regular expression.

    """
    if source == "header":
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no header field name")
        name = name.lower()
    return Condition(source, name, _parse_value(value))


def _parse_value(value: str) -> ValuePattern:
    if value == "*":
        return ANY_VALUE
    if not value.startswith("~"):
        return ValuePattern(text=value)
    try:
        return ValuePattern(regex=re.compile(value[1:]))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
