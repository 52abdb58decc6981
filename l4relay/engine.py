"""What the relays of one process share."""

import secrets
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from l4relay.endpoints import Registry
from l4relay.observe.access_log import AccessLog
from l4relay.pipes import PipePool
from l4relay.poller import Poller


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


@dataclass(slots=True)
class Engine:
    """The shared parts; made once for a process.

    Attributes:
        counts: By the relay's name, since that is what stays over a reload.
        workers: How many processes share the relays' bounds; a bound that is not counted together is split.

    """

    poller: Poller
    log: AccessLog
    workers: int = 1
    pipes: PipePool = field(default_factory=PipePool)
    registry: Registry = field(default_factory=Registry)
    counts: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    _id_prefix: str = field(default_factory=lambda: secrets.token_hex(6))
    _id_count: int = 0

    def new_id(self) -> str:
        """Return an id that no other connection has, in this process or another."""
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count:08x}"
