"""Whether a failed attempt is repeated: a pure decision, and the budget that keeps retries from piling up.

How much of the request the endpoint can have acted on decides first (`Sent`):

- nothing: it is not a repeat at all, so any method may go on to the next endpoint, and the budget is not
  charged, since no endpoint gets more requests by it. Without a `retry` table too, to each endpoint once;
- a reused connection that ended before the answer's first byte is most often the endpoint's idle timeout
  crossing our request (RFC 9112 9.3.1). Idempotent requests are sent once more, even without a `retry` table;
- else the endpoint may have acted on it: `on`, `methods`, `attempts` and `budget` of the table must all
  allow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.problem import Cause
from gateway_app.upstream.transport import Sent

if TYPE_CHECKING:
    from gateway_app.config.backends import RetryConfig

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 9.2.2."""

CAUSES_OF_WORD: Final = {
    "connect": frozenset(
        {Cause.CONNECTION_REFUSED, Cause.CONNECT_TIMEOUT, Cause.DNS, Cause.TLS, Cause.TLS_CERTIFICATE}
    ),
    "reset": frozenset({Cause.CONNECTION_RESET}),
    "timeout": frozenset({Cause.RESPONSE_TIMEOUT}),
}
"""The words of `on`, beside the statuses. Causes that no word names are never retried: an answer that has
begun cannot be taken back, and a malformed one would come again."""

_UNREACHED: Final = CAUSES_OF_WORD["connect"] | CAUSES_OF_WORD["reset"]
"""Why nothing was sent through the endpoint's doing; that we have no connection left is another matter."""

_BACKOFF_BASE_S: Final = 0.025
_BACKOFF_MAX_S: Final = 0.25


class RetryPolicy:
    """The `retry` table of a backend, compiled.

    Without a table a request of which nothing was sent fails over to the endpoints that it has not been to,
    and the reused connection is retried.

    Attributes:
        statuses: answers that may be retried; everything else is passed on without asking further.
    """

    __slots__ = ("_attempts", "_causes", "_fails_over", "_methods", "statuses")

    def __init__(self, config: RetryConfig | None) -> None:
        words = config.on if config else ()
        self._fails_over = config is None
        self._attempts = config.attempts if config else 0
        self._methods = frozenset(config.methods) if config else IDEMPOTENT_METHODS
        self._causes = frozenset(cause for word in words for cause in CAUSES_OF_WORD.get(word, ()))
        self.statuses = frozenset(int(word) for word in words if word not in CAUSES_OF_WORD)

    def allows(
        self,
        method: str,
        reason: Cause | int,
        sent: Sent,
        attempts: int,
        *,
        body_replayable: bool,
        has_untried: bool,
    ) -> bool:
        """Say whether the request may be sent once more.

        Args:
            method: The request's.
            reason: Why the attempt failed, or the status of its answer.
            sent: How much the endpoint can have acted on; `Sent.MAYBE` for a status.
            attempts: How often it was sent, at least 1.
            body_replayable: Whether all of the body that was read can be sent again, or there is none. Does
                not matter where nothing was sent.
            has_untried: Whether an endpoint is available that this request has not been to.

        """
        if self._fails_over and sent is Sent.NOTHING:
            return has_untried and reason in _UNREACHED
        if sent is not Sent.NOTHING and not body_replayable:
            return False
        if sent is Sent.REUSED and method in IDEMPOTENT_METHODS:
            # One beyond `attempts`: the race is nobody's failure. The caller takes a fresh connection, so
            # that it cannot come twice.
            return attempts <= self._attempts + 1
        if attempts > self._attempts or not (reason in self._causes or reason in self.statuses):
            return False
        return sent is Sent.NOTHING or method in self._methods

    @staticmethod
    def backoff_s(attempts: int, chance: float) -> float:
        """Return how long to wait before an endpoint that has just failed is asked again.

        Another endpoint is asked at once. The same one after a random part (`chance`, 0 up to 1) of 25 ms,
        which doubles with each attempt up to 250 ms.
        """
        return chance * min(_BACKOFF_MAX_S, _BACKOFF_BASE_S * (1 << attempts - 1))


class RetryBudget:
    """Bounds retries to a share of the traffic of the last ten seconds, so that they cannot feed an outage.

    Up to 100 retries in ten seconds are always granted, or little traffic would get none. A share of 0 grants
    none at all.

    Attributes:
        requests: the caller adds 1 for each request, retries not counted.
        granted: retries granted since the start.
        refused: retries refused since the start.
    """

    __slots__ = (
        "_past_requests",
        "_past_retries",
        "_retries",
        "_share",
        "_window_began",
        "granted",
        "refused",
        "requests",
    )

    WINDOW_S: Final = 10.0
    MINIMUM: Final = 100

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._window_began = now
        self._retries = 0
        self._past_requests = 0.0
        self._past_retries = 0.0
        self.requests = 0
        self.granted = 0
        self.refused = 0

    def withdraw(self, now: float) -> bool:
        """Take one retry out of the budget at the time `now` (seconds). False if there is none left."""
        age_s = now - self._window_began
        if age_s >= self.WINDOW_S:
            self._begin_window(now, age_s)
            age_s = 0.0
        past = 1.0 - age_s / self.WINDOW_S  # the part of the window before that still counts
        requests = self.requests + self._past_requests * past
        retries = self._retries + self._past_retries * past
        if not self._share or retries + 1 > max(self.MINIMUM, self._share * requests):
            self.refused += 1
            return False
        self._retries += 1
        self.granted += 1
        return True

    def _begin_window(self, now: float, age_s: float) -> None:
        # Windows end only when a retry is asked for, so one may have lasted for hours: what counts is its
        # rate.
        scale = self.WINDOW_S / age_s
        self._past_requests = self.requests * scale
        self._past_retries = self._retries * scale
        self.requests = 0
        self._retries = 0
        self._window_began = now
