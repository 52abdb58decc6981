"""The data path's readiness notifier: an edge-triggered epoll set inside the asyncio loop.

An epoll descriptor is itself readable when it has events, so the loop watches that one descriptor, and every
relayed socket lives in the set behind it. Against a loop's own `add_reader` and transports this saves a
handle, a context switch of contextvars and a level-triggered re-arm for every event, and needs one system
call to register a socket for both directions: a relayed exchange costs the same on asyncio as on uvloop.
Timers, signals, name resolution, health checks and the admin address stay ordinary asyncio.
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Final

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
ENDING: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
"""The peer will send no more, or the socket has failed: read until the end shows."""

_BOTH_EDGES: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_MAX_EVENTS: Final = 256
_TURN_S: Final = 0.004
"""How long polls follow each other before the loop gets its turn: under load this leaves out its own work."""

EventHandler = Callable[[int], None]


def _ignore(events: int) -> None:
    """Take the events that a turn still holds for a socket which is watched no more."""


class Poller:
    """Calls a handler when its socket becomes readable or writable; spurious calls are possible."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._handlers: dict[int, EventHandler] = {}
        self._retired: list[socket.socket] = []
        self.now = time.monotonic()
        """The monotonic time of the current turn, in seconds: precise enough for idle times."""
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, sock: socket.socket, handler: EventHandler, events: int = _BOTH_EDGES) -> None:
        """Watch a socket; what is ready already is reported, too.

        Both directions are told of once: the handler has to go on until the system says that it would block,
        or to ask for another call with `rearm`. With `READABLE` what is left is reported again, which is
        right for listeners and datagrams.
        """
        fd = sock.fileno()
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def replace(self, sock: socket.socket, handler: EventHandler) -> None:
        """Give a watched socket another handler."""
        self._handlers[sock.fileno()] = handler

    def rearm(self, fd: int) -> None:
        """Have what is ready reported again, after the others had their turn."""
        self._epoll.modify(fd, _BOTH_EDGES)

    def pause(self, sock: socket.socket) -> None:
        """Stop watching a socket that stays open."""
        self._handlers[sock.fileno()] = _ignore
        self._epoll.unregister(sock)

    def close(self, sock: socket.socket) -> None:
        """Stop watching and close, at the end of the turn.

        Not at once, so that no descriptor is used anew while events for its last owner may be waiting.
        """
        self._handlers[sock.fileno()] = _ignore
        self._retired.append(sock)
        if len(self._retired) == 1:
            self._loop.call_soon(self._close_retired)

    def shut_down(self) -> None:
        """Close the set and every socket given to `close`."""
        self._close_retired()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        poll, handlers, retired = self._epoll.poll, self._handlers, self._retired
        end_at = 0.0
        while events := poll(0, _MAX_EVENTS):
            now = self.now = time.monotonic()
            end_at = end_at or now + _TURN_S
            for fd, mask in events:
                try:
                    handlers[fd](mask)
                except Exception as error:  # the other sockets' edges would not be reported again
                    context = {"message": "a relayed socket's handler failed", "exception": error}
                    self._loop.call_exception_handler(context)
            if retired:
                self._close_retired()
            if now >= end_at:
                return

    def _close_retired(self) -> None:
        for sock in self._retired:
            self._handlers.pop(sock.fileno(), None)
            sock.close()
        self._retired.clear()
