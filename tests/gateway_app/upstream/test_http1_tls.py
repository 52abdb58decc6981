"""An answer that the end of a TLS connection ends: whole only if the endpoint says so (RFC 9112 9.8)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway_app.config.backends import BackendTlsConfig
from gateway_app.problem import Cause

UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nunframed"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def unused(reader: Reader, writer: Writer) -> None:
    """The conversation of an endpoint that nobody asks."""


@pytest.mark.parametrize("says_so", [True, False], ids=["close_notify", "a cut connection"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_only_close_notify_ends_an_unframed_answer(
    says_so: bool, version: ssl.TLSVersion, line: Any, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNFRAMED)
        await writer.drain()
        if not says_so:  # below TLS, as whoever sits in between could
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as tcp:
                tcp.shutdown(socket.SHUT_WR)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tls = BackendTlsConfig(ca=str(tmp_path / "ca.pem"))
    async with asyncio.timeout(5), server, line(unused, url, tls=tls) as made:
        first = await made.ask()

        assert (first.status, first.body, first.is_whole) == (200, b"unframed", says_so)
        assert first.cause is (None if says_so else Cause.ANSWER_INCOMPLETE)
        assert made.pool["open"] == 0
