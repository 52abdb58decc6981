"""What TCP and UDP relays have in common: who is admitted, which endpoints there are, and what is counted."""

import logging
from abc import ABC, abstractmethod

from l4relay.admission import Admission, Limits
from l4relay.config.model import RelayConfig
from l4relay.endpoints import Endpoint, Group
from l4relay.engine import Engine
from l4relay.sni import Names

_log = logging.getLogger(__name__)


class Relay(ABC):
    """One `[[relay]]`.

    Args:
        config: Its table.
        engine: What the process shares.
        limits: The relay's counts, the same across reloads.

    Attributes:
        counts: What is counted, together with the relay of this name before a reload.

    """

    def __init__(self, config: RelayConfig, engine: Engine, limits: Limits) -> None:
        self.config = config
        self.engine = engine
        self.admission = Admission(config, limits)
        self.names = Names(config, engine.registry, self._report)
        self.counts = engine.counts[config.name]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every list of endpoints."""
        return self.names.groups

    @property
    @abstractmethod
    def active(self) -> int:
        """Connections or sessions that have not ended."""

    def tick(self, now: float) -> None:
        """Let time do its part; called several times a second."""
        for group in self.groups:
            group.tick(now)

    @abstractmethod
    def close_all(self, reason: str) -> None:
        """End everything."""

    def count_end(self, reason: str, sent: int, received: int) -> None:
        """Count a connection or session that has ended."""
        self.counts.ended[reason] += 1
        self.counts.sent += sent
        self.counts.received += received

    def _report(self, endpoint: Endpoint) -> None:
        _log.warning("relay %s: endpoint %s is %s", self.config.name, endpoint.key, endpoint.state)
