"""PostgreSQL behind the relay, asked by its own client; skipped where no server is installed."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROWS = 400_000  # 35 MB each way: enough to be bulk
USER = "nobody" if os.geteuid() == 0 else None  # PostgreSQL does not run as root


def program(name: str) -> str:
    """Find a program of PostgreSQL's; Debian keeps the server's out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)]))
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return found


@pytest.fixture(scope="module")
def postgres(new_port: Callable[[], int]) -> Iterator[str]:
    """A server of its own on a free port; its address."""
    initdb, server = program("initdb"), program("postgres")
    port = new_port()
    folder = Path(tempfile.mkdtemp(prefix="l4relay-postgres-"))  # pytest's own are closed to other users
    if USER is not None:
        shutil.chown(folder, USER)
    files = folder / "data"
    options = ("fsync=off", f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1")
    try:
        subprocess.run(
            [initdb, "-D", files, "-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"],
            check=True,
            cwd=folder,
            user=USER,
            capture_output=True,
        )
        with subprocess.Popen(
            [server, "-D", files, "-p", str(port), *(f"-c{option}" for option in options)],
            cwd=folder,
            user=USER,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if b"ready to accept connections" in line:
                    break
            yield f"127.0.0.1:{port}"
            process.send_signal(signal.SIGINT)  # a fast shutdown
            process.communicate()
    finally:
        shutil.rmtree(folder)


async def psql(port: int, command: str, given: bytes = b"") -> bytes:
    process = await start_psql(port, command)
    answer, said = await asyncio.wait_for(process.communicate(given), 30)
    assert process.returncode == 0, said
    return answer


async def start_psql(port: int, command: str) -> asyncio.subprocess.Process:
    where = ("-h", "127.0.0.1", "-p", str(port), "-U", "test", "-d", "postgres")
    return await asyncio.create_subprocess_exec(
        *(program("psql"), *where, "-XAtq", "-c", command), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


async def test_queries_and_copies(start_relay: Any, postgres: str) -> None:
    """Many small exchanges, then a table in and out again in bulk, the same on both sides."""
    relay = await start_relay(endpoints=[postgres], balance="least_connections")
    assert await psql(relay.port, "SELECT 6 * 7") == b"42\n"
    await psql(relay.port, "CREATE TABLE copied (number int, words text)")
    rows = b"".join(b"%d\t%s\n" % (number, b"words " * 14) for number in range(ROWS))
    await psql(relay.port, "COPY copied FROM STDIN", rows)
    copied = await psql(relay.port, "COPY copied TO STDOUT")
    assert hashlib.sha256(copied).digest() == hashlib.sha256(rows).digest()
    sums = await asyncio.gather(*[psql(relay.port, "SELECT count(*) FROM copied") for _ in range(8)])
    assert sums == [b"%d\n" % ROWS] * 8
    lines = await relay.ended(12)
    # psql says that it ends, and closes: either end may be the first to close.
    assert {line["end"] for line in lines} <= {"client_closed", "endpoint_closed"}


async def test_a_query_is_cancelled_over_a_connection_of_its_own(start_relay: Any, postgres: str) -> None:
    relay = await start_relay(endpoints=[postgres])
    process = await start_psql(relay.port, "SELECT pg_sleep(60)")
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    while await psql(relay.port, running) != b"1\n":
        continue
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.wait_for(process.communicate(), 10)
    assert b"canceling statement due to user request" in said


async def test_the_next_server_answers_where_one_is_gone(
    start_relay: Any, postgres: str, refused_address: str
) -> None:
    relay = await start_relay(endpoints=[refused_address, postgres])
    answers = [await psql(relay.port, "SELECT 1") for _ in range(3)]
    assert answers == [b"1\n"] * 3
    assert max(line.get("attempts", 1) for line in await relay.ended(3)) == 2
