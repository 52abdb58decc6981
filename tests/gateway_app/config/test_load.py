"""What a file may say, and what is said about a wrong one: to the line and the word."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway_app.config.errors import ConfigErrors
from gateway_app.config.load import load, load_text
from gateway_app.config.model import GatewayConfig
from gateway_app.config.references import check_references
from gateway_app.config.source import Source

BACKEND = '[backends.b]\nendpoints = ["http://127.0.0.1:1"]\n'
ROUTE = '[[routes]]\nname = "r"\nbackend = "b"\n'


def errors_of(text: str) -> list[str]:
    """The errors of a file, without its name."""
    with pytest.raises(ConfigErrors) as raised:
        load_text(text, file="f.toml")
    return [str(error).removeprefix("f.toml:") for error in raised.value.errors]


def test_an_empty_text_is_all_defaults() -> None:
    assert load_text("").model_dump() == GatewayConfig().model_dump()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # keys
        ("[gatway]\n", '1: gatway: unknown key; did you mean "gateway"?'),
        ("[gateway]\n\nworker = 2", '3: gateway.worker: unknown key; did you mean "workers"?'),
        ("[admin]\nport = 1", '2: admin.port: unknown key; known are "listen"'),
        ('[backends."my api"]\n', '1: backends."my api".endpoints: is missing'),
        (
            "[gateway]\ntests = []",
            '2: gateway.tests: unknown key; known are "accept_proxy_protocol", "access_log", "drain", '
            '"encoded_slashes", "listen", "max_body", "middleware", "path_parameters", "server", '
            '"trusted_proxies", "via", "workers"',
        ),
        ('listen = ["127.0.0.1:1"]', "1: listen: unknown key; write it below [gateway]"),
        ("tests = []", '1: tests: unknown key; did you mean "test"?'),
        (
            "[gateway]\naccept_proxy_protocol = true",
            '2: gateway.accept_proxy_protocol: needs trusted_proxies = ["10.0.0.0/8", …]: who may send '
            "a header",
        ),
        (
            '[gateway]\nserver = "granian"\ntrusted_proxies = ["unix:"]\naccept_proxy_protocol = true',
            "4: gateway.accept_proxy_protocol: PROXY headers are read by `gateway serve` with server = "
            '"hypercorn" alone',
        ),
        # types and ranges
        ("gateway = 5", "1: gateway: expected a table, found 5"),
        ("[[gateway]]\nworkers = 2", "1: gateway: expected a table, found a list; write [gateway]"),
        ('[routes]\nname = "r"', "1: routes: expected a list, found a table; write [[routes]]"),
        (
            '[gateway]\nlisten = "127.0.0.1:80"',
            '2: gateway.listen: expected a list, found "127.0.0.1:80"; write ["127.0.0.1:80"]',
        ),
        ("[gateway]\nlisten = []", "2: gateway.listen: expected at least 1 element(s), found an empty list"),
        ('[gateway]\nworkers = "2"', '2: gateway.workers: expected a whole number, found "2"'),
        ("[gateway]\nworkers = 2.5", "2: gateway.workers: expected a whole number, found 2.5"),
        ("[gateway]\nworkers = 0", "2: gateway.workers: expected a number of at least 1, found 0"),
        (
            "[gateway]\nworkers = 2020-01-01",
            '2: gateway.workers: expected a whole number, found "2020-01-01"',
        ),
        ("[gateway]\nvia = 2020-01-01", '2: gateway.via: expected a text in quotes, found "2020-01-01"'),
        (
            "[gateway]\ndrain = 5",
            '2: gateway.drain: expected a duration with its unit, such as "250ms", "5s", '
            '"2m" or "1h", found 5',
        ),
        (
            '[gateway]\nmax_body = "10M"',
            '2: gateway.max_body: expected a size with its unit, such as "512B", '
            '"64KiB" or "10MB", found "10M"',
        ),
        # choices
        (
            '[gateway]\nserver = "granain"',
            '2: gateway.server: expected "hypercorn" or "granian", found "granain"; did you mean "granian"?',
        ),
        (
            '[gateway]\nserver = "granian"\nlisten = ["127.0.0.1:1", "127.0.0.1:2"]',
            "3: gateway.listen: granian listens on one address; hypercorn on several",
        ),
        (
            '[state]\nstore = "memry"',
            '2: state.store: expected "memory", found "memry"; did you mean "memory"?',
        ),
        # texts with a grammar
        (
            '[admin]\nlisten = "[::1]"',
            "2: admin.listen: '[::1]' is no address with a port; accepted are "
            '"127.0.0.1:8080", "[::1]:8080", "name.example:8080" or "unix:/path"',
        ),
        (
            '[gateway]\ntrusted_proxies = [\n"10.0.0.0/8",\n"10.0.0.1/8"]',
            "4: gateway.trusted_proxies[1]: "
            '\'10.0.0.1/8\' is no network; accepted are "10.0.0.0/8", "2001:db8::/32" or a single address; '
            "did you mean '10.0.0.0/8'?",
        ),
        (
            '[gateway]\ntrusted_proxies = ["unix:", "unix:/run/a.sock"]',
            '2: gateway.trusted_proxies[1]: expected "unix:" alone: the peers of all Unix sockets, whatever '
            'their path, found "unix:/run/a.sock"',
        ),
        (
            '[state]\nstore = "disk"',
            '2: state.store: expected "memory", found "disk"',
        ),
        (
            '[gateway]\nvia = "a b"',
            '2: gateway.via: expected a word without spaces, such as "edge-1", found "a b"',
        ),
    ],
)
def test_errors_of_settings(text: str, error: str) -> None:
    assert errors_of(text) == [error]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (
            'endpoints = ["http://h:1/x"]',
            'endpoints[0]: expected no more than host and port, found "http://h:1/x"; '
            'a "rewrite" middleware changes the path',
        ),
        (
            'endpoints = ["http://u@h:1"]',
            'endpoints[0]: expected no user name in the URL, found "http://u@h:1"; a '
            '"headers" middleware can set authorization',
        ),
        (
            'endpoints = ["http://h:99999"]',
            'endpoints[0]: expected a URL such as "http://127.0.0.1:9001" (Port out of '
            'range 0-65535), found "http://h:99999"',
        ),
        (
            'endpoints = ["http://"]',
            'endpoints[0]: expected a URL with a host, such as "http://127.0.0.1:9001", found "http://"',
        ),
        (
            'endpoints = ["htp://h"]',
            'endpoints[0]: expected a URL such as "http://127.0.0.1:9001" or '
            '"asgi:package.module:app", found "htp://h"; did you mean "http"?',
        ),
        (
            'endpoints = ["127.0.0.1:9001"]',
            'endpoints[0]: expected a URL such as "http://127.0.0.1:9001" or "asgi:package.module:app", '
            'found "127.0.0.1:9001"; did you mean "http://127.0.0.1:9001"?',
        ),
        (
            'endpoints = ["shop:app"]',
            'endpoints[0]: expected a URL such as "http://127.0.0.1:9001" or "asgi:package.module:app", '
            'found "shop:app"; did you mean "asgi:shop:app"?',
        ),
        (
            'endpoints = ["http+unix:run/x"]',
            "endpoints[0]: expected the absolute path of a socket, as in "
            '"http+unix:/run/app.sock", found "http+unix:run/x"',
        ),
        (
            'endpoints = ["asgi:no_such_module_here:app"]',
            'endpoints[0]: there is no module "no_such_module_here" to '
            'import, found "asgi:no_such_module_here:app"',
        ),
        (
            'endpoints = ["asgi:starlette"]',
            'endpoints[0]: expected an import path "package.module:name", found "asgi:starlette"',
        ),
        ('endpoints = [{ ur = "http://h" }]', "endpoints[0].url: is missing"),
        (
            'endpoints = ["http://h", "http://i", { url = "http://h" }]',
            'endpoints: expected each endpoint once, found a list; a "weight" gives http://h more traffic',
        ),
        ("endpoints = [5]", 'endpoints[0]: expected a table with "backup", "url", "weight", found 5'),
        (
            'endpoints = [{ url = "http://h", weight = 0 }]',
            "endpoints[0].weight: expected a number greater than 0.0, found 0",
        ),
        (
            'balance = "round-robin"',
            'balance: expected "round_robin", "least_requests", "power_of_two", "ewma", '
            '"hash" or "random", found "round-robin"; did you mean "round_robin"?',
        ),
        (
            'hash_on = "head:x"',
            'hash_on: expected "client", "path", "header:NAME" or "cookie:NAME", found "head:x"; '
            'did you mean "header:"?',
        ),
        (
            'retry.on = ["conect"]',
            'retry.on[0]: expected "connect", "reset", "timeout" or a status such as "503", '
            'found "conect"; did you mean "connect"?',
        ),
        (
            'hash_on = "header:"',
            'hash_on: expected "client", "path", "header:NAME" or "cookie:NAME", found "header:"',
        ),
        ('retry.methods = ["get"]', 'retry.methods[0]: methods are written in capitals: "GET", found "get"'),
        ("retry.budget = 2", "retry.budget: expected a number of at most 1.0, found 2"),
        ('timeout = { conect = "1s" }', 'timeout.conect: unknown key; did you mean "connect"?'),
        (
            'timeout = "5s"',
            'timeout: expected a table with "connect", "idle", "response", "total", found "5s"',
        ),
        ('connect = "5s"', "connect: unknown key; write timeout = { connect = … }"),
        ('timeout.idle = "0s"', 'timeout.idle: expected a number greater than 0, found "0s"'),
        (
            'health.path = "healthz"',
            'health.path: expected a path from the root, such as "/healthz", found "healthz"',
        ),
        (
            'host = "a b"',
            'host: expected "pass", "endpoint" or a host, such as "users.internal" or "users.internal:8080", '
            'found "a b"',
        ),
        ('tls.ca = "missing.pem"', "tls.ca: there is no file 'missing.pem'"),
    ],
)
def test_errors_of_backends(lines: str, error: str) -> None:
    needed = "" if "endpoints" in lines else '\nendpoints = ["http://127.0.0.1:1"]'
    found = errors_of(f"[backends.b]\n{lines}{needed}")
    assert f"2: backends.b.{error}" in found
    assert len(found) == 1 + ("{ ur =" in lines)


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("")
    (tmp_path / "routes.toml").write_text(BACKEND + 'tls.cert = "c.pem"')
    with pytest.raises(ConfigErrors, match=r'backends\.b\.tls\.cert: is of no use without "key"'):
        load(tmp_path / "routes.toml")


def test_files_are_relative_to_the_directory_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "routes.toml").write_text(BACKEND + 'tls.ca = "ca.pem"')
    tls = load(tmp_path / "routes.toml").backends["b"].tls
    assert tls is not None
    assert tls.ca == str(tmp_path / "ca.pem")


def test_a_file_that_a_middleware_reads_is_relative_to_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reading.py").write_text(
        "from gateway_app.config.values import FilePath\n\n"
        "class Reading:\n    def __init__(self, app, *, keys: FilePath): ...\n"
        "    async def __call__(self, scope, receive, send): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = '[middleware.m]\ntype = "reading:Reading"\nkeys = "keys.json"'
    with pytest.raises(ConfigErrors, match=r":3: middleware\.m\.keys: there is no file '.*/keys\.json'"):
        load_text(text, base_dir=tmp_path)
    (tmp_path / "keys.json").touch()
    config = load_text(text, base_dir=tmp_path)
    assert config.middleware["m"].options == {"keys": str(tmp_path / "keys.json")}


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (
            ROUTE.replace('"b"', '"bb"') + 'match.path = "/x"',
            ['6: routes[1].backend: there is no backend "bb"; did you mean "b"?'],
        ),
        (
            ROUTE.replace('"r"', '"r0"') + 'match.path = "/x"',
            ['5: routes[1].name: "r0" is taken already, in line 2'],
        ),
        (
            ROUTE + 'redirect.to = "/x"\n',
            [
                '4: routes[1]: expected exactly one of "backend", "redirect", "respond", '
                "found both backend and redirect",
                '4: routes[1]: no request can reach "r": "r0" takes all of them',
            ],
        ),
        (
            ROUTE + 'middleware = ["a",\n"strip"]',
            [
                '7: routes[1].middleware[0]: there is no middleware "a"; known are "strip-api"',
                '8: routes[1].middleware[1]: there is no middleware "strip"; did you mean "strip-api"?',
                '4: routes[1]: no request can reach "r": "r0" takes all of them',
            ],
        ),
        (
            ROUTE + 'match.path = "/a/{id}"\n' + ROUTE.replace('"r"', '"r1"') + 'match.path = "/a/*"',
            [
                '4: routes[1]: no request can reach "r": "r1" takes all of them; "/a/*" comes before '
                'templates and expressions, "/a/{name}/*" behind them'
            ],
        ),
        (
            ROUTE + 'match = { path = ["/a", "/b"] }',
            ["7: routes[1].match.path: expected a text in quotes, found a list; write a route for each"],
        ),
        (
            ROUTE + "middleware = [{}]",
            [
                "7: routes[1].middleware[0]: expected a text in quotes, found a table; write a "
                "[middleware.NAME] table, and its name here",
                '4: routes[1]: no request can reach "r": "r0" takes all of them',
            ],
        ),
        (
            ROUTE + 'path = "/x"',
            [
                "7: routes[1].path: unknown key; write match = { path = … }",
                '4: routes[1]: no request can reach "r": "r0" takes all of them',
            ],
        ),
        (ROUTE + 'match = { hots = "x" }', ['7: routes[1].match.hots: unknown key; did you mean "host"?']),
        (
            ROUTE + 'match.path = "x"',
            [
                '7: routes[1].match.path: \'x\' is no path; accepted are "/about", "/api/*", '
                '"/users/{id}" or "~^/v[12]/"'
            ],
        ),
        (
            ROUTE + 'match.json = { "/a" = [1] }',
            [
                '7: routes[1].match.json."/a": expected a text in quotes or a whole '
                "number or a number or true or false, found a list"
            ],
        ),
        (
            ROUTE + 'match.path = "/a%2fb"',
            [
                "7: routes[1].match.path: no request can reach it: %2F and %5C are refused unless "
                'gateway.encoded_slashes is "keep"'
            ],
        ),
        (
            ROUTE + 'match.methods = ["CONNECT"]',
            ["7: routes[1].match.methods: CONNECT is answered with 400, whatever routes there are"],
        ),
        (
            ROUTE + "match.methods = []",
            ["7: routes[1].match.methods: expected at least 1 element(s), found an empty list"],
        ),
        (
            '[[test]]\nname = "t"\nrequest = { url = "/", client = "me" }\nexpect.route = "r0"',
            ['6: test[0].request.client: expected an IP address, such as "192.0.2.7", found "me"'],
        ),
        (
            ROUTE + '[[test]]\nname = "t"\nrequest.url = "/"\nexpect.route = "q"',
            [
                '10: test[0].expect.route: there is no route "q"; known are "r", "r0"',
                '4: routes[1]: no request can reach "r": "r0" takes all of them',
            ],
        ),
        (
            '[[test]]\nname = "t"\nrequest.url = "/"\nexpect = {}',
            ["7: test[0].expect: expects nothing; give a route, backend, path or status"],
        ),
    ],
)
def test_errors_of_routes(text: str, errors: list[str]) -> None:
    before = '[[routes]]\nname = "r0"\nbackend = "b"\n'
    after = BACKEND + '[middleware.strip-api]\ntype = "rewrite"\nstrip_prefix = "/api"\n'
    assert errors_of(f"{before}{text}\n{after}") == sorted(
        errors, key=lambda line: int(line.partition(":")[0])
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[middleware.m]\nlimit = 1", "1: middleware.m.type: is missing"),
        (
            '[middleware.m]\ntype = "my_gateway.Middleware"',
            "2: middleware.m.type: 'my_gateway.Middleware' is no middleware; did you mean "
            "'my_gateway:Middleware'?; built in are ",
        ),
        (
            '[middleware.m]\ntype = "headers"\n\n[middleware.m.set_request]\nx-a = "{clent}"',
            "5: middleware.m.set_request.x-a: {clent} in '{clent}' is unknown; did you mean {client}?",
        ),
        (
            '[middleware.m]\ntype = "rewrite"\nregex = "(a"\nto = "/b"',
            "3: middleware.m.regex: '(a' and '/b' do not fit together: missing )",
        ),
        (
            '[middleware.m]\ntype = "rate_limt"',
            "2: middleware.m.type: 'rate_limt' is no middleware; did you mean 'rate_limit'?",
        ),
        (
            '[middleware.m]\ntype = "no_such_module:M"',
            "2: middleware.m.type: 'no_such_module:M': there is no module no_such_module: not in the",
        ),
        ('[middleware.m]\ntype = "rate_limit"', "1: middleware.m.limit: is missing"),
        (
            '[middleware.m]\ntype = "rate_limit"\nlimit = "9/minute"\nlimits = 1',
            '4: middleware.m.limits: unknown key; did you mean "limit"?',
        ),
        (
            '[middleware.m]\ntype = "rate_limit"\nlimit = 9',
            "3: middleware.m.limit: expected a text in quotes, found 9",
        ),
        ('[middleware.m]\ntype = "rate_limit"\nlimit = "many"', "3: middleware.m.limit: 'many' is no rate"),
        (
            '[middleware.m]\ntype = "rate_limit"\nlimit = "9/minute"\nstrategy = "fixed"',
            "4: middleware.m.strategy: "
            'expected "fixed_window", "moving_window" or "sliding_window", found "fixed"',
        ),
        (
            '[middleware.m]\ntype = "starlette.middleware.cors:CORSMiddleware"\nallow_origin = ["*"]',
            '3: middleware.m.allow_origin: unknown key; did you mean "allow_origins"?',
        ),
        (
            '[middleware.m]\ntype = "starlette.middleware.cors:CORSMiddleware"\nmax_age = "1"',
            '3: middleware.m.max_age: expected a whole number, found "1"',
        ),
    ],
)
def test_errors_of_middlewares(text: str, error: str) -> None:
    (found,) = errors_of(text)
    assert found.startswith(error)


BROKEN = """
import sys

