"""The JSON Schema of `routes.toml`, with which editors complete and check it.

It comes from the model and from the constructors of the built-in middlewares, so it says what the gateway
does. What only the gateway can check (names that must be defined, conditions that compile) is left to it.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

from gateway_app.config.model import GatewayConfig
from gateway_app.config.options import ANSWERS, options_model
from gateway_app.config.quantities import SIZE_PATTERN, duration_text, size_text
from gateway_app.middleware.registry import BUILT_IN, resolve, signature_of

Schema = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OPTION: Final = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def file_schema() -> Schema:
    """Return the schema of a whole file."""
    schema = GatewayConfig.model_json_schema(by_alias=True)
    tables: dict[str, Schema] = schema["$defs"]
    options = {name: _options_schema(name, tables) for name in BUILT_IN}
    tables["EndpointConfig"] = {"anyOf": [{"type": "string"}, tables["EndpointConfig"]]}
    tables["MiddlewareConfig"] = _middleware_schema(options)
    route = tables["RouteConfig"]
    for name in ANSWERS:
        route["properties"][name] = options[name]
    route["oneOf"] = [{"required": [name]} for name in ("backend", *ANSWERS)]
    schema["properties"]["l4relay"] = {"type": "object"}
    written: Schema = _as_written(_without(schema, "title"))
    return {"$schema": _DIALECT, "title": "routes.toml of l47-gateway", **written}


def _middleware_schema(options: dict[str, Schema]) -> Schema:
    """Return the schema of a middleware's table: one for each built-in type, and one for all others."""
    known = []
    for name, schema in options.items():
        properties = {"type": {"const": name}, **schema.get("properties", {})}
        required = ["type", *schema.get("required", ())]
        known.append({**schema, "title": name, "properties": properties, "required": required})
    custom: Schema = {
        "title": "package.module:Class",
        "type": "object",
        "properties": {"type": {"type": "string", "pattern": "^[^:]+:[^:]+$"}},
        "required": ["type"],
    }
    return {"oneOf": [*known, custom]}


def _options_schema(type_name: str, tables: dict[str, Schema]) -> Schema:
    """Return the schema of a built-in middleware's options; what it refers to is added to `tables`."""
    factory = resolve(type_name)
    schema = options_model(signature_of(factory)).model_json_schema(by_alias=True)
    tables.update(schema.pop("$defs", {}))
    documentation = inspect.getdoc(factory) or ""
    described = dict(_OPTION.findall(documentation))
    for name, option in schema.get("properties", {}).items():
        option.pop("title", None)
        if name in described:
            option["description"] = " ".join(described[name].split())
    return {"description": documentation.partition("\n")[0], **_without(schema, "title")}


def _as_written(schema: Any) -> Any:
    """Return `schema` with what a TOML file can say: no null, and defaults that an editor could insert."""
    if isinstance(schema, list):
        return [_as_written(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {**kinds[0], **_without(schema, "anyOf")}
    elif kinds:
        schema = {**schema, "anyOf": kinds}
    if "default" in schema and not isinstance(schema["default"], dict):
        schema = {**schema, "default": _default(schema)}
    if schema.get("default") is None or isinstance(schema["default"], dict):
        schema = _without(schema, "default")
    return {
        key: {name: _as_written(each) for name, each in value.items()}
        if key in ("$defs", "properties")
        else _as_written(value)
        for key, value in schema.items()
    }


def _default(schema: Schema) -> Any:
    default = schema["default"]
    is_quantity = schema.get("type") == "string" and isinstance(default, int | float)
    if not is_quantity:
        return default
    return size_text(default) if schema["pattern"] == SIZE_PATTERN else duration_text(default)


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}
