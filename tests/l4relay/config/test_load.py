"""The file: what is read from it, and what is said about mistakes."""

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4relay.addresses import InetAddress
from l4relay.config.load import ConfigError, parse
from l4relay.config.model import EndpointConfig, RelayConfig
from l4relay.config.quantities import Rate, parse_rate
from l4relay.config.values import Mistakes, duration, table

GOOD = """
[gateway]
trusted_proxies = ["10.0.0.0/8"]
[l4relay]
workers = 2
admin = "127.0.0.1:9091"
drain = "5s"
log = "off"
[[relay]]
name = "postgres"
listen = ["tcp://127.0.0.1:15432", "unix:/run/pg.sock"]
endpoints = ["127.0.0.1:5432", { address = "db.internal:5433", weight = 2, backup = true }]
balance = "least_connections"
max_rate_per_source = "50/second"
accept_proxy_protocol = true
sni = { "*.Example.com" = ["127.0.0.1:9444"] }
health = { interval = "1s", send = "PING\\r\\n\\u00ff" }
[relay.outlier]
max_ejected = 1
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "routes.toml")
    return str(caught.value).splitlines()


def relay(*lines: str) -> str:
    return "\n".join(["[[relay]]", 'name = "a"', 'listen = "127.0.0.1:1"', 'endpoints = ["b:1"]', *lines])


def test_every_key_is_read() -> None:
    config = parse(GOOD, "routes.toml")
    [read] = config.relays
    assert (config.process.workers, config.process.drain, config.process.log) == (2, 5.0, "off")
    assert read.endpoints[1] == EndpointConfig(InetAddress("db.internal", 5433), weight=2, backup=True)
    assert read.max_rate_per_source == Rate(50, 1.0)
    assert read.trusted_proxies == ("10.0.0.0/8",)  # the gateway's, where the relay has none of its own
    assert read.sni[0][0] == "*.example.com"
    assert read.health is not None
    assert read.health.send == b"PING\r\n\xff"
    assert read.outlier.max_ejected == 1.0


def test_unix_sockets_that_the_gateway_trusts_are_no_network() -> None:
    [read] = parse(GOOD.replace('["10.0.0.0/8"]', '["unix:", "10.0.0.0/8"]'), "routes.toml").relays
    assert read.trusted_proxies == ("10.0.0.0/8",)


def test_all_mistakes_are_said_at_once_in_the_file_s_order() -> None:
    mistakes = ("idle_timeout = 5", 'health = { interval = "soon" }', 'balance = "fair"', "weigth = 1")
    found = problems(relay(*mistakes))
    duration = 'expected a duration with its unit, such as "250ms", "5s", "2m" or "1h"'
    policies = "'round_robin' or 'least_connections' or 'source_hash' or 'random'"
    assert found[:3] == [
        f"routes.toml:5: relay[0].idle_timeout: {duration}, not 5",
        f"routes.toml:6: relay[0].health.interval: {duration}, not 'soon'",
        f"routes.toml:7: relay[0].balance: expected {policies}, not 'fair'",
    ]
    assert found[3].startswith("routes.toml:8: relay[0].weigth: is no known key; known are accept_proxy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "routes.toml:1: relay: expected at least one [[relay]] table"),
        ("x = ", "routes.toml: not valid TOML"),
        ("x = 1" + 5000 * "0", "routes.toml: not valid TOML"),
        ("x = " + 5000 * "[", "routes.toml: not valid TOML"),
        ('[[relay]]\nname = "a"', "routes.toml:1: relay[0].endpoints: is missing"),
        (relay('conect_timeout = "1s"'), 'did you mean "connect_timeout"?'),
        (relay("max_sessions = 5"), "max_sessions: has no meaning for a TCP relay"),
        (relay().replace("127", "udp://127") + '\nproxy_protocol = "v2"', "no meaning for a UDP relay"),
        (relay("accept_proxy_protocol = true"), "needs trusted_proxies"),
        (relay('allow = ["10.0.0.1/8"]'), "did you mean '10.0.0.0/8'?"),
        (relay() + "\n" + relay(), "'a' is relay 1's name already"),
        (relay() + "\n" + relay().replace('"a"', '"c"'), "is taken by relay 'a'"),
        (relay().replace('"b:1"', '"b:1", "b:1"'), "is listed twice"),
        (relay().replace('["b:1"]', "[]"), 'expected a list such as ["127.0.0.1:5432"]'),
        (relay().replace('"b:1"', "5"), "relay[0].endpoints[0]: expected an address or a table, not 5"),
        ("l4relay = 'x'\n" + relay(), "routes.toml:1: l4relay: expected a table, not 'x'"),
        ("[l4relays]\nworkers = 2\n" + relay(), 'l4relays: is no known table; did you mean "l4relay"?'),
        (relay() + "\n[[Relay]]", 'routes.toml:5: Relay: is no known table; did you mean "relay"?'),
        (relay().replace('"127.0.0.1:1"', '["127.0.0.1:1", "127.0.0.1:1"]'), "is taken by relay 'a'"),
        (relay().replace('"127.0.0.1:1"', '["127.0.0.1:0", "127.0.0.1:0"]'), "is taken by relay 'a'"),
        (relay('sni = { "a b" = ["c:1"] }'), "expected a host name"),
        (relay('sni = { "A.b" = ["c:1"], "a.b" = ["d:1"] }'), 'is the same name as "A.b"'),
        (relay("health = 5"), "relay[0].health: expected a table, not 5"),
        (relay('sni = { "a.*.b" = ["c:1"] }'), "expected a host name"),
        ("[l4relay]\nadmin = '0.0.0.0:1'\n" + relay(), "expected a loopback address"),
        ("[l4relay]\nworkers = 0\n" + relay(), "expected a whole number from 1 to 256, not 0"),
    ],
)
def test_a_mistake_is_said_with_its_remedy(text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(text)), problems(text)


def test_relays_are_told_apart_whatever_else_is_wrong_with_them() -> None:
    found = problems(relay("splice = 5") + "\n" + relay("responses = 1"))
    assert [problem.split(": ")[1] for problem in found] == [
        "relay[0].splice",
        "relay[1].name",
        "relay[1].listen",
        "relay[1].responses",
    ]


def test_mistakes_in_lists_and_tables_are_said_at_once_each_at_its_place() -> None:
    sni = 'sni = { "a b" = [7], "c.d" = ["e:1", { address = "f", weight = -1 }, "e:1"] }'
    assert [problem.split(": ")[1] for problem in problems(relay(sni))] == [
        'relay[0].sni."a b"',
        'relay[0].sni."a b"[0]',
        'relay[0].sni."c.d"[1].address',
        'relay[0].sni."c.d"[1].weight',
        'relay[0].sni."c.d"[2]',
    ]


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
anything = st.recursive(
    scalars | st.sampled_from(["a:1", "unix:/a", "udp://[::]:0", "5s", "v2", "1/hour"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([field.name for field in fields(RelayConfig)]), anything)
def test_any_value_is_converted_or_a_mistake(key: str, value: object) -> None:
    with contextlib.suppress(Mistakes):
        table(RelayConfig)({"name": "a", "listen": "a:1", "endpoints": ["b:1"], key: value})


def test_what_is_not_a_table_at_all_is_one_mistake() -> None:
    assert problems("relay = [1]") == ["routes.toml:1: relay[0]: expected a table, not 1"]


def test_other_tables_are_the_gateway_s() -> None:
    assert parse("[backends.a]\nanything = 1\n" + relay(), "routes.toml").relays[0].name == "a"


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("1.5m", 90), ("1h", 3600)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "s", "0s", "-1s", 5, None, "5  s", "\u0665s"])
def test_what_is_no_duration_or_rate(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        duration(text)
    with pytest.raises(ValueError, match="expected"):
        parse_rate(text)


def test_the_reference_file_is_valid() -> None:
    shipped = Path(__file__).parents[3] / "routes.toml"
    assert parse(shipped.read_text(), "routes.toml").relays
