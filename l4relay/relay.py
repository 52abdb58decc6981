"""What TCP and UDP relays have in common, and what the relays of one process share."""

import logging
import secrets
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from l4relay.admission import Admission, LimitTable
from l4relay.config.model import RelayConfig
from l4relay.endpoints import Endpoint, Registry
from l4relay.observe.access_log import AccessLog
from l4relay.pipes import PipePool
from l4relay.poller import Poller
from l4relay.sni import Names

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What is counted of a relay, for as long as the process runs.

    Attributes:
        accepted: Connections or sessions that were ever begun.
        refused: Those that were not admitted, by reason.
        ended: Those that have ended, by reason.
        sent: Bytes to endpoints, of those that have ended.
        received: Bytes from endpoints, likewise.

    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    received: int = 0


class Engine:
    """The shared parts; made once for a process.

    Attributes:
        limits: What is counted together with other processes; a bound that is not is split among them.
        counts: By the relay's name, since that is what stays over a reload.

    """

    def __init__(self, log: AccessLog, limits: LimitTable) -> None:
        self.log = log
        self.limits = limits
        self.poller = Poller()
        self.pipes = PipePool()
        self.registry = Registry()
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0

    def new_id(self) -> str:
        """Return an id that no other connection has, in this process or another."""
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count:08x}"


class Relay(ABC):
    """One `[[relay]]`.

    Args:
        config: Its table.
        engine: What the process shares.

    Attributes:
        counts: What is counted, together with the relay of this name before a reload.

    """

    def __init__(self, config: RelayConfig, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.admission = Admission(config, engine.limits)
        self.names = Names(config, engine.registry, self._report)
        self.groups = self.names.groups
        self.counts = engine.counts[config.name]

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
