"""What a request asks for, in its normal form, and the rules that may hold for it.

Popular hosts and paths come back: what is worked out for them is remembered, and costs one look-up the next
time. A flood of new paths empties the memory each 1024 requests, and costs those a tenth more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from gateway_app.routing.target import USUAL_METHODS

if TYPE_CHECKING:
    from gateway_app.routing.host import HostReader
    from gateway_app.routing.match import Matched, Rule
    from gateway_app.routing.table import RouteTable
    from gateway_app.routing.target import Target, TargetReader

T = TypeVar("T")


class Resource(NamedTuple, Generic[T]):
    """A host and a target.

    Attributes:
        host: the host's normal form.
        target: the target's.
        rules: those that may hold, in precedence order; None if they are too many to be remembered.
        certain: what is matched whatever else the request holds; None if that is not known yet.

    """

    host: str
    target: Target
    rules: tuple[Rule[T], ...] | None
    certain: Matched[T] | None


class ResourceReader(Generic[T]):
    """Reads hosts and targets for one route table."""

    __slots__ = ("_hosts", "_seen", "_table", "_targets")

    MAX_REMEMBERED: Final = 1024
    MAX_REMEMBERED_BYTES: Final = 256
    """Longer targets are not remembered, so that the memory stays under about a megabyte."""
    MAX_RULES: Final = 16

    def __init__(self, targets: TargetReader, hosts: HostReader, table: RouteTable[T]) -> None:
        self._targets = targets
        self._hosts = hosts
        self._table = table
        self._seen: dict[tuple[bytes, bytes], Resource[T]] = {}

    def read(self, method: str, host: bytes, raw_path: bytes, query: bytes) -> Resource[T]:
        """Return what a request with this Host field and target asks for.

        Raises:
            GatewayError: the target or the host is malformed.

        """
        if query or method not in USUAL_METHODS:
            self._targets.check(method, raw_path, query)
        resource = self._seen.get((host, raw_path))
        if resource is None:
            target = self._targets.read(method, raw_path, query)
            name = self._hosts.read(host if target.authority is None else target.authority)
            rules = self._table.candidates(name, target.path, self.MAX_RULES)
            certain = rules[0].matched if rules and rules[0].is_unconditional else None
            resource = Resource(name, target, rules, certain)
            if raw_path.startswith(b"/") and len(raw_path) <= self.MAX_REMEMBERED_BYTES:
                if len(self._seen) >= self.MAX_REMEMBERED:
                    self._seen.clear()
                self._seen[host, raw_path] = resource
        return resource
