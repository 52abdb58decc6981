"""Bound sockets, and taking connections from them.

A listener outlives reloads: what it accepts goes to whichever relay it serves at that moment. When
descriptors run out it stops accepting for a moment, says so, and goes on; the kernel's backlog keeps the
clients meanwhile.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from l4relay.addresses import InetAddress, ListenAddress, UnixAddress
from l4relay.poller import READABLE, Poller

Accepted = Callable[[socket.socket, str, int], bool]
"""Takes a client's socket, its IP address ("" over a Unix socket) and its port.

False: there was nothing left for it, and the next one would fare no better.
"""

_BACKLOG: Final = 4096
_ACCEPTS_A_TURN: Final = 64
_PAUSE_S: Final = 0.25
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""This machine, or process, has no more to give: descriptors, memory, local ports for connections (ip(7))."""

_log = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Have as many descriptors as the system allows, here and in children: a connection takes two.

    The soft limit is often 1,024, for the sake of programs that use select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bind(listen: ListenAddress, *, reuse_port: bool) -> socket.socket:
    """Return a bound, non-blocking socket, listening where it is a stream.

    One of IPv6 leaves IPv4 to a socket of its own: no socket can be told otherwise later.

    Args:
        listen: Where; a Unix socket that a dead process has left behind is replaced.
        reuse_port: Whether other processes bind the same port (SO_REUSEPORT).

    Raises:
        OSError: the address is taken or not this machine's.

    """
    address = listen.address
    kind = socket.SOCK_STREAM if listen.transport == "tcp" else socket.SOCK_DGRAM
    if isinstance(address, UnixAddress):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if isinstance(address, UnixAddress):
            _remove_stale(address.path)
            sock.bind(address.path)
        else:
            _set_options(sock, listen, reuse_port=reuse_port)
            sock.bind((address.host, address.port))
        if listen.transport == "tcp":
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {listen}: {os.strerror(error.errno or 0)}") from error
    return sock


def _set_options(sock: socket.socket, listen: ListenAddress, *, reuse_port: bool) -> None:
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if listen.transport == "udp":
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # On Linux an accepted socket inherits these, which saves a system call for each connection.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on; any other file stays, and binding will say so."""
    if Path(path).is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                Path(path).unlink(missing_ok=True)


class Listener:
    """Accepts connections from one bound socket.

    Args:
        listen: Its address.
        sock: From `bind`; closed by `retire`.
        accepted: Who takes the connections; may be replaced at any time.

    Attributes:
        is_open: Whether it has not been retired.

    """

    def __init__(
        self, poller: Poller, listen: ListenAddress, sock: socket.socket, accepted: Accepted
    ) -> None:
        self._poller = poller
        self._sock = sock
        self._resume_handle: asyncio.TimerHandle | None = None
        self.listen = listen
        self.accepted = accepted
        self.is_open = True
        poller.watch(sock, self._on_ready, READABLE)

    def __str__(self) -> str:
        """Return where the socket is bound, with the port that the system chose if it was 0."""
        name = self._sock.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"tcp://{InetAddress(name[0], name[1])}"

    def retire(self) -> None:
        """Take what has connected already, then stop listening."""
        for _ in range(_BACKLOG // _ACCEPTS_A_TURN):
            self._on_ready(0)
        if self._resume_handle is not None:
            self._resume_handle.cancel()
        self.is_open = False
        self._poller.close(self._sock)
        if isinstance(self.listen.address, UnixAddress):
            Path(self.listen.address.path).unlink(missing_ok=True)

    def _on_ready(self, events: int) -> None:
        accept = self._sock.accept
        for _ in range(_ACCEPTS_A_TURN):
            try:
                client, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(os.strerror(error.errno))
                    return
                continue  # this client has gone again (accept(2), ECONNABORTED and network errors)
            source, port = peer[:2] if peer else ("", 0)
            if not self.accepted(client, source, port):
                self._pause("no descriptors or local ports for endpoints")
                return

    def _pause(self, reason: str) -> None:
        if self._resume_handle is None:
            _log.error("%s: %s: accepting nothing for %g s", self, reason, _PAUSE_S)
            self._poller.pause(self._sock)
            self._resume_handle = asyncio.get_running_loop().call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._resume_handle = None
        self._poller.watch(self._sock, self._on_ready, READABLE)
