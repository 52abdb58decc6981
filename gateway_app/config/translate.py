"""From pydantic's errors to the user's: the key's line, what was expected, the nearest known name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gateway_app.config.errors import closest, listed, nearest, shown
from l4relay.config.toml_lines import key_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from gateway_app.config.errors import ConfigError, KeyPath
    from gateway_app.config.source import Source

_EXPECTED: Final = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "iterable_type": "a list",
    "list_type": "a list",
    "mapping_type": "a table",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "none_required": "nothing",
    "set_type": "a list",
    "string_type": "a text in quotes",
    "tuple_type": "a list",
}
_MOST_KEYS: Final = 6
"""A larger table is no value that somebody wrote in short."""

_EXPECTED_WITH_BOUND: Final = {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_short": "a text of at least {min_length} character(s)",
    "too_short": "at least {min_length} element(s)",
}


def translated(
    error: ValidationError, source: Source, model: type[BaseModel], at: KeyPath = ()
) -> Iterator[ConfigError]:
    """Yield an error with its line for each value of the table at `at` that `model` does not accept."""
    by_path: defaultdict[KeyPath, list[str]] = defaultdict(list)
    found: dict[KeyPath, object] = {}
    for detail in error.errors(include_url=False):
        path, value = _path_in_file(source.tables, at, detail)
        if detail["type"] == "too_short" and value:
            continue  # elements are there, but wrong: each has its own error
        message = _problem(detail, model)
        if message:
            by_path[path] = [message]
        elif not by_path[path] or path in found:  # several: the members of a union, each of which would do
            found[path] = value
            by_path[path].append(_expected(detail, model))
    for path, messages in by_path.items():
        text = " or ".join(dict.fromkeys(messages)).replace(" or expected ", " or ")
        if path in found:
            text = _with_found(text, found[path]) + _remedy(text, path, found[path])
        yield source.error(path, text)


def _path_in_file(tables: Mapping[str, Any], at: KeyPath, detail: ErrorDetails) -> tuple[KeyPath, object]:
    """Return the path as the file has it, and the value there.

    A location of pydantic's also names union members and fields that a shorter form leaves out.
    """
    path: KeyPath = ()
    value: Any = tables
    location = (*at, *detail["loc"])
    for step in location:
        is_key = isinstance(value, dict) and step in value
        if is_key or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            path, value = (*path, step), value[step]
    if detail["type"] == "missing":
        path = (*path, location[-1])
    return path, value


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Return what is wrong with a key; "" if it is the value that is wrong."""
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] != "extra_forbidden":
        return ""
    *around, key = detail["loc"]
    table = _table_at(model, tuple(around))
    if key in getattr(table, "not_yet", ()):
        return "is not supported yet"
    known = _keys_of(table)
    for inner in known:  # such as a route's `path`, which stands in its `match`
        if key in _keys_of(_table_at(model, (*around, inner))):
            return (
                f"unknown key; write {inner} = {{ {key} = … }}"
                if around
                else f"unknown key; write it below [{inner}]"
            )
    return f"unknown key{nearest(key, known)}"


def _expected(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
        return f"expected {context['expected']}{closest(detail['input'], names)}".replace("'", '"')
    if kind in _EXPECTED_WITH_BOUND:
        return f"expected {_EXPECTED_WITH_BOUND[kind].format_map(context)}"
    keys = _keys_of(_table_at(model, detail["loc"])) if kind == "model_type" else []
    if 0 < len(keys) <= _MOST_KEYS and not isinstance(
        detail["input"], list
    ):  # for a list it is the brackets that are wrong
        return f"expected a table with {listed(sorted(keys))}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    return detail["msg"]


def _with_found(text: str, value: object) -> str:
    """Return `text` with the value that was found, unless it says it already, before the remedy."""
    if isinstance(value, str) and (shown(value) in text or repr(value) in text):
        return text
    expected, remedy, name = text.partition("; ")
    return f"{expected}, found {shown(value)}{remedy}{name}"


def _remedy(expected: str, path: KeyPath, value: object) -> str:
    """Return how the value would be written where its kind is wrong in one of the usual ways."""
    if expected == "expected a list" and isinstance(value, str):
        return f"; write [{shown(value)}]"
    if expected == "expected a list" and isinstance(value, dict) and len(path) == 1:
        return f"; write [[{path[0]}]]"
    if expected == "expected a table" and isinstance(value, list) and value and isinstance(value[0], dict):
        return f"; write [{key_text(path)}]"
    if expected == "expected a text in quotes" and isinstance(value, list) and path[-2:-1] == ("match",):
        return "; write a route for each"
    if expected == "expected a text in quotes" and isinstance(value, dict) and path[-2:-1] == ("middleware",):
        return "; write a [middleware.NAME] table, and its name here"
    return ""


def _keys_of(table: type[BaseModel] | None) -> list[str]:
    if table is None:
        return []
    return [field.alias or name for name, field in table.model_fields.items()]


def _table_at(model: type[BaseModel], location: KeyPath) -> type[BaseModel] | None:
    """Return the class of the table at `location`, None where it is not one."""
    annotation: object = model
    for step in location:
        annotation = _annotation_inside(annotation, step)
    return _as_table(annotation)


def _as_table(annotation: object) -> type[BaseModel] | None:
    annotation = _bare(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _bare(annotation: object) -> object:
    """Return `annotation` without `Annotated` and without the None of an optional value."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    members = [member for member in get_args(annotation) if member is not NoneType]
    if NoneType in get_args(annotation) and len(members) == 1:
        return _bare(members[0])
    return annotation


def _annotation_inside(annotation: object, step: str | int) -> object:
    table = _as_table(annotation)
    if table is not None:
        fields = table.model_fields.items()
        return next((field.annotation for name, field in fields if step in (name, field.alias)), None)
    arguments = get_args(_bare(annotation))
    if not arguments:
        return None
    return arguments[1] if isinstance(step, str) and len(arguments) > 1 else arguments[0]