class Boom:
    def __init__(self, app):
        {}["key"]

class Leaves:
    def __init__(self, app):
        sys.exit(3)

class Uncalled:
    def __init__(self, app): ...
"""


@pytest.mark.parametrize(
    ("type_name", "error"),
    [
        ("broken:Boom", "1: middleware.m: broken:Boom cannot be made: KeyError('key') in DIR/broken.py:6"),
        ("broken:Leaves", "1: middleware.m: broken:Leaves cannot be made: SystemExit(3) in DIR/broken.py:10"),
        (
            "broken:Uncalled",
            "2: middleware.m.type: broken:Uncalled lacks `async def __call__(self, scope, receive, send)`",
        ),
        (
            "broken_syntax:M",
            "2: middleware.m.type: 'broken_syntax:M': broken_syntax cannot be imported: SyntaxError: "
            "expected ':' (broken_syntax.py, line 2)",
        ),
        (
            "broken_import:M",
            "2: middleware.m.type: 'broken_import:M': broken_import cannot be imported: SystemExit(1) "
            "in DIR/broken_import.py:2",
        ),
    ],
)
def test_whatever_a_class_does_while_it_is_made_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_name: str, error: str
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "broken_syntax.py").write_text("class M:\n    def __init__(self, app)\n")
    (tmp_path / "broken_import.py").write_text("import sys\nsys.exit(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert errors_of(f'[middleware.m]\ntype = "{type_name}"') == [
        error.replace("DIR", os.path.relpath(tmp_path))
    ]


def test_a_template_that_the_route_cannot_fill_is_an_error_of_the_route() -> None:
    text = """
