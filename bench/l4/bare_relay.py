"""The least that a relay in Python can be: uvloop's transports, and each writes what the other reads.

A row of the comparison shows by it what the interpreter and the loop cost alone. It is no relay to use: there
are no limits, no back-pressure, no half-close, no fail-over and no counts.

`python bench/l4/bare_relay.py PORT SERVER_PORT`
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import uvloop


class Side(asyncio.Protocol):
    """One connection; `other` is the one that gets what it reads."""

    other: "Side | None" = None
    transport: Any
    write_on: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.write_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Client(Side):
    """A client's side: reads when the server's is there."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, server = await loop.create_connection(Side, "127.0.0.1", self._server_port)
        self.other, server.other = server, self
        self.write_on, server.write_on = server.transport.write, self.transport.write
        self.transport.resume_reading()


async def main(port: int, server_port: int) -> None:
    """Relay until killed."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Client(server_port), "127.0.0.1", port)
    await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
