from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway_app.config.load import load_text
from gateway_app.config.model import GatewayConfig
from gateway_app.config.quantities import parse_size, size_text
from gateway_app.config.schema import file_schema
from gateway_app.middleware.registry import BUILT_IN


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return file_schema()


def wrong_places(schema: dict[str, Any], text: str) -> set[tuple[str | int, ...]]:
    """Where a file is not as the schema says."""
    return {tuple(error.path) for error in Draft202012Validator(schema).iter_errors(tomllib.loads(text))}


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)


def test_the_shipped_file_is_as_it_says(schema: dict[str, Any]) -> None:
    text = (Path(__file__).parents[3] / "routes.toml").read_text()
    assert wrong_places(schema, text) == set()


def test_the_reference_is_as_it_says_where_it_is_built(schema: dict[str, Any]) -> None:
    text = Path(__file__).with_name("reference.toml").read_text()
    not_built = {("gateway",), *(("middleware", name) for name in ("edge-cache", "squeeze", "checkout-test"))}
    assert wrong_places(schema, text) == not_built


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[gateway]\nworker = 1", ("gateway",)),
        ("[gateway]\ndrain = 5", ("gateway", "drain")),
        ('[gateway]\nmax_body = "10M"', ("gateway", "max_body")),
        ('[backends.b]\nendpoints = ["http://h"]\nbalance = "x"', ("backends", "b", "balance")),
        (
            '[backends.b]\nendpoints = ["http://h"]\nretry.attempts = 0',
            ("backends", "b", "retry", "attempts"),
        ),
        ('[middleware.m]\ntype = "rate_limit"', ("middleware", "m")),
        ('[[routes]]\nname = "r"', ("routes", 0)),
    ],
)
def test_it_knows_typical_mistakes(schema: dict[str, Any], text: str, place: tuple[str | int, ...]) -> None:
    assert wrong_places(schema, text) == {place}


def test_defaults_are_what_a_file_can_say(schema: dict[str, Any]) -> None:
    settings = {
        name: each["default"]
        for name, each in schema["$defs"]["Settings"]["properties"].items()
        if "default" in each
    }
    assert settings["drain"] == "30s"
    assert settings["max_body"] == "10MB"
    assert "via" not in settings
    text = "\n".join(f"{name} = {json.dumps(default)}" for name, default in settings.items())
    assert wrong_places(schema, f"[gateway]\n{text}") == set()
    assert load_text(f"[gateway]\n{text}").gateway == GatewayConfig().gateway
    assert '"null"' not in json.dumps(schema["$defs"])


@pytest.mark.parametrize(
    ("size", "text"), [(10_000_000, "10MB"), (65_536, "64KiB"), (1_500, "1500B"), (2**30, "1GiB")]
)
def test_sizes_are_written_in_the_largest_unit(size: int, text: str) -> None:
    assert size_text(size) == text
    assert parse_size(text) == size


def references(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {str(value["$ref"])} if "$ref" in value else set()
    return own.union(*map(references, value.values()))


def test_it_names_every_table_as_the_file_does(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == {
        field.alias or name for name, field in GatewayConfig.model_fields.items()
    }
    assert schema["additionalProperties"] is False


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    assert references(schema) <= {f"#/$defs/{name}" for name in schema["$defs"]}


def test_every_built_in_middleware_has_its_options(schema: dict[str, Any]) -> None:
    *known, custom = schema["$defs"]["MiddlewareConfig"]["oneOf"]
    assert [each["properties"]["type"]["const"] for each in known] == list(BUILT_IN)
    assert "pattern" in custom["properties"]["type"]
    rate_limit = next(each for each in known if each["title"] == "rate_limit")
    assert rate_limit["required"] == ["type", "limit"]
    assert rate_limit["additionalProperties"] is False
    assert "moving_window" in json.dumps(rate_limit["properties"]["strategy"])
    assert rate_limit["properties"]["limit"]["description"].startswith('"100/minute"')


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    undescribed = [
        f"{table}.{key}"
        for table, definition in schema["$defs"].items()
        for key, value in definition.get("properties", {}).items()
        if table.endswith(("Config", "Settings")) and "description" not in value
    ]
    assert undescribed == []


def test_an_endpoint_is_a_text_or_a_table(schema: dict[str, Any]) -> None:
    text, table = schema["$defs"]["EndpointConfig"]["anyOf"]
    assert text == {"type": "string"}
    assert set(table["properties"]) == {"url", "weight", "backup"}


def test_a_route_ends_in_one_way(schema: dict[str, Any]) -> None:
    route = schema["$defs"]["RouteConfig"]
    assert route["oneOf"] == [
        {"required": ["backend"]},
        {"required": ["redirect"]},
        {"required": ["respond"]},
    ]
    assert "to" in route["properties"]["redirect"]["properties"]
