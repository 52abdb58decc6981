from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_app.config.model import GatewayConfig
from gateway_app.config.schema import file_schema
from gateway_app.middleware.registry import BUILT_IN


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return file_schema()


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
