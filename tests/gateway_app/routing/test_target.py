"""Request targets: one form for all spellings of a path, and a refusal where there is none."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway_app.problem import Cause
from gateway_app.routing.target import MAX_TARGET_BYTES, Target, TargetError, TargetReader

STRICT = TargetReader()
KEEPING = TargetReader(encoded_slashes="keep", path_parameters="keep")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (b"/", b"/"),
        (b"/admin", b"/admin"),
        (b"/admin/", b"/admin/"),
        (b"//admin", b"/admin"),
        (b"///admin//x", b"/admin/x"),
        (b"/admin//", b"/admin/"),
        (b"/./admin", b"/admin"),
        (b"/admin/.", b"/admin/"),
        (b"/admin/..", b"/"),
        (b"/api/../admin", b"/admin"),
        (b"/api/%2e%2E/admin", b"/admin"),
        (b"/api/.%2e/admin", b"/admin"),
        (b"/api//../admin", b"/admin"),
        (b"/..", b"/"),
        (b"/../../admin", b"/admin"),
        (b"/a/b/../../c", b"/c"),
        (b"/%61dmin", b"/admin"),
        (b"/%41dmin", b"/Admin"),
        (b"/%7euser/%2Dx", b"/~user/-x"),
        (b"/%252e%252e/x", b"/%252e%252e/x"),
        (b"/%25", b"/%25"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%20b", b"/a%20b"),
        (b"/a%3Ab", b"/a%3Ab"),
        (b"/a:b", b"/a:b"),
        (b"/...", b"/..."),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"/a/..b/.c", b"/a/..b/.c"),
        (b"/{x}|^", b"/{x}|^"),
    ],
)
def test_every_spelling_goes_out_in_one_form(written: bytes, normal: bytes) -> None:
    for _ in ("read for the first time", "remembered"):
        target = STRICT.read("GET", written, b"q=%61//../;%zz")
        assert target.raw_path == normal
        assert target.decoded.encode() == unquote_to_bytes(normal)
        assert target.authority is None


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"foo",
        b"*",
        b"h.example:443",
        b"/admin;x",
        b"/;/admin",
        b"/admin%3Bx",
        b"/admin%2Fx",
        b"/admin%2fx",
        b"/admin%5cx",
        b"/admin\\x",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a%2%66",
        b"/%00",
        b"/%0a",
        b"/%0D%0Ax",
        b"/%7F",
        b"/a b",
        b"/a\tb",
        b"/a\r\nx",
        b"/a\x00",
        b"/caf\xc3\xa9",
        b"/%ff",
        b"/%c0%af",
        b"/%c0%ae%c0%ae/admin",
        b"/%ed%a0%80",
        b"/a#b",
        b"/a?b",
        b"http://",
        b"http:///x",
        b"http:/x",
        b"ftp://h/x",
        b"file:///etc/passwd",
        b"http://h/a#b",
        b"http://h/\\x",
    ],
)
def test_what_has_no_one_meaning_is_refused(written: bytes) -> None:
    for _ in ("first", "again"):
        with pytest.raises(TargetError) as error:
            STRICT.read("GET", written)
        assert error.value.cause is Cause.MALFORMED
        assert error.value.detail


@pytest.mark.parametrize("query", [b"a#b", b"a b", b"a\r\nb", b"a\x00", b"\xc3\xa9", b"\x7f"])
def test_a_query_with_bytes_no_target_may_carry_is_refused(query: bytes) -> None:
    with pytest.raises(TargetError, match="the query has the byte"):
        STRICT.read("GET", b"/", query)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (b"/a%3Ab", "/a:b"),
        (b"/a%2Bb+c", "/a+b+c"),
        (b"/caf%C3%A9", "/café"),
        (b"/a%20b", "/a b"),
        (b"/%252F", "/%252F"),
        (b"/%25zz", "/%25zz"),
        (b"/%7Bx%7D", "/{x}"),
    ],
)
def test_spellings_a_backend_may_take_for_one_are_matched_as_one(written: bytes, path: str) -> None:
    assert STRICT.read("GET", written).path == path


@pytest.mark.parametrize(
    ("written", "normal", "path"),
    [
        (b"/admin%2fx", b"/admin%2Fx", "/admin%2Fx"),
        (b"/a%5Cb", b"/a%5Cb", "/a%5Cb"),
        (b"/admin;x=1/y", b"/admin;x=1/y", "/admin/y"),
        (b"/admin;", b"/admin;", "/admin"),
        (b"/a;x/../b;y", b"/b;y", "/b"),
        (b"/a%3Bb", b"/a%3Bb", "/a;b"),
    ],
)
def test_kept_slashes_are_data_and_kept_parameters_do_not_count(
    written: bytes, normal: bytes, path: str
) -> None:
    target = KEEPING.read("GET", written)
    assert (target.raw_path, target.path) == (normal, path)


@pytest.mark.parametrize(
    "written",
    [b"/a/..;/b", b"/;x/admin", b"/a/.;/b", b"/a/..%2Fadmin", b"/a%2f..", b"/a%5C.%2Fb", b"/..%5Cx"],
)
def test_kept_characters_never_stand_beside_dots(written: bytes) -> None:
    with pytest.raises(TargetError):
        KEEPING.read("GET", written)


def test_absolute_form_brings_its_own_authority() -> None:
    assert STRICT.read("GET", b"http://A.example:81/x/../y") == Target(b"/y", "/y", "/y", b"A.example:81")
    assert STRICT.read("GET", b"HTTPS://h") == Target(b"/", "/", "/", b"h")
    assert STRICT.read("OPTIONS", b"http://h") == Target(b"*", "*", "*", b"h")
    assert STRICT.read("OPTIONS", b"http://h/") == Target(b"/", "/", "/", b"h")
    assert STRICT.read("OPTIONS", b"http://h", b"q").raw_path == b"/"


def test_asterisk_is_for_options() -> None:
    assert STRICT.read("OPTIONS", b"*") == Target(b"*", "*", "*", None)
    with pytest.raises(TargetError, match="OPTIONS alone"):
        STRICT.read("OPTIONS", b"*", b"q")


def test_connect_is_refused_whatever_was_remembered() -> None:
    STRICT.read("GET", b"/connect-me")
    for target in (b"h.example:443", b"/connect-me"):
        with pytest.raises(TargetError, match="CONNECT"):
            STRICT.read("CONNECT", target)


def test_length_is_bounded_with_the_query_and_without() -> None:
    longest = b"/" + b"a" * (MAX_TARGET_BYTES - 1)
    assert STRICT.read("GET", longest).raw_path == longest
    assert STRICT.read("GET", b"/", b"a" * (MAX_TARGET_BYTES - 2))
    for path, query in ((longest + b"a", b""), (b"/", b"a" * (MAX_TARGET_BYTES - 1))):
        with pytest.raises(TargetError) as error:
            STRICT.read("GET", path, query)
        assert error.value.cause is Cause.TARGET_TOO_LONG


PIECES = [
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2F",
    "%5C",
    "%25",
    "%2",
    "%61",
    "a",
    "admin",
    ";",
    "%3b",
    "\\",
    "%",
    "é",
    ":",
]
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: ("/" + "".join(pieces)).encode())


@settings(deadline=None)
@example(b"/%3b/", "refuse", "keep")
@example(b"/.%3b", "refuse", "keep")
@example(b"/%2F.;", "keep", "keep")
@given(WRITTEN, st.sampled_from(["refuse", "keep"]), st.sampled_from(["refuse", "keep"]))
def test_the_normal_form_leaves_nothing_to_resolve(written: bytes, slashes: str, parameters: str) -> None:
    reader = TargetReader(encoded_slashes=slashes, path_parameters=parameters)  # type: ignore[arg-type]
    try:
        target = reader.read("GET", written)
    except TargetError:
        return
    again = TargetReader(encoded_slashes=slashes, path_parameters=parameters)  # type: ignore[arg-type]
    assert again.read("GET", target.raw_path) == target
    # As a backend sees it that decodes, takes \\ for / and cuts parameters, in whatever order.
    decoded = unquote_to_bytes(target.raw_path).replace(b"\\", b"/")
    for seen in (
        decoded,
        re.sub(rb";[^/]*", b"", decoded),
        unquote_to_bytes(re.sub(rb";[^/]*", b"", target.raw_path)),
    ):
        segments = seen.split(b"/")[1:]
        assert not {b".", b".."} & set(segments)
        assert slashes == "keep" or b"" not in segments[:-1]


DISGUISES = st.sampled_from(["/", "//", "/./", "/x/../", "/%2e/", "/x/%2E./", "/%78/..//"])


@settings(deadline=None)
@given(DISGUISES, st.lists(st.booleans(), min_size=5, max_size=5), DISGUISES)
def test_no_disguise_of_a_path_gets_around_its_rule(before: str, escaped: list[bool], after: str) -> None:
    letters = zip("admin", escaped, strict=True)
    name = "".join(f"%{ord(letter):02x}" if escape else letter for letter, escape in letters)
    assert STRICT.read("GET", f"{before}{name}{after}x".encode()).raw_path == b"/admin/x"


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(written: bytes) -> None:
    for reader in (STRICT, KEEPING):
        try:
            target = reader.read("GET", written)
        except TargetError:
            continue
        assert target.raw_path.startswith(b"/")
