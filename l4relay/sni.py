"""Choosing endpoints by the server name in a TLS ClientHello, without terminating anything.

RFC 8446 5.1 (records) and 4.1.2 (ClientHello), which older versions of TLS share in form, and RFC 6066 3
(server_name). Pure: bytes in, name out. With Encrypted Client Hello the outer, public name is what is seen.
"""

import re
from collections.abc import Callable
from typing import Final

from l4relay.config.model import RelayConfig
from l4relay.endpoints import Endpoint, Group, Registry

MAX_BYTES: Final = 16 * 1024
"""The bound on what is read, records and all. Hellos with post-quantum key shares take about 2 KiB."""

_RECORD_START: Final = b"\x16\x03"
"""A handshake record (22) of any TLS version: the first byte has been 3 since SSL 3.0."""
_RECORD_HEADER: Final = 5
_MAX_RECORD: Final = 1 << 14
_CLIENT_HELLO: Final = b"\x01"
_MESSAGE_HEADER: Final = 4
_SERVER_NAME: Final = b"\0\0"
_HOST_NAME: Final = b"\0"
_NAME: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}")


class ClientHelloReader:
    """Reads one connection's first bytes, however they are split into segments and TLS records.

    Each record is taken once, so a client gains nothing by sending its bytes one at a time.

    Attributes:
        server_name: The name that is asked for, in lower case, without a trailing dot; None if there is none,
            for what is not TLS or malformed too: the endpoint will answer.

    """

    __slots__ = ("_message", "_position", "server_name")

    def __init__(self) -> None:
        self.server_name: str | None = None
        self._position = 0  # of the first record that is not in the message yet
        self._message = bytearray()

    def read(self, received: bytes | bytearray) -> bool:
        """Look at all that has been received until now; true when `server_name` is known."""
        message = self._message
        while self._position < len(received):
            start = self._position + _RECORD_HEADER
            if not _RECORD_START.startswith(received[self._position : self._position + 2]):
                return True
            if start > len(received):
                break
            end = start + int.from_bytes(received[start - 2 : start], "big")
            if not start < end <= start + _MAX_RECORD:  # 5.1: a handshake record is never empty
                return True
            if not message and not _CLIENT_HELLO.startswith(received[start : start + 1]):
                return True
            if end > len(received):
                break
            message += received[start:end]
            self._position = end
            length = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
            if len(message) >= length:
                self.server_name = _read_name(bytes(message[_MESSAGE_HEADER:length]))
                return True  # what follows the hello, early data for instance, is not ours to judge
            if length > MAX_BYTES:  # as much of it as there is; the whole can only be more
                return True
        return len(received) >= MAX_BYTES


def _read_name(hello: bytes) -> str | None:
    rest = memoryview(hello)[2 + 32 :]  # legacy_version, random
    try:
        for length_size in (1, 2, 1):  # legacy_session_id, cipher_suites, legacy_compression_methods
            _, rest = _vector(rest, length_size)
        extensions, _ = _vector(rest, 2)  # missing in some hellos before TLS 1.3
        names, _ = _vector(_entry(extensions, _SERVER_NAME), 2)
        name = _entry(names, _HOST_NAME)
    except ValueError:
        return None
    # RFC 6066 3: ASCII, internationalised names as A-labels
    return str(name, "ascii").lower().rstrip(".") if _NAME.fullmatch(name) else None


def _vector(octets: memoryview, length_size: int) -> tuple[memoryview, memoryview]:
    """Return a vector's content, behind its length (RFC 8446 3.4), and what follows it."""
    end = length_size + int.from_bytes(octets[:length_size], "big")
    if end > len(octets):
        raise ValueError("a length reaches over the end of what holds it")
    return octets[length_size:end], octets[end:]


def _entry(entries: memoryview, kind: bytes) -> memoryview:
    """Return the content of the first entry of a kind."""
    while entries:
        content, rest = _vector(entries[len(kind) :], 2)
        if entries[: len(kind)] == kind:
            return content
        entries = rest
    raise ValueError("there is no such entry")


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
        self.default = Group(config.name, config.endpoints, config, registry, on_change)
        self._named = {
            pattern: Group(f"{config.name}/{pattern}", endpoints, config, registry, on_change)
            for pattern, endpoints in config.sni
        }
        self.by_name = bool(self._named)
        self.groups = (self.default, *self._named.values())

    def find(self, server_name: str | None) -> Group:
        """Return the endpoints for a name; None for a client that gave none."""
        pattern = parent = server_name or ""
        while pattern not in self._named:
            _, dot, parent = parent.partition(".")
            if not dot:
                return self.default
            pattern = f"*.{parent}"
        return self._named[pattern]
