"""What a middleware may know about its place in the configuration, and what it keeps between requests.

A middleware whose constructor has a keyword parameter annotated `MiddlewareContext` is given one; it is no
option of `routes.toml`. The compiler of a snapshot makes the contexts from one `SharedObjects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _Slot:
    """The object of one named middleware, made when it is first asked for."""

    __slots__ = ("fingerprint", "is_filled", "value")

    def __init__(self, fingerprint: object) -> None:
        self.fingerprint = fingerprint
        self.is_filled = False
        self.value: object = None


class MiddlewareContext:
    """Where a middleware stands, and its state that outlives a request.

    Attributes:
        name: the middleware's name in `routes.toml`.
        route: the name of the route whose pipeline this is.
        params: the names that the route's path captures; None if that is not known.

    """

    __slots__ = ("_slot", "name", "params", "route")

    def __init__(self, name: str, route: str, params: frozenset[str] | None, slot: _Slot) -> None:
        self.name = name
        self.route = route
        self.params = params
        self._slot = slot

    def shared(self, factory: Callable[[], T]) -> T:
        """Return the one object that belongs to this middleware's name; `factory` makes it the first time.

        All routes that use the middleware get the same object, and it stays over a reload as long as the
        middleware's type and options stay as they are. A name has one such object, whatever the factory.
        """
        slot = self._slot
        if not slot.is_filled:
            slot.value = factory()
            slot.is_filled = True
        return cast(T, slot.value)


class SharedObjects:
    """The state of all named middlewares of one snapshot.

    A new snapshot is compiled with `SharedObjects(previous)`: what did not change is taken over. `previous`
    is not altered, so a snapshot that turns out to be broken is simply dropped.
    """

    __slots__ = ("_previous", "_slots")

    def __init__(self, previous: SharedObjects | None = None) -> None:
        self._previous = {} if previous is None else previous._slots
        self._slots: dict[str, _Slot] = {}

    def context(
        self,
        name: str,
        route: str,
        type_name: str,
        options: Mapping[str, Any],
        params: frozenset[str] | None = None,
    ) -> MiddlewareContext:
        """Return the context for the middleware `name`, with this type and these options, on `route`."""
        slot = self._slots.get(name)
        if slot is None:
            fingerprint = (type_name, dict(options))
            slot = self._previous.get(name)
            if slot is None or slot.fingerprint != fingerprint:
                slot = _Slot(fingerprint)
            self._slots[name] = slot
        return MiddlewareContext(name, route, params, slot)
