"""The admin listener's socket, shared by the workers of one gateway and nobody else.

Every worker listens on the same address (SO_REUSEPORT), so that an answer needs no process of its own and
comes as long as any worker lives. SO_REUSEPORT would let another gateway of the same user in too; therefore
the first worker makes sure, before it listens, that nobody else does. A Unix socket cannot be shared in this
way: one worker listens, and the next to start takes its place when it has ended.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from gateway_app.observe.run_directory import ProcessIdentity
from l4relay.addresses import InetAddress, parse_listen_address

_SUFFIX = ".admin"


def open_listener(listen: str, directory: Path, worker: str) -> socket.socket | None:
    """Return the listening socket of this worker; None if another one listens for all.

    Args:
        listen: where, as in routes.toml.
        directory: the workers' common one.
        worker: the name of this worker's files in it.

    Raises:
        OSError: the address cannot be had; the message says which, and why.
        ValueError: `listen` is no address.

    """
    address = parse_listen_address(listen).address
    lock = os.open(directory / "admin.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_first = not _listening(directory)
        if isinstance(address, InetAddress):
            listener: socket.socket | None = _open_inet(address, is_first)
        else:
            listener = _open_unix(address.path) if is_first else None
        if listener is not None:
            (directory / f"{worker}{_SUFFIX}").touch()
        return listener
    except OSError as error:
        raise OSError(error.errno, f"the admin listener cannot use {listen}: {_reason(error)}") from error
    finally:
        os.close(lock)


def check_listener(listen: str, directory: Path) -> None:
    """Make sure that the workers to come can have the address.

    Raises:
        OSError: it cannot be had; the message says which, and why.
        ValueError: `listen` is no address.

    """
    nobody = "start"
    try:
        listener = open_listener(listen, directory, nobody)
    finally:
        forget_listener(directory, nobody)
    if listener is not None:
        with listener:
            if isinstance(path := listener.getsockname(), str):
                os.unlink(path)


def forget_listener(directory: Path, worker: str) -> None:
    """Note that this worker listens no more."""
    (directory / f"{worker}{_SUFFIX}").unlink(missing_ok=True)


def is_local(listen: str) -> bool:
    """Whether only this machine can reach the address."""
    address = parse_listen_address(listen).address
    if not isinstance(address, InetAddress) or address.host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(address.host).is_loopback
    return False


def _listening(directory: Path) -> bool:
    """Whether a worker that lives has noted that it listens."""
    is_listening = False
    for path in directory.glob(f"*{_SUFFIX}"):
        process = ProcessIdentity.parse(path.name.partition(".")[0])
        if process is not None and process.is_running:
            is_listening = True
        else:
            path.unlink(missing_ok=True)
    return is_listening


def _open_inet(address: InetAddress, is_first: bool) -> socket.socket:
    family, kind, _, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if is_first and address.port:
        with socket.socket(family, kind) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(target)
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(target)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _open_unix(path: str) -> socket.socket:
    """Listen at `path` for this user alone; what a process that has ended left there is removed."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _answers(path):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there"
    return error.strerror or str(error)
