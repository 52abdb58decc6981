"""Listening sockets that workers inherit: opened once, so that a worker's restart loses no connection."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4relay.addresses import UnixAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Collection

BACKLOG: Final = 2048
"""Connections that may wait to be accepted; the kernel bounds it by net.core.somaxconn."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens.

    Attributes:
        address: as the user writes it, with the port that was given where port 0 was asked for.
        socket: the socket; whoever opened it closes it.

    """

    address: str
    socket: socket.socket

    @property
    def url(self) -> str:
        """What a client on this machine asks for; "" for a Unix socket."""
        return "" if self.address.startswith("unix:") else f"http://{self.address}"

    def close(self) -> None:
        """Stop listening; a Unix socket's file goes too."""
        self.socket.close()
        if self.address.startswith("unix:"):
            with suppress(FileNotFoundError):
                os.unlink(self.address.removeprefix("unix:"))


def open_listeners(addresses: Collection[str]) -> tuple[Listener, ...]:
    """Listen on `addresses`; `[::]` is IPv4 as well, unless `0.0.0.0` is among them with the same port.

    Raises:
        OSError: one cannot be had; the message names it, and none is left open.

    """
    listeners: list[Listener] = []
    for address in addresses:
        try:
            is_ipv4_apart = address.replace("[::]", "0.0.0.0") in addresses  # noqa: S104  # none is bound by it
            listeners.append(_open(address, is_ipv4_apart=is_ipv4_apart))
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    return tuple(listeners)


def host_and_port(address: str) -> tuple[str, int]:
    """Return the IP address and port of an address that is no Unix socket; a name is resolved.

    Raises:
        OSError: the name has no address.

    """
    _, name = _resolved(address)
    return str(name[0]), int(name[1])


def _open(address: str, *, is_ipv4_apart: bool) -> Listener:
    if address.startswith("unix:"):
        return _open_unix(address)
    family, name = _resolved(address)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6 and is_ipv4_apart:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(name)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    host, port = listening.getsockname()[:2]
    return Listener(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", listening)


def _open_unix(address: str) -> Listener:
    path = address.removeprefix("unix:")
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):  # left behind by a gateway that was killed
            os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return Listener(address, listening)


def _resolved(address: str) -> tuple[int, tuple[str, int]]:
    parsed = parse_address(address, port_zero_allowed=True)
    assert not isinstance(parsed, UnixAddress)
    try:
        found = socket.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(error.errno, error.strerror) from error
    family, _, _, _, name = found[0]
    return family, (str(name[0]), int(name[1]))
