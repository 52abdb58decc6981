"""A relay's endpoints: who there is, who is well, and who is next.

An `Endpoint` is one address to connect to, with its health and its counters; it outlives reloads. A `Group`
is what one `endpoints` list stands for at the moment: names resolved, weights applied, the ill left out.

    down       taken out by health checks, until they succeed again
    ejected    taken out by failures of live connections, for a while
"""

import asyncio
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from l4relay.addresses import Address, InetAddress, UnixAddress, ip_bytes
from l4relay.balance import POLICIES, Policy, eligible
from l4relay.config.model import EndpointConfig, RelayConfig

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str

_SLOW_START_STEPS: Final = 20
_FIRST_SHARE: Final = 0.1
"""What an endpoint that comes back has of its weight at first."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Endpoint:
    """One address that connections or sessions go to.

    Attributes:
        key: Its address in words, the same across reloads and processes.
        weight: Its share now, slow start included.
        active: Connections or sessions on it.
        is_up: What health checks say.
        ejected_until: Monotonic time; 0 when it is not ejected.
        total: Connections ever.
        failures: Failed connections ever.

    """

    key: str
    family: socket.AddressFamily
    address: SocketAddress
    backup: bool = False
    full_weight: int = 1
    weight: float = 1.0
    active: int = 0
    is_up: bool = True
    ejected_until: float = 0.0
    back_since: float | None = None
    failures_in_row: int = 0
    total: int = 0
    failures: int = 0
    checks_in_row: int = 0

    @property
    def is_usable(self) -> bool:
        """Whether it is neither down nor ejected."""
        return self.is_up and not self.ejected_until

    @property
    def state(self) -> str:
        """``up``, ``down`` or ``ejected``."""
        if not self.is_up:
            return "down"
        return "ejected" if self.ejected_until else "up"


Registry = WeakValueDictionary[tuple[str, str], Endpoint]
"""Every endpoint by its list and address, so that a reload finds the ones that it had, with their health.

