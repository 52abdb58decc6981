"""A backend: a named group of endpoints, which of them is asked next, and what keeps that choice good.

Who may be chosen is worked out when it changes, not when a request comes:

    1. the primaries that are neither down nor ejected; where there are none,
    2. the backups that are neither; where there are none,
    3. those that are only ejected: ejection is a guess from past traffic, and trying beats refusing; else
    4. nobody: `choose` gives None, and the client gets 503.

A reload makes a new `Backend` from the old one. It takes over the endpoints whose URL is still there, and
with them connections, health and counters; `start` ends the old one's probes before its own begin.
"""

from __future__ import annotations

import logging
import random
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway_app.upstream.balancing.hash_key import compile_hash_key
from gateway_app.upstream.balancing.registry import POLICIES, LearnsLatency
from gateway_app.upstream.health import HealthChecker
from gateway_app.upstream.membership import Membership
from gateway_app.upstream.outlier import OutlierDetector
from gateway_app.upstream.retry import RetryBudget, RetryPolicy
from gateway_app.upstream.tls import backend_context
from gateway_app.upstream.transport import Sent
from l4relay.balance import eligible

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Sequence

    from starlette.types import Scope

    from gateway_app.config.backends import BackendConfig
    from gateway_app.exchange import Exchange
    from gateway_app.problem import Cause
    from gateway_app.upstream.endpoint import Endpoint
    from gateway_app.upstream.resolution import Resolver
    from gateway_app.upstream.transport import Transport

    TransportFactory = Callable[[Endpoint, BackendConfig, ssl.SSLContext | None], Transport]

logger = logging.getLogger("gateway.upstream")


