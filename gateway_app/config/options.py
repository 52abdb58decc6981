"""The options of middlewares: checked against the keyword arguments of their classes, then tried out.

A class is also constructed once for every place where it is used, around an application that is never called,
so that what only a constructor can find wrong (a pattern, a template's place) is reported with its line too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)

from gateway_app.config.errors import ConfigError
from gateway_app.config.routes import captured_names
from gateway_app.config.tables import as_json, named_tables, table_of, tables_in, texts_in
from gateway_app.config.translate import translated
from gateway_app.middleware.context import SharedObjects
from gateway_app.middleware.registry import (
    BUILT_IN,
    REQUIRED,
    MiddlewareFactory,
    Signature,
    build,
    resolve,
    signature_of,
    told,
)
from l4relay.config.toml_lines import KeyPath, key_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from gateway_app.config.source import Source

NOT_YET: Final = frozenset({"cache", "compress", "split"})
"""Middleware types of the agreed format that this version does not build yet."""

ANSWERS: Final = ("redirect", "respond")
"""Middlewares that a route can name in place of a backend; their options are the key's value."""

_MODEL_CONFIG: Final = ConfigDict(strict=True, arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class Use:
    """A place where a middleware is named: the route it belongs to and what the route's path captures."""

    at: KeyPath
    route: str
    params: frozenset[str] | None


@dataclass(slots=True)
class CheckedOptions:
    """What checking gave: the errors, and the options of each table that has none, in their Python types."""

    errors: list[ConfigError] = field(default_factory=list)
    by_path: dict[KeyPath, Mapping[str, Any]] = field(default_factory=dict)


def check_options(source: Source) -> CheckedOptions:
    """Check all tables that hold a middleware's options; what is no table is left to the model."""
    checker = _OptionChecker(source)
    uses = _uses_by_name(source)
    for name, raw in named_tables(source.tables.get("middleware")):
        type_name = raw.get("type")
        if isinstance(type_name, str):
            options = {key: value for key, value in raw.items() if key != "type"}
            checker.check(("middleware", name), type_name, options, uses.get(name, ()))
    for place, route in tables_in(source.tables.get("routes")):
        for type_name in ANSWERS:
            at: KeyPath = ("routes", place, type_name)
            if isinstance(route.get(type_name), dict):
                checker.check(at, type_name, route[type_name], [_use(at, route)])
    return checker.result


def _uses_by_name(source: Source) -> Mapping[str, Sequence[Use]]:
    """Return by a middleware's name where it is used: on every route, and on those that name it."""
    uses: defaultdict[str, list[Use]] = defaultdict(list)
    for _, name in texts_in(table_of(source.tables.get("gateway")).get("middleware")):
        uses[name].append(Use(("middleware", name), "", None))
    for place, route in tables_in(source.tables.get("routes")):
        for index, name in texts_in(route.get("middleware")):
            uses[name].append(_use(("routes", place, "middleware", index), route))
    return uses


def _use(at: KeyPath, route: Mapping[str, Any]) -> Use:
    path = table_of(route.get("match")).get("path")
    try:
        params = captured_names(path)
    except (TypeError, ValueError):  # reported by the check of routes
        params = None
    return Use(at, str(route.get("name")), params)


class _OptionChecker:
    """Checks the tables of one file; `result` gathers what it found."""

    def __init__(self, source: Source) -> None:
        self.result = CheckedOptions()
        self._source = source
        self._shared = SharedObjects()

    def check(self, at: KeyPath, type_name: str, raw: Mapping[str, Any], uses: Sequence[Use]) -> None:
        """Check the options `raw` of the table at `at` for the type, and each place that uses them."""
        if type_name in NOT_YET - BUILT_IN.keys():
            self._add((*at, "type"), f'"{type_name}" is not supported yet')
            return
        try:
            factory = resolve(type_name)
            signature = signature_of(factory)
        except ValueError as error:
            self._add((*at, "type"), str(error))
            return
        try:
            options = _validated(signature, raw, self._source.base_dir)
        except ValidationError as error:
            self.result.errors.extend(translated(error, self._source, options_model(signature), at))
            return
        if self._is_constructed(at, type_name, factory, options, uses):
            self.result.by_path[at] = options

    def _is_constructed(
        self,
        at: KeyPath,
        type_name: str,
        factory: MiddlewareFactory,
        options: Mapping[str, Any],
        uses: Sequence[Use],
    ) -> bool:
        """Construct the middleware as it stands, then for every use; return whether all went well."""
        for use in (Use(at, "", None), *uses):
            context = self._shared.context(key_text(at), use.route, type_name, options, use.params)
            try:
                instance = build(factory, _never_called, options, context)
            except ValueError as error:
                place, message = _place_of(str(error), options) if use.at == at else ((), str(error))
                self._add((*use.at, *place), message)
                return False
            except (Exception, SystemExit) as error:  # a user's class may fail in any way
                self._add(use.at, f"{type_name} cannot be made: {told(error)}")
                return False
            if not callable(instance):
                self._add(
                    (*at, "type"), f"{type_name} lacks `async def __call__(self, scope, receive, send)`"
                )
                return False
        return True

    def _add(self, at: KeyPath, message: str) -> None:
        self.result.errors.append(self._source.error(at, message))


def _place_of(message: str, options: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """Return the option, or the key in it, that `message` begins with, and what it says of it."""
    names, separator, problem = message.partition(": ")
    option, _, key = names.partition(", ")[0].partition(".")
    if not separator or option not in options:
        return (), message
    inside = options[option]
    return ((option, key) if isinstance(inside, Mapping) and key in inside else (option,)), problem


def options_model(signature: Signature) -> type[BaseModel]:
    """Return a model whose keys are the options, with their annotations and defaults."""
    try:
        return _model(signature, {name: option.annotation for name, option in signature.options.items()})
    except PydanticUserError:  # an annotation that says nothing to pydantic: its option accepts any value
        annotations = {name: _usable(option.annotation) for name, option in signature.options.items()}
        return _model(signature, annotations)


def _model(signature: Signature, annotations: Mapping[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for place, (name, option) in enumerate(signature.options.items()):
        default: Any = ... if option.default is REQUIRED else option.default
        # The option's name is an alias, so that it may be "json", "copy" or another attribute of a model.
        fields[f"option_{place}"] = (annotations[name], Field(default, alias=name))
    extra: Any = "allow" if signature.accepts_any else "forbid"
    return create_model("Options", __config__=ConfigDict(**_MODEL_CONFIG, extra=extra), **fields)


def _usable(annotation: Any) -> Any:
    try:
        TypeAdapter(annotation, config=_MODEL_CONFIG)
    except PydanticUserError:
        return Any
    return annotation


def _validated(signature: Signature, raw: Mapping[str, Any], base_dir: Path) -> dict[str, Any]:
    """Return the given options in the types that the class asks for; left out ones stay left out.

    A `FilePath` is relative to `base_dir`.

    Raises:
        ValidationError: they are not what the annotations say.

    """
    model = options_model(signature).model_validate_json(as_json(raw), context={"base_dir": base_dir})
    options = dict(model.model_extra or {})
    for place, name in enumerate(signature.options):
        if name in raw:
            options[name] = getattr(model, f"option_{place}")
    return options


async def _never_called(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a middleware called the next application while it was constructed")