One that no group and no connection has any more is forgotten by itself.
"""


class Group:
    """The endpoints of one list, and the choice between them.

    Args:
        name: The list's name: the relay's, with the server name's pattern if there is one.
        configs: The list as the file has it.
        relay: How the relay chooses, ejects and brings back.
        registry: Where endpoints are found and kept.
        on_change: Called when an endpoint's state changes.

    Attributes:
        endpoints: All of them now.
        names: The entries whose host is a name, for a resolver.
        resolved: Set when every name has been asked for once, with or without success.

    """

    def __init__(
        self,
        name: str,
        configs: tuple[EndpointConfig, ...],
        relay: RelayConfig,
        registry: Registry,
        on_change: Callable[[Endpoint], None],
    ) -> None:
        self._name = name
        self._configs = configs
        self._registry = registry
        self._slow_start = relay.slow_start
        self._outlier = relay.outlier
        self._on_change = on_change
        self._policy: Policy[Endpoint] = POLICIES[relay.balance](random.Random())  # noqa: S311 - no secret
        self._resolved: dict[EndpointConfig, list[Endpoint]] = {}
        self._candidates: tuple[Endpoint, ...] = ()
        self._usable: list[bool] = []
        self._next_step = 0.0
        self.endpoints: tuple[Endpoint, ...] = ()
        self.names: list[tuple[EndpointConfig, InetAddress]] = []
        self.resolved = asyncio.Event()
        for config in configs:
            if isinstance(config.address, InetAddress) and ip_bytes(config.address.host) is None:
                self.names.append((config, config.address))
            else:
                self.set_addresses(config, [config.address])

    def set_addresses(self, config: EndpointConfig, addresses: Iterable[Address]) -> None:
        """Say what an entry stands for now; what it no longer stands for gets nothing new."""
        found = []
        for address in addresses:
            key = self._name, str(address)
            endpoint = self._registry.get(key)
            if endpoint is None:
                endpoint = self._registry[key] = Endpoint(str(address), *_socket_address(address))
            endpoint.backup = config.backup
            endpoint.full_weight = config.weight
            if endpoint.back_since is None:  # otherwise the next step of its slow start
                endpoint.weight = float(config.weight)
            found.append(endpoint)
        self._resolved[config] = found
        if len(self._resolved) == len(self._configs):
            self.resolved.set()
        everyone = [each for config in self._configs for each in self._resolved.get(config, ())]
        self.endpoints = tuple(dict.fromkeys(everyone))  # a name may stand for an address listed as well
        self._renew()

    def choose(self, source: str, tried: tuple[Endpoint, ...] = ()) -> Endpoint | None:
        """Return the endpoint for a new connection; None when all have been tried, or there is none."""
        candidates = self._candidates
        if tried:
            candidates = tuple(each for each in candidates if each not in tried) or tuple(
                each for each in self.endpoints if each not in tried and each.is_usable and each.weight > 0
            )
        return self._policy.choose(candidates, source) if candidates else None

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that a live connection was made."""
        endpoint.failures_in_row = 0

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """Note that a live connection failed; so many in a row eject the endpoint."""
        endpoint.failures += 1
        endpoint.failures_in_row += 1
        if endpoint.failures_in_row < self._outlier.consecutive_failures or endpoint.ejected_until:
            return
        ejected = sum(1 for each in self.endpoints if each.ejected_until)
        if len(self.endpoints) > 1 and ejected < max(1, int(self._outlier.max_ejected * len(self.endpoints))):
            endpoint.ejected_until = now + self._outlier.eject_for
            self._changed(endpoint)

    def checked(self, endpoint: Endpoint, is_well: bool, needed: int, now: float) -> None:
        """Note a health check's answer; `needed` in a row that contradict the state change it."""
        endpoint.checks_in_row = 0 if is_well == endpoint.is_up else endpoint.checks_in_row + 1
        if endpoint.checks_in_row < needed or is_well == endpoint.is_up:
            return
        endpoint.is_up = is_well
        endpoint.checks_in_row = 0
        if is_well:
            self._came_back(endpoint, now)
        self._changed(endpoint)

    def tick(self, now: float) -> None:
        """Let time do its part: ejections end, slow starts proceed."""
        for endpoint in self.endpoints:
            if endpoint.ejected_until and endpoint.ejected_until <= now:
                endpoint.ejected_until = 0.0
                endpoint.failures_in_row = 0
                self._came_back(endpoint, now)
                self._changed(endpoint)
        if [each.is_usable for each in self.endpoints] != self._usable:
            self._renew()  # by the group that this one replaced at a reload, whose connections go on
        starting = [each for each in self.endpoints if each.back_since is not None]
        if starting and now >= self._next_step:
            self._next_step = now + self._slow_start / _SLOW_START_STEPS
            for endpoint in starting:
                self._step_slow_start(endpoint, now)
            self._renew()

    def _came_back(self, endpoint: Endpoint, now: float) -> None:
        endpoint.back_since = now
        self._step_slow_start(endpoint, now)

    def _step_slow_start(self, endpoint: Endpoint, now: float) -> None:
        assert endpoint.back_since is not None
        age = now - endpoint.back_since
        if age < self._slow_start:
            endpoint.weight = endpoint.full_weight * max(_FIRST_SHARE, age / self._slow_start)
        else:
            endpoint.weight = float(endpoint.full_weight)
            endpoint.back_since = None

    def _changed(self, endpoint: Endpoint) -> None:
        self._renew()
        self._on_change(endpoint)

    def _renew(self) -> None:
        """Make a new tuple of candidates: policies take that as the sign that something has changed."""
        self._usable = [each.is_usable for each in self.endpoints]
        primaries = [each for each in self.endpoints if not each.backup]
        backups = [each for each in self.endpoints if each.backup]
        usable = eligible(primaries, backups, lambda each: each.is_usable)
        # Health may be mistaken, and the only other answer of a relay would be to close.
        self._candidates = usable or eligible(primaries, backups, lambda each: True)


def _socket_address(address: Address) -> tuple[socket.AddressFamily, SocketAddress]:
    if isinstance(address, UnixAddress):
        return socket.AF_UNIX, address.path
    if ":" in address.host:
        return socket.AF_INET6, (address.host, address.port, 0, 0)
    return socket.AF_INET, (address.host, address.port)
