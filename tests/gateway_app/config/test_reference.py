"""The agreed format by example, key for key: what works as it says, and what is refused as not built yet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.load import load_text
from l4relay.config.toml_lines import KeyPath, Lines

REFERENCE = Path(__file__).with_name("reference.toml")

NAMES_OF_THE_USER: Final = frozenset(
    {"backends", "middleware", "headers", "cookies", "query", "json", "header", "sni"}
)
"""Tables whose keys are no words of the format."""


def errors_of(text: str) -> list[str]:
    """The errors of a file, without its name."""
    with pytest.raises(ConfigErrors) as raised:
        load_text(text, file="f.toml")
    return [str(error).removeprefix("f.toml:") for error in raised.value.errors]


def reference() -> str:
    """The agreed format by example, with what this machine has in place of names that are made up."""
    text = REFERENCE.read_text()
    return (
        text.replace("asgi:reports.app:app", "asgi:starlette.responses:PlainTextResponse")
        .replace("mycompany.gateway:Brand", "starlette.middleware.trustedhost:TrustedHostMiddleware")
        .replace('colour = "green"', 'allowed_hosts = ["example.com"]')
    )


def built() -> str:
    """The reference without what is not built yet, on the same lines."""
    text = reference()
    for header, following in [
        ("[[gateway.tls]]", "[admin]"),
        ("[backends.grpc]", "[backends.reports]"),
        ("[middleware.edge-cache]", "[middleware.brand]"),
    ]:
        start = text.index(header)
        end = text.index(following, start)
        text = text[:start] + "\n" * text.count("\n", start, end) + text[end:]
    return text.replace('"strip-api", "squeeze"]', '"strip-api"]')


def words_of(text: str) -> list[KeyPath]:
    """Every key of a file that is a word of the format."""
    return [
        path
        for path in Lines(text).paths()
        if isinstance(path[-1], str) and not (len(path) > 1 and path[-2] in NAMES_OF_THE_USER)
    ]


def misspelt(text: str, path: KeyPath) -> str:
    """The file with the key at `path` written otherwise."""
    lines = text.split("\n")
    place = Lines(text).of(path) - 1
    pattern = rf"\b{path[-1]}(?=\s*=|\.|\]+(?:\s|$))"
    lines[place], count = re.subn(pattern, f"{path[-1]}x", lines[place], count=1)
    assert count == 1, (path, lines[place])
    return "\n".join(lines)


def test_the_reference_is_read_as_it_says() -> None:
    config = load_text(built())
    assert config.gateway.model_dump() == {
        "listen": ("127.0.0.1:8080",),
        "server": "hypercorn",
        "workers": 1,
        "trusted_proxies": ("127.0.0.0/8",),
        "accept_proxy_protocol": False,
        "middleware": ("baseline",),
        "access_log": "json",
        "max_body": 10_000_000,
        "drain": 30.0,
        "encoded_slashes": "refuse",
        "path_parameters": "refuse",
        "via": None,
    }
    assert config.admin is not None
    assert config.admin.listen == "127.0.0.1:9090"
    assert config.state.store == "memory"
    users = config.backends["users"]
    assert [(each.url, each.weight, each.backup) for each in users.endpoints] == [
        ("http://127.0.0.1:9001", 1, False),
        ("http://127.0.0.1:9002", 2, False),
        ("http://127.0.0.1:9003", 1, True),
    ]
    assert (users.balance, users.hash_on) == ("round_robin", "header:x-user")
    assert (users.max_connections, users.max_waiting) == (256, 1024)
    assert users.timeout.model_dump() == {"connect": 1, "response": 30, "idle": 60, "total": 120}
    assert users.retry is not None
    assert users.retry.model_dump() == {
        "attempts": 2,
        "on": ("connect", "reset", "502", "503", "504"),
        "methods": ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"),
        "budget": 0.2,
    }
    assert users.health is not None
    assert users.health.model_dump() == {
        "path": "/healthz",
        "interval": 5,
        "timeout": 1,
        "healthy_after": 2,
        "unhealthy_after": 3,
    }
    assert users.outlier is not None
    assert users.outlier.model_dump() == {"consecutive_failures": 5, "eject_for": 30, "max_ejected": 0.5}
    assert config.middleware["per-client"].type == "rate_limit"
    assert config.middleware["per-client"].options == {
        "limit": "100/minute",
        "key": "client",
        "strategy": "sliding_window",
    }
    users_route, beta, orders, old = config.routes
    assert users_route.match.host == "api.example.com"
    assert users_route.match.methods == ("GET", "POST")
    assert users_route.middleware == ("per-client", "strip-api")
    assert users_route.answer is None
    assert beta.match.headers == {"x-beta": "1"}
    assert beta.match.cookies == {"plan": "pro"}
    assert beta.match.query == {"v": "2"}
    assert orders.match.json_body == {"/customer/tier": "gold"}
    assert old.answer is not None
    assert old.answer.type == "redirect"
    assert old.answer.options == {"to": "https://blog.example.com{path}", "status": 308}
    assert [test.name for test in config.tests] == ["users need no prefix upstream", "old posts move"]
    assert config.tests[0].expect.path == "/users/7"
    assert [relay["name"] for relay in config.relay] == ["postgres", "dns", "tls-by-name"]


def test_what_is_not_built_yet_is_refused() -> None:
    assert errors_of(reference()) == [
        "26: gateway.tls: is not supported yet",
        '75: backends.grpc.endpoints[0]: "h2c:" endpoints are not supported yet, found "h2c://127.0.0.1:50051"',
        '99: middleware.edge-cache.type: "cache" is not supported yet',
        '104: middleware.squeeze.type: "compress" is not supported yet',
        '109: middleware.checkout-test.type: "split" is not supported yet',
    ]


@pytest.mark.parametrize("store", ["machine", "redis://host:6379/0"])
def test_other_stores_are_refused(store: str) -> None:
    assert errors_of(f'[state]\nstore = "{store}"') == [
        f'2: state.store: this store is not supported yet, found "{store}"; "memory" is'
    ]


@pytest.mark.parametrize("scheme", ["h2", "h2c", "h3", "grpc", "grpcs", "ws", "wss", "https+unix"])
def test_other_schemes_are_refused(scheme: str) -> None:
    (error,) = errors_of(f'[backends.b]\nendpoints = ["{scheme}://127.0.0.1:1"]')
    assert f'2: backends.b.endpoints[0]: "{scheme}:" endpoints are not supported yet' in error


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('listen = ["127.0.0.1:8080"]', 'listen = ["[::1]:8080", "unix:/run/gateway.sock"]'),
        ('server = "hypercorn"', 'server = "granian"'),
        ('trusted_proxies = ["127.0.0.0/8"]', 'trusted_proxies = ["2001:db8::/32", "unix:"]'),
        ('access_log = "json"', 'access_log = "text"'),
        ('access_log = "json"', 'access_log = "off"'),
        *(
            ('balance = "round_robin"', f'balance = "{policy}"')
            for policy in ("least_requests", "power_of_two", "ewma", "hash", "random")
        ),
        *(
            ('hash_on = "header:x-user"', f'hash_on = "{key}"')
            for key in ("client", "path", "cookie:session")
        ),
        ('"http://127.0.0.1:9001"', '"https://127.0.0.1:9001"'),
        ('"http://127.0.0.1:9001"', '"http+unix:/run/app.sock"'),
        ('"asgi:starlette', '"wsgi:starlette'),
        *(
            ('key = "client" ', f"key = {key} ")
            for key in ('"route"', '"header:x-user"', '"cookie:session"', '["client", "header:x-user"]')
        ),
        ('strategy = "sliding_window"', 'strategy = "fixed_window"'),
        ('strategy = "sliding_window"', 'strategy = "moving_window"'),
        ('limit = "100/minute"', 'limit = "10/second; 1000/hour"'),
        ('strip_prefix = "/api"', 'path = "/v2"'),
        ('strip_prefix = "/api"', 'regex = "^/old/(.*)"\nto = "/new/\\\\1"'),
        *(
            ('balance = "least_connections"', f'balance = "{policy}"')
            for policy in ("round_robin", "source_hash", "random")
        ),
        ('allow = ["127.0.0.0/8"]', 'deny = ["10.0.0.0/8"]'),
        ('proxy_protocol = "v2"', "accept_proxy_protocol = true"),
        ('timeout = "1s" }', 'timeout = "1s", send = "PING", expect = "+PONG" }'),
    ],
)
def test_what_the_reference_names_as_another_possibility_works(written: str, instead: str) -> None:
    text = built()
    assert written in text
    load_text(text.replace(written, instead))


def test_no_word_of_the_reference_is_ignored() -> None:
    """Each key, written otherwise, is reported by that name: so each is read as it is written."""
    text = built()
    for path in words_of(text):
        found = errors_of(misspelt(text, path))
        reported = [error for error in found if f"{path[-1]}x: " in error and "known" in error]
        assert reported, (path, found)
