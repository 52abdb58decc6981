"""From a middleware's `type` in `routes.toml` to its class, its options and an instance.

A middleware is any callable that takes the next ASGI application first and its options as keyword arguments:
`class Name: def __init__(self, app, *, option: type = default)`. The keyword arguments are the options, their
annotations validate the file. Checking the values is left to `config`, composing the pipeline to `snapshot`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import operator
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp

from gateway_app.middleware.context import MiddlewareContext

MiddlewareFactory = Callable[..., ASGIApp]

BUILT_IN: Final[Mapping[str, str]] = {
    "body_limit": "gateway_app.middleware.body_limit:BodyLimit",
    "header_filter": "gateway_app.middleware.header_filter:HeaderFilter",
    "headers": "gateway_app.middleware.headers:Headers",
    "ip_filter": "gateway_app.middleware.ip_filter:IPFilter",
    "rate_limit": "gateway_app.middleware.rate_limit:RateLimit",
    "redirect": "gateway_app.middleware.redirect:Redirect",
    "respond": "gateway_app.middleware.respond:Respond",
    "rewrite": "gateway_app.middleware.rewrite:Rewrite",
}
"""Short name to import path. A new middleware is one line here."""


_MERE_COLLECTIONS: Final = (Collection, Container, Iterable)


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""The default of an option that has none."""


_NOT_THE_USERS: Final = (os.path.dirname(os.path.dirname(__file__)) + os.sep, importlib.__file__)

_imported: Final[dict[str, object]] = {}
"""The users' modules, and what tells the file that was imported from a later one of that name."""


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword argument: what it accepts, and what it is if left out (`REQUIRED`: it must be given)."""

    annotation: Any
    default: object


@dataclass(frozen=True, slots=True)
class Signature:
    """What a middleware's constructor takes besides the application.

    Attributes:
        options: the options by name, in the constructor's order. Without annotation, any value is accepted.
        context_parameter: the name of the parameter that wants a `MiddlewareContext`, None if none does.
        accepts_any: whether unknown options go to a `**options` parameter.

    """

    options: Mapping[str, Option]
    context_parameter: str | None
    accepts_any: bool


def resolve(type_name: str) -> MiddlewareFactory:
    """Return the class that `type_name`, a built-in's name or "package.module:Class", stands for.

    Raises:
        ValueError: there is none, or its module cannot be imported; the message says what would be accepted.

    """
    path = BUILT_IN.get(type_name, type_name)
    module_name, separator, attribute = path.partition(":")
    if not separator:
        raise ValueError(
            f"{type_name!r} is no middleware{_hint(type_name)}; built in are "
            f'{", ".join(BUILT_IN)}; your own is written "package.module:Class"'
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise ValueError(f"{type_name!r}: {module_name} cannot be imported: {told(error)}") from error
        raise ValueError(
            f"{type_name!r}: there is no module {module_name}: not in the working directory, not beside the "
            "file, and none is installed"
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may fail in any way while it is imported
        raise ValueError(f"{type_name!r}: {module_name} cannot be imported: {told(error)}") from error
    if type_name not in BUILT_IN:
        _imported.setdefault(module_name, _version_of(module_name))
    factory = getattr(module, attribute, None)
    if not callable(factory):
        hint = _nearest(attribute, vars(module))
        raise ValueError(f"{type_name!r}: {module_name} has no class {attribute}{hint}")
    return typing.cast(MiddlewareFactory, factory)


def changed_modules() -> list[str]:
    """Return the names of the users' modules whose files have changed since they were imported."""
    return [name for name, version in _imported.items() if _version_of(name) != version]


def told(error: BaseException) -> str:
    """Return what went wrong in a user's module, and in which line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # has the file's name and the line
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.isfile(frame.filename) and not frame.filename.startswith(_NOT_THE_USERS):
            return f"{error!r} in {os.path.relpath(frame.filename)}:{frame.lineno}"
    return repr(error)


def signature_of(factory: MiddlewareFactory) -> Signature:
    """Return the options of a middleware, from its constructor's parameters.

    Raises:
        ValueError: the constructor takes no application.

    """
    parameters = list(inspect.signature(factory).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    ):
        raise ValueError(f"{factory!r} is no middleware: its first argument must be the next application")
    module_names = _module_names(factory)
    options: dict[str, Option] = {}
    context_parameter = None
    accepts_any = False
    for parameter in parameters[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            accepts_any = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            annotation = _annotation(parameter, module_names)
            if annotation is MiddlewareContext:
                context_parameter = parameter.name
            else:
                default = REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
                options[parameter.name] = Option(annotation, default)
    return Signature(types.MappingProxyType(options), context_parameter, accepts_any)


def build(
    factory: MiddlewareFactory, app: ASGIApp, options: Mapping[str, Any], context: MiddlewareContext
) -> ASGIApp:
    """Return the middleware around `app`, with the context passed if it asks for one.

    Raises:
        ValueError: an option's value is none that the middleware can work with.

    """
    context_parameter = signature_of(factory).context_parameter
    if context_parameter is None:
        return factory(app, **options)
    return factory(app, **options, **{context_parameter: context})


def _annotation(parameter: inspect.Parameter, module_names: dict[str, Any]) -> Any:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return Any
    if annotation == MiddlewareContext.__name__:  # as text, imported for the type checker only
        return MiddlewareContext
    carrier = types.SimpleNamespace(__annotations__={parameter.name: annotation})
    try:
        hints = typing.get_type_hints(carrier, globalns=module_names, include_extras=True)
    except NameError:  # a name that is imported for the type checker only tells us nothing
        return Any
    return _from_file(hints[parameter.name])


def _from_file(annotation: Any) -> Any:
    """Return what a list of the file is checked against, where the class says more generally what it takes.

    pydantic knows no `Collection` in JSON, and makes an `Iterable` that can be read only once.
    """
    origin = typing.get_origin(annotation)
    members = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, [_from_file(member) for member in members])
    if annotation in _MERE_COLLECTIONS:
        return Sequence[Any]
    return types.GenericAlias(Sequence, members) if origin in _MERE_COLLECTIONS else annotation


def _module_names(factory: MiddlewareFactory) -> dict[str, Any]:
    function = factory.__init__ if inspect.isclass(factory) else factory
    names = getattr(inspect.unwrap(function), "__globals__", None)
    return {} if names is None else names


def _version_of(module_name: str) -> object:
    try:
        status = os.stat(getattr(sys.modules.get(module_name), "__file__", None) or "")
    except OSError:  # deleted, or never a file
        return None
    return (status.st_mtime_ns, status.st_size)


def _hint(type_name: str) -> str:
    module_name, _, name = type_name.rpartition(".")
    is_class = module_name and name[:1].isupper()
    return f"; did you mean '{module_name}:{name}'?" if is_class else _nearest(type_name, BUILT_IN)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
