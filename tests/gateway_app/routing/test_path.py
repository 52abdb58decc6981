"""Path patterns: what each kind means, and which are refused."""

from __future__ import annotations

import pytest

from gateway_app.routing.path import PathKind, parse_path_pattern


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (None, ["/", "/a/b", "*"], []),
        ("/*", ["/", "/a/b", "*"], []),
        ("/", ["/"], ["/a", "*"]),
        ("/about", ["/about"], ["/about/", "/About", "/about/x"]),
        ("/a b", ["/a b"], []),
        ("/caf%c3%a9", ["/café"], []),
        ("/a%2fb", ["/a%2Fb"], ["/a/b"]),
        ("/%7Bx%7D", ["/{x}"], ["/y"]),
        ("/api/*", ["/api", "/api/", "/api/x/y"], ["/apix", "/ap", "/", "*"]),
        ("/users/{id}", ["/users/7"], ["/users", "/users/", "/users/7/", "/users/7/x", "*"]),
        ("/users/{id}/", ["/users/7/"], ["/users/7"]),
        ("/u/{id}/*", ["/u/7", "/u/7/", "/u/7/x/y"], ["/u", "/u/", "/u//x"]),
        ("/{a}/x/{b}", ["/1/x/2"], ["/1/y/2", "/x/2"]),
        ("~^/v[12]/", ["/v1/x", "/v2/"], ["/v3/", "/a/v1/"]),
        ("~b$", ["/ab", "/a/b"], ["/ba", "*"]),
        ("~.*", ["/"], ["*"]),
    ],
)
def test_a_pattern_means_paths(pattern: str | None, inside: list[str], outside: list[str]) -> None:
    parsed = parse_path_pattern(pattern)
    assert all(parsed.capture(path) is not None for path in inside)
    assert all(parsed.capture(path) is None for path in outside)


def test_captures_are_decoded() -> None:
    assert parse_path_pattern("/a/{x}/{y}").capture("/a/1%2F2/%252F") == {"x": "1/2", "y": "%2F"}
    assert parse_path_pattern("~^/v(?P<n>[0-9])/(?P<rest>x)?").capture("/v1/") == {"n": "1", "rest": ""}


@pytest.mark.parametrize(
    "pattern",
    ["/a", "/a/*", "/a/{x}/*", "/{x}", "~^/x", "/*"],
)
def test_a_pattern_is_shown_as_it_is_written(pattern: str) -> None:
    assert str(parse_path_pattern(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("about", "accepted are"),
        ("", "accepted are"),
        ("/a/*/b", "only at the end"),
        ("/a*", "only at the end"),
        ("/a/{id}.json", "whole segment"),
        ("/a/{}", "whole segment"),
        ("/a/{1}", "whole segment"),
        ("/{a}/{a}", "one name"),
        ("/a/:id", "written \"{id}\", not ':id'"),
        ("/a/<int:id>/*", "written \"{id}\", not '<int:id>'"),
        ("/a//b", "empty or dot segments"),
        ("/a/../b", "empty or dot segments"),
        ("/a/%2e", "empty or dot segments"),
        ("/a//*", "empty or dot segments"),
        ("/{a}//b", "empty or dot segments"),
        ("/a;x", "path parameters"),
        ("/a?b=1", "query"),
        ("/a%zz", "hexadecimal"),
        ("/a%00", "not accepted"),
        ("/a\\b", "0x5C"),
        ("~(", "no regular expression"),
        ("~^api/", 'did you mean "~^/api/"?'),
    ],
)
def test_a_pattern_that_cannot_match_says_what_to_mend(pattern: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_path_pattern(pattern)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("regex", "leading"),
    [
        ("~^/api/v[12]/", "/api/"),
        ("~^/api/users/(a|b)", "/api/users/"),
        ("~^/api", "/"),
        ("~^/api/?x", "/"),
        ("~^/a/b/?x", "/a/"),
        ("~^/a/|^/b/", "/"),
        ("~^/a/[|]x", "/a/"),
        (r"~^/a/\|x", "/a/"),
        (r"~^/a/\(|x", "/"),
        ("~^/a/(?#()|x", "/"),
        ("~^/a/[(]|x", "/"),
        ("~^/a/[]|(]x", "/a/"),
        ("~^/a+/x", "/"),
        ("~^/a.b/x", "/"),
        ("~(?i)^/a/", "/"),
        ("~/a/", "/"),
        ("~^/a/{2}x", "/"),
        ("~^a?/x", "/"),
        ("~^a|^/x", "/"),
        ("~^[^a]", "/"),
    ],
)
def test_the_beginning_of_an_expression_is_known_only_where_it_is_certain(regex: str, leading: str) -> None:
    pattern = parse_path_pattern(regex)
    assert pattern.kind is PathKind.REGEX
    assert pattern.leading_text == leading
