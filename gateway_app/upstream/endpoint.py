"""One address of a backend, and everything known about it that changes while requests flow.

An endpoint outlives the configuration that named it: a reload that keeps its URL keeps the object, and with
it the connections, the verdict of the probes, the ejection and the counters. Whoever uses it holds it; the
last one to let go retires it, and its transport closes once the requests in flight have ended.

Two things take an endpoint out of use, and they do not know of each other: it is *down* when probes say so
(`health`), and *ejected* for a while when its answers say so (`outlier`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_app.upstream.transport import Transport

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """The parts of an endpoint's URL.

    Attributes:
        scheme: "http", "https", "http+unix", "asgi" or "wsgi".
        host: name or IP literal without brackets, "" where the scheme has none.
        port: the scheme's own where the URL names none, 0 where the scheme has none.
        path: of the Unix socket, or "module:name" of the application; "" for the network schemes.
        authority: host and port as written, for `Host`; "localhost" where the scheme has none.
    """

    scheme: str
    host: str
    port: int
    path: str
    authority: str

    @classmethod
    def parse(cls, url: str) -> EndpointUrl:
        """Take `url` apart. Raises ValueError if it has no known scheme or no host."""
        scheme, _, rest = url.partition(":")
        if scheme in ("http+unix", "asgi", "wsgi") and rest:
            return cls(scheme, "", 0, rest, "localhost")
        parts = urlsplit(url)
        if scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(
                f'{url!r} is no endpoint; accepted are "http://", "https://", "http+unix:", "asgi:", "wsgi:"'
            )
        return cls(scheme, parts.hostname, parts.port or _DEFAULT_PORTS[scheme], "", parts.netloc)


class Endpoint:
    """One address that requests can go to.

    Choosing reads it, the forwarder counts on it: `active += 1` when an attempt begins, `finish()` when it
    has ended, however it ended.

    Attributes:
        key: says which endpoint it is in logs, metrics and across reloads: the URL as configured, followed by
            the address where a name was resolved.
        url: the URL as configured.
        scheme, path, authority: see `EndpointUrl`.
        server_name: the URL's host, which a certificate must be valid for.
        host, port: where to connect; the resolved address where the URL has a name.
        weight: its share relative to the others, above 0.
        is_backup: used only while no other is available.
        transport: carries the requests; set by the backend that made the endpoint.
        active: requests in flight.
        requests: those that have ended.
        answers: attempts that have brought an answer.
        answer_wait_s: the sum of their times from the attempt's beginning to the answer's head, in seconds.
        failures: those that ended in the endpoint's failure.
        failures_in_row: failures since the last success; see `finish`.
        down: whether the probes say that it does not work.
        probes_in_row: equal probe results in a row: above 0 passed, below 0 failed, 0 if never probed.
        probe_error: why the last probe failed, "" if it passed or there was none.
        ejected_until: monotonic time until which it is ejected, 0.0 if it is not.
        ejections: how often it was ejected, less those it has made good since (see `outlier`).
        returned_at: monotonic time at which the last ejection ended.
        latency_ewma: peak-sensitive average of the time to answer, in seconds; only kept for `balance =
        "ewma"`. latency_at: monotonic time of the last measurement in it.
    """

    __slots__ = (
        "_holders",
        "_idle",
        "_return",
        "active",
        "answer_wait_s",
        "answers",
        "authority",
        "down",
        "ejected_until",
        "ejections",
        "failures",
        "failures_in_row",
        "host",
        "is_backup",
        "key",
        "latency_at",
        "latency_ewma",
        "path",
        "port",
        "probe_error",
        "probes_in_row",
        "requests",
        "returned_at",
        "scheme",
        "server_name",
        "transport",
        "url",
        "weight",
    )

    transport: Transport

    def __init__(
        self, url: str, address: str | None = None, *, weight: float = 1.0, is_backup: bool = False
    ) -> None:
        parts = EndpointUrl.parse(url)
        self.url = url
        self.key = url if address is None else f"{url} ({address})"
        self.scheme = parts.scheme
        self.path = parts.path
        self.authority = parts.authority
        self.server_name = parts.host
        self.host = parts.host if address is None else address
        self.port = parts.port
        self.weight = weight
        self.is_backup = is_backup
        self.active = 0
        self.requests = 0
        self.answers = 0
        self.answer_wait_s = 0.0
        self.failures = 0
        self.failures_in_row = 0
        self.down = False
        self.probes_in_row = 0
        self.probe_error = ""
        self.ejected_until = 0.0
        self.ejections = 0
        self.returned_at = 0.0
        self.latency_ewma = 0.0
        self.latency_at = 0.0
        self._holders: list[Callable[[], None]] = []
        self._return: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Endpoint {self.key} {self.state}>"

    @property
    def is_available(self) -> bool:
        """Say whether it is neither down nor ejected."""
        return not self.down and not self.ejected_until

    @property
    def state(self) -> str:
        """Name its state: "up", "down" or "ejected"."""
        if self.down:
            return "down"
        return "ejected" if self.ejected_until else "up"

    def finish(self, ok: bool = False) -> None:
        """Count an attempt as ended; `ok` if its answer, no failure, came as far as its client took it."""
        if ok:
            self.failures_in_row = 0
        self.active -= 1
        self.requests += 1
        if self._idle is not None and not self.active:
            self._idle.set()

    def set_down(self, is_down: bool) -> None:
        """Note the verdict of the probes."""
        if is_down != self.down:
            self.down = is_down
            self._tell_holders()

    def forget_probes(self) -> None:
        """Be up and unprobed again, since nobody probes any more."""
        self.probes_in_row = 0
        self.probe_error = ""
        self.set_down(False)

    def eject(self, duration_s: float) -> None:
        """Take it out for `duration_s`; it returns by itself. Needs a running loop."""
        self.ejected_until = time.monotonic() + duration_s
        self.ejections += 1
        self._return = asyncio.get_running_loop().call_later(duration_s, self.readmit)
        self._tell_holders()

    def readmit(self) -> None:
        """End its ejection."""
        if self._return is None:
            return
        self._return.cancel()
        self._return = None
        self.returned_at = min(self.ejected_until, time.monotonic())
        self.ejected_until = 0.0
        self.failures_in_row = 0
        self._tell_holders()

    def hold(self, on_change: Callable[[], None]) -> None:
        """Use the endpoint; `on_change` is called whenever it goes down, is ejected or comes back."""
        self._holders.append(on_change)

    def let_go(self, on_change: Callable[[], None]) -> bool:
        """End a `hold`. True if nobody holds it any more: the caller then awaits `retire`."""
        self._holders.remove(on_change)
        return not self._holders

    async def retire(self) -> None:
        """Wait until no request is in flight, then close the transport."""
        if self._return is not None:
            self._return.cancel()
            self._return = None
        if self.active:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self.transport.aclose()

    def status(self, now: float) -> dict[str, object]:
        """Return what the admin page shows, at the monotonic time `now`."""
        return {
            "endpoint": self.key,
            "state": self.state,
            "weight": self.weight,
            "backup": self.is_backup,
            "active": self.active,
            "requests": self.requests,
            "failures": self.failures,
            "failures_in_row": self.failures_in_row,
            "probe_error": self.probe_error,
            "ejected_for_s": round(max(0.0, self.ejected_until - now), 3),
            "latency_ewma_ms": round(self.latency_ewma * 1000.0, 3),
            "connections": self.transport.status(),
        }

    def inherit(self, other: Endpoint) -> None:
        """Take over what is known about the same address from `other`, which is about to be replaced."""
        for name in ("requests", "failures", "failures_in_row", "down", "probes_in_row", "probe_error"):
            setattr(self, name, getattr(other, name))
        for name in ("answers", "answer_wait_s", "ejections", "returned_at", "latency_ewma", "latency_at"):
            setattr(self, name, getattr(other, name))
        if other.ejected_until:
            self.ejections -= 1  # the one under way is counted again
            self.eject(max(0.0, other.ejected_until - time.monotonic()))

    def _tell_holders(self) -> None:
        for on_change in tuple(self._holders):
            on_change()
