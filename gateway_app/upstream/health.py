"""Active health checks: each endpoint is asked `path` every `interval`, and is out while it does not answer.

A probe passes with a status from 200 to 399 (redirects are not followed) within `timeout`. It takes a
connection of its own, so that it also finds an endpoint that accepts nobody new. A new endpoint is up until
it is asked, which happens at once, and its first probe decides alone; after that `unhealthy_after` failures
in a row take it out and `healthy_after` passes bring it back. In-process endpoints ("asgi:", "wsgi:") are
not probed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final

import httpx

from gateway_app.upstream.background import Background
from gateway_app.upstream.exhaustion import is_exhaustion

if TYPE_CHECKING:
    import random

    from gateway_app.config.backends import HealthConfig
    from gateway_app.upstream.endpoint import Endpoint

logger = logging.getLogger("gateway.upstream")

_PROBED_SCHEMES: Final = frozenset({"http", "https", "http+unix"})
_JITTER: Final = 0.1
"""Intervals vary by this share, so that probes of many endpoints and workers do not fall together."""


class HealthChecker:
    """Probes the endpoints of one backend, one task each. Whoever makes it calls `aclose`.

    Args:
        backend: its name, for the log.
        config: the `health` table.
        tls: verifies "https:" endpoints; None if there are none.
        rng: where the jitter comes from.
        server_name: what certificates must be valid for, None for each endpoint's own host.
    """

    def __init__(
        self,
        backend: str,
        config: HealthConfig,
        tls: ssl.SSLContext | None,
        rng: random.Random,
        *,
        server_name: str | None = None,
    ) -> None:
        self._backend = backend
        self._config = config
        self._tls = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would load authorities otherwise
        self._rng = rng
        self._server_name = server_name
        self._background = Background()
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    @property
    def watched(self) -> tuple[Endpoint, ...]:
        """Return the endpoints that are probed."""
        return tuple(self._tasks)

    def watch(self, endpoint: Endpoint) -> None:
        """Begin to probe `endpoint`, now and then at every interval."""
        if endpoint.scheme in _PROBED_SCHEMES and endpoint not in self._tasks:
            self._tasks[endpoint] = self._background.spawn(
                self._probe_for_ever(endpoint), f"probing of {endpoint.key}"
            )

    async def forget(self, endpoint: Endpoint) -> None:
        """Stop probing `endpoint`."""
        task = self._tasks.pop(endpoint, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def aclose(self) -> None:
        """Stop probing."""
        self._tasks.clear()
        await self._background.cancel()

    async def _probe_for_ever(self, endpoint: Endpoint) -> None:
        config = self._config
        async with self._client(endpoint) as client:
            while True:
                error = await self._probe(client, endpoint)
                if error is not None and take_result(
                    endpoint, error, config.healthy_after, config.unhealthy_after
                ):
                    self._tell(endpoint, error)
                await asyncio.sleep(config.interval * self._rng.uniform(1.0 - _JITTER, 1.0 + _JITTER))

    def _tell(self, endpoint: Endpoint, error: str) -> None:
        if error:
            logger.warning("backend %s: %s is down: %s", self._backend, endpoint.key, error)
        else:
            logger.info("backend %s: %s is up again", self._backend, endpoint.key)

    def _client(self, endpoint: Endpoint) -> httpx.AsyncClient:
        # No keep-alive: see the module. No environment: a proxy meant for egress must not answer for
        # endpoints.
        transport = httpx.AsyncHTTPTransport(
            verify=self._tls,
            limits=httpx.Limits(max_keepalive_connections=0),
            uds=endpoint.path or None,
            trust_env=False,
        )
        return httpx.AsyncClient(transport=transport, trust_env=False, timeout=self._config.timeout)

    async def _probe(self, client: httpx.AsyncClient, endpoint: Endpoint) -> str | None:
        """Ask once. Returns "" if it passed, else why not; None if we could not ask."""
        try:
            async with asyncio.timeout(self._config.timeout):
                request = client.build_request(
                    "GET",
                    probe_url(endpoint, self._config.path),
                    headers={"host": endpoint.authority, "user-agent": "l47-gateway health check"},
                    extensions={"sni_hostname": self._server_name or endpoint.server_name},
                )
                response = await client.send(request, stream=True)  # the body is nobody's concern
                await response.aclose()
        except TimeoutError:
            return f"no answer within {self._config.timeout:g} s"
        except (httpx.HTTPError, OSError) as error:
            if is_exhaustion(error):
                return None
            return str(error) or type(error).__name__
        return "" if 200 <= response.status_code < 400 else f"status {response.status_code}"


def probe_url(endpoint: Endpoint, path: str) -> str:
    """Return the URL that reaches `endpoint` itself, whatever its name may resolve to elsewhere."""
    if endpoint.path:
        return f"http://localhost{path}"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{endpoint.scheme}://{host}:{endpoint.port}{path}"


def take_result(endpoint: Endpoint, error: str, healthy_after: int, unhealthy_after: int) -> bool:
    """Count one probe, which failed with `error` or passed with "", and mark the endpoint accordingly.

    Returns whether that took it out or brought it back.
    """
    is_first = not endpoint.probes_in_row
    endpoint.probe_error = error
    if error:
        endpoint.probes_in_row = min(endpoint.probes_in_row, 0) - 1
        changes = not endpoint.down and (is_first or -endpoint.probes_in_row >= unhealthy_after)
    else:
        endpoint.probes_in_row = max(endpoint.probes_in_row, 0) + 1
        changes = endpoint.down and (is_first or endpoint.probes_in_row >= healthy_after)
    if changes:
        endpoint.set_down(bool(error))
    return changes
