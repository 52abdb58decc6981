"""Which list of endpoints a connection belongs to: by the server name it asks for, or the default one."""

from collections.abc import Callable

from l4relay.config.model import EndpointConfig, RelayConfig
from l4relay.endpoints import Endpoint, Group, Registry


class Names:
    """A relay's lists of endpoints: ``endpoints``, and those of ``sni`` by name.

    An exact name wins over a wildcard, and a longer wildcard over a shorter; ``*.example.com`` stands for any
    number of labels before it.

    Attributes:
        default: What all others belong to.
        by_name: Whether the server name matters at all.

    """

    def __init__(
        self, config: RelayConfig, registry: Registry, on_change: Callable[[Endpoint], None]
    ) -> None:
        def group(label: str, endpoints: tuple[EndpointConfig, ...]) -> Group:
            return Group(
                label,
                endpoints,
                balance=config.balance,
                slow_start=config.slow_start,
                outlier=config.outlier,
                registry=registry,
                on_change=on_change,
            )

        self.default = group(config.name, config.endpoints)
        named = {pattern: group(f"{config.name}/{pattern}", endpoints) for pattern, endpoints in config.sni}
        self._exact = {name: each for name, each in named.items() if not name.startswith("*.")}
        self._wildcards = {name[2:]: each for name, each in named.items() if name.startswith("*.")}
        self.by_name = bool(named)
        self.groups = (self.default, *named.values())

    def find(self, server_name: str | None) -> Group:
        """Return the endpoints for a name; None for a client that gave none."""
        if not server_name:
            return self.default
        exact = self._exact.get(server_name)
        if exact is not None:
            return exact
        _, dot, parent = server_name.partition(".")
        while dot:
            if parent in self._wildcards:
                return self._wildcards[parent]
            _, dot, parent = parent.partition(".")
        return self.default
