"""Outlier ejection: an endpoint that fails one request after the other is taken out for a while.

It is learnt from the traffic alone, so it works without probes, and catches what a probe does not see. How
many failures, for how long, and how many endpoints at once is `[backends.NAME.outlier]`'s to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.problem import Cause

if TYPE_CHECKING:
    from gateway_app.config.backends import OutlierConfig
    from gateway_app.upstream.endpoint import Endpoint

FAILED_STATUSES: Final = frozenset({502, 503, 504})
"""Answers that say that the endpoint cannot serve. 500 is not among them: one bad request may cause it."""

FAILED_CAUSES: Final = frozenset(
    {
        Cause.CONNECTION_REFUSED,
        Cause.CONNECTION_RESET,
        Cause.CONNECT_TIMEOUT,
        Cause.RESPONSE_TIMEOUT,
        Cause.IDLE_TIMEOUT,
        Cause.TLS,
        Cause.TLS_CERTIFICATE,
        Cause.BAD_ANSWER,
        Cause.ANSWER_INCOMPLETE,
        Cause.ANSWER_FIELDS_TOO_LARGE,
        Cause.DNS,
    }
)
"""Causes that are the endpoint's fault; not those of the client, nor our own limits."""

MAX_GROWTH: Final = 10
"""An endpoint that keeps failing is ejected for at most this many times `eject_for`."""


class OutlierDetector:
    """Decides whether a failure ejects, and for how long.

    The first ejection lasts `eject_for`, the next twice as long and so on, up to ten times. Each `eject_for`
    that an endpoint then serves without being ejected takes one back.

    Ejection never takes more than `max_ejected` of the endpoints (rounded down, but one of two or more may
    always go; 0 turns it off), and a backend's only endpoint is never ejected.
    """

    __slots__ = ("_consecutive_failures", "_eject_for_s", "_max_ejected")

    def __init__(self, config: OutlierConfig) -> None:
        self._consecutive_failures = config.consecutive_failures
        self._eject_for_s = config.eject_for
        self._max_ejected = config.max_ejected

    def ejection_s(self, endpoint: Endpoint, ejected: int, total: int, now: float) -> float:
        """Return how long to eject `endpoint`, whose failure has just been counted; 0.0 if it stays.

        Args:
            endpoint: Its `ejections` are set to those that still count.
            ejected: How many of the backend's endpoints are ejected already.
            total: How many endpoints the backend has.
            now: Loop time.

        """
        if endpoint.failures_in_row < self._consecutive_failures or endpoint.ejected_until:
            return 0.0
        if ejected >= self._limit(total):
            return 0.0
        made_good = int((now - endpoint.returned_at) / self._eject_for_s)
        endpoint.ejections = max(0, endpoint.ejections - made_good)
        return self._eject_for_s * min(endpoint.ejections + 1, MAX_GROWTH)

    def _limit(self, total: int) -> int:
        if total < 2 or not self._max_ejected:
            return 0
        return max(1, int(self._max_ejected * total))