class Backend:
    """The endpoints of one `[backends.NAME]`.

    Args:
        name: as routes.toml names it.
        config: its table.
        transports: makes an endpoint's transport; may raise for what cannot be made. It is given the context
            that all TLS connections of this backend share.
        resolver: looks host names up.
        previous: the backend of that name before a reload, None if there was none.
        rng: where chance comes from.
        clock: monotonic time in seconds.

    Raises OSError if a file of the `tls` table cannot be used, and what `transports` raises.

    Attributes:
        retry: which failures are repeated.
        retry_budget: counts requests, and bounds retries to their share.
    """

    def __init__(
        self,
        name: str,
        config: BackendConfig,
        transports: TransportFactory,
        resolver: Resolver,
        previous: Backend | None = None,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.config = config
        self.retry = RetryPolicy(config.retry)
        self.retry_budget = RetryBudget(config.retry.budget if config.retry else 0.0, clock())
        self._previous = previous
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._clock = clock
        make_policy = POLICIES[config.balance]
        self._policy = make_policy(self._rng, clock)
        self._retry_policy = make_policy(
            self._rng, clock
        )  # of its own, since policies remember whom they met
        self._key_of = compile_hash_key(config.hash_on) if config.balance == "hash" else None
        self._observe = self._policy.observe if isinstance(self._policy, LearnsLatency) else None
        self._outlier = OutlierDetector(config.outlier) if config.outlier else None
        self._candidates: tuple[Endpoint, ...] = ()
        self._only: Endpoint | None = None
        tls = backend_context(config)
        self._membership = Membership(
            config,
            lambda endpoint: transports(endpoint, config, tls),
            resolver,
            _health_checker(name, config, tls, self._rng),
            self._find_candidates,
            previous.endpoints if previous else (),
            previous.config if previous else None,
        )
        self._find_candidates()

    def __repr__(self) -> str:
        return f"<Backend {self.name} {list(self.endpoints)}>"

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints now, available or not."""
        return self._membership.endpoints

    # ------------------------------------------------------------------ for every request

    def choose(self, exchange: Exchange, scope: Scope, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """Return the endpoint to ask, None if none is available.

        `tried` are those that this request has been to: another one is preferred, a backup too, before one of
        them is asked again.
        """
        if tried:
            return self._choose_again(exchange, scope, tried)
        if self._only is not None:
            return self._only
        if not self._candidates:
            return None
        return self._policy.choose(self._candidates, self._key_of(exchange, scope) if self._key_of else "")

    def report(self, endpoint: Endpoint, ok: bool, latency_s: float) -> None:
        """Learn from an answer's head, `ok` unless its status is a failure (see `outlier`), or a failure.

        `latency_s` is the time to either. Attempts that end for another reason, such as a client that leaves,
        are not reported. That one has succeeded is for its end to tell: `Endpoint.finish`.
        """
        if not ok:
            self._count_failure(endpoint)
        if self._observe is not None:
            self._observe(endpoint, latency_s, ok=ok)

    def may_retry(
        self,
        method: str,
        reason: Cause | int,
        sent: Sent,
        tried: Collection[Endpoint],
        *,
        body_replayable: bool,
    ) -> bool:
        """Say whether to send a request again (see `RetryPolicy.allows`); if so, the budget is charged.

        `tried` are the endpoints of all attempts so far, the failed one included.
        """
        if not self.retry.allows(
            method,
            reason,
            sent,
            len(tried),
            body_replayable=body_replayable,
            has_untried=bool(self._untried(tried)),
        ):
            return False
        return sent is not Sent.MAYBE or self.retry_budget.withdraw(self._clock())

    # ------------------------------------------------------------------ life

    def matches(self, config: BackendConfig) -> bool:
        """Say whether `config` asks for what this backend is, so that a reload can keep it."""
        return self.config == config

    async def start(self) -> None:
        """Begin to follow names and to probe, in place of the previous backend; may follow a `stop`.

        Waits a moment for names that have no address yet, and goes on without.
        """
        if self._previous is not None:
            await self._previous.stop()  # or its probes would go on changing what we take over
            self._previous = None
            self._membership.take_over()
            self._candidates = ()  # weights may have changed: policies must not know the tuple again
            self._find_candidates()
        await self._membership.start()

    async def stop(self) -> None:
        """End probing and following names. Requests can go on."""
        await self._membership.stop()

    async def close(self) -> None:
        """Stop, and let go of the endpoints: those that nobody else holds close when they are idle.

        Called once no request can choose here any more, also for a backend that was never started.
        """
        await self.stop()
        await self._membership.close()

    def status(self) -> dict[str, object]:
        """Return what the admin page shows."""
        budget = self.retry_budget
        return {
            "balance": self.config.balance,
            "available": len(self._candidates),
            "retries": {"granted": budget.granted, "refused": budget.refused},
            "endpoints": [endpoint.status(self._clock()) for endpoint in self.endpoints],
        }

    # ------------------------------------------------------------------ within

    def _choose_again(self, exchange: Exchange, scope: Scope, tried: Collection[Endpoint]) -> Endpoint | None:
        rest = self._untried(tried)
        if not rest:
            return self.choose(exchange, scope)
        return self._retry_policy.choose(rest, self._key_of(exchange, scope) if self._key_of else "")

    def _untried(self, tried: Collection[Endpoint]) -> tuple[Endpoint, ...]:
        """Return who can be chosen instead of `tried`: candidates, or backups where there is none."""
        return tuple(endpoint for endpoint in self._candidates if endpoint not in tried) or tuple(
            endpoint
            for endpoint in self.endpoints
            if endpoint.is_backup and endpoint.is_available and endpoint not in tried
        )

    def _count_failure(self, endpoint: Endpoint) -> None:
        endpoint.failures += 1
        endpoint.failures_in_row += 1
        if self._outlier is None:
            return
        ejected = sum(1 for other in self.endpoints if other.ejected_until)
        duration_s = self._outlier.ejection_s(endpoint, ejected, len(self.endpoints), self._clock())
        if duration_s:
            logger.warning(
                "backend %s: %s is ejected for %g s: %d failures in a row",
                self.name,
                endpoint.key,
                duration_s,
                endpoint.failures_in_row,
            )
            endpoint.eject(duration_s)

    def _find_candidates(self) -> None:
        candidates = available(self.endpoints)
        if candidates != self._candidates:
            self._candidates = candidates
            self._only = candidates[0] if len(candidates) == 1 else None


def available(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Return who may be chosen, as the module says."""
    primaries = [endpoint for endpoint in endpoints if not endpoint.is_backup]
    backups = [endpoint for endpoint in endpoints if endpoint.is_backup]
    chosen = eligible(primaries, backups, attrgetter("is_available"))
    return chosen or eligible(primaries, backups, lambda endpoint: not endpoint.down)


def _health_checker(
    name: str, config: BackendConfig, tls: ssl.SSLContext | None, rng: random.Random
) -> HealthChecker | None:
    if config.health is None:
        return None
    server_name = config.tls.server_name if config.tls else None
    return HealthChecker(name, config.health, tls, rng, server_name=server_name)