[middleware.to-user]
type = "rewrite"
path = "/v2/{param:id}"
[[routes]]
name = "good"
match.path = "/a/{id}"
middleware = ["to-user"]
backend = "b"
[[routes]]
name = "bad"
match.path = "/b/{name}"
middleware = ["to-user"]
backend = "b"
"""
    (error,) = errors_of(text + BACKEND)
    assert error.startswith(
        "13: routes[1].middleware[0]: path: the path of route 'bad' captures name, not 'id'"
    )


def test_a_misspelt_type_hides_no_option() -> None:
    assert errors_of('[middleware.m]\ntyp = "rate_limit"\nlimit = "1/minute"') == [
        "1: middleware.m.type: is missing",
        '2: middleware.m.typ: unknown key; did you mean "type"?',
    ]


def test_an_address_can_have_one_listener_only() -> None:
    text = """[gateway]
listen = ["127.0.0.1:8080", "unix:/run/g.sock",
  "127.0.0.1:8080"]
[admin]
listen = "unix:/run/g.sock"
[l4relay]
admin = "127.0.0.1:9091"
[[relay]]
name = "a"
listen = ["tcp://127.0.0.1:8080", "127.0.0.1:9090"]
endpoints = ["127.0.0.1:1"]
[[relay]]
name = "b"
listen = "127.0.0.1:9091"
endpoints = ["127.0.0.1:1"]
[[relay]]
name = "c"
listen = "udp://127.0.0.1:8080"
endpoints = ["127.0.0.1:1"]
"""
    assert errors_of(text) == [
        '3: gateway.listen[2]: "127.0.0.1:8080" is taken already, by gateway.listen[0] in line 2',
        '5: admin.listen: "unix:/run/g.sock" is taken already, by gateway.listen[1] in line 2',
        '10: relay[0].listen[0]: "127.0.0.1:8080" is taken already, by gateway.listen[0] in line 2',
        '14: relay[1].listen: "127.0.0.1:9091" is taken already, by l4relay.admin in line 7',
    ]


def test_encoded_slashes_that_are_kept_can_be_matched() -> None:
    load_text(f'[gateway]\nencoded_slashes = "keep"\n{BACKEND}{ROUTE}match.path = "/a%2fb"')


@pytest.mark.parametrize(
    ("listen", "admin", "is_taken"),
    [
        ("0.0.0.0:9090", "127.0.0.1:9090", True),
        ("127.0.0.1:9090", "0.0.0.0:9090", True),
        ("[::]:9090", "[::1]:9090", True),
        ("[::]:9090", "127.0.0.1:9090", True),
        ("0.0.0.0:9090", "[::]:9090", True),
        ("0.0.0.0:8080", "127.0.0.1:9090", False),
        ("0.0.0.0:9090", "[::1]:9090", False),
        ("0.0.0.0:9090", "unix:/run/a:9090", False),
        ("127.0.0.2:9090", "127.0.0.1:9090", False),
    ],
)
def test_an_address_for_the_whole_machine_takes_the_port(listen: str, admin: str, is_taken: bool) -> None:
    text = f'[gateway]\nlisten = ["{listen}"]\n[admin]\nlisten = "{admin}"'
    if is_taken:
        assert errors_of(text) == [
            f'4: admin.listen: "{admin}" is taken already, by gateway.listen[0] in line 2'
        ]
    else:
        load_text(text)


def test_one_table_may_list_both_families_of_the_whole_machine() -> None:
    load_text('[gateway]\nlisten = ["[::]:8080", "0.0.0.0:8080"]')


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_any_port_is_never_taken(address: str) -> None:
    load_text(f'[gateway]\nlisten = ["{address}", "{address}"]\n[admin]\nlisten = "{address}"')


def test_the_relay_tables_are_checked() -> None:
    text = '[[relay]]\nname = "db"\nlisten = "tcp://127.0.0.1:1"\nendpoints = ["x"]\nbalanc = 1'
    errors = errors_of(text)
    assert [error.split(":")[0] for error in errors] == ["4", "5"]
    assert "balance" in errors[1]


def test_everything_is_reported_at_once_in_the_order_of_the_lines() -> None:
    text = """[gateway]
worker = 1
middleware = ["x"]
[backends.b]
endpoints = ["ftp://x"]
[middleware.m]
type = "nothing"
[[routes]]
name = "r"
match.path = "/a*b"
backend = "c"
[[relay]]
"""
    lines = [int(error.partition(":")[0]) for error in errors_of(text)]
    assert lines == sorted(lines)
    assert set(lines) == {2, 3, 5, 7, 10, 11, 12}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = ", "1: is not TOML at the end of the file: expected a value; a text stands in quotes"),
        ("a = 1\nb = [\n", "3: is not TOML at the end of the file: expected a value"),
        ("a = [1,,]\n", "1: is not TOML in column 8: expected a value"),
        ("a = 1\na = 2\n", "2: is not TOML in column 6: this key or table is there already"),
        ("[a.b]\n[a.b]\n", "2: is not TOML in column 5: [a.b] is there already"),
        (
            'a = "b\nc = 1',
            "1: is not TOML in column 7: a text begins in this line and does not end; close it",
        ),
        ('a = "~^/\\d+"', r"1: is not TOML in column 11: write \\ for each \, or the text in single quotes"),
        ("a = [1\nb = 2", "2: is not TOML in column 1: expected a comma, or ] to close the list"),
        ("a = {\nb = 2 }", "1: is not TOML in column 6: expected a key; a table in { } stands in one line"),
        ("a 1", "1: is not TOML in column 3: Expected '=' after a key"),
        ("a = " + "[" * 5000, "1: is not read: "),
    ],
)
def test_what_is_not_toml(text: str, error: str) -> None:
    (found,) = errors_of(text)
    assert found.startswith(error)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"gone.toml:1: there is no such file; --config or GATEWAY_CONFIG"):
        load(tmp_path / "gone.toml")
    with pytest.raises(ConfigErrors, match=r":1: cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \n# caf\xe9\n")
    with pytest.raises(ConfigErrors, match=r"latin.toml:2: is not UTF-8"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize("text", ["", "# routes\n\n"])
def test_a_file_without_anything_is_one_that_is_being_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "routes.toml").write_text(text)
    with pytest.raises(ConfigErrors, match=r"routes.toml:1: is empty"):
        load(tmp_path / "routes.toml")


def test_references_survive_any_types() -> None:
    tables = {
        "gateway": [1],
        "routes": {"name": 1},
        "backends": 5,
        "middleware": [],
        "test": [1, {"expect": 2, "name": []}, {"name": {}}],
    }
    assert list(check_references(Source(tables=tables))) == []
