"""The relays under test: how each is configured and started."""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.processes import SUBJECT_CORE, Process

ROOT = Path(__file__).parents[2]
_NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
TCP_PARTS = ("exchanges", "bulk", "connections")
_PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light libnginx-mod-stream"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A relay.

    Attributes:
        program: What has to be installed.
        configure: Makes the configuration's text from the relay's port and the server's.
        command: Makes the command from the configuration's path.
        parts: The workloads that it takes part in.

    """

    name: str
    title: str
    program: str
    configure: Callable[[int, int], str]
    command: Callable[[Path], Sequence[str]]
    parts: Sequence[str] = (*TCP_PARTS, "datagrams")


def _l4relay(port: int, server_port: int) -> str:
    return f"""\
[l4relay]
log = "off"
drain = "100ms"

[[relay]]
name = "tcp"
listen = "tcp://127.0.0.1:{port}"
endpoints = ["127.0.0.1:{server_port}"]

[[relay]]
name = "udp"
listen = "udp://127.0.0.1:{port}"
endpoints = ["127.0.0.1:{server_port}"]
max_sessions = 20000
"""


def _haproxy(options: str) -> Callable[[int, int], str]:
    def configure(port: int, server_port: int) -> str:
        return f"""\
global
    nbthread 1
    maxconn 9500
    maxpipes 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 350s
    timeout server 350s
    {options}
listen relay
    bind 127.0.0.1:{port}
    server service 127.0.0.1:{server_port}
"""

    return configure


def _nginx(port: int, server_port: int) -> str:
    module = f"load_module {_NGINX_MODULE};" if _NGINX_MODULE.exists() else ""
    return f"""\
{module}
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid nginx-{port}.pid;
error_log stderr crit;
events {{ worker_connections 40000; }}  # a UDP session takes two
stream {{
    access_log off;
    proxy_timeout 350s;
    server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server_port}; }}
    server {{ listen 127.0.0.1:{port} udp; proxy_pass 127.0.0.1:{server_port}; }}
}}
"""


def _nginx_command(path: Path) -> Sequence[str]:
    return ["nginx", "-p", str(path.parent), "-e", "stderr", "-c", str(path)]


def _haproxy_command(path: Path) -> Sequence[str]:
    return ["haproxy", "-db", "-f", str(path)]


RELAY = Subject(
    "l4relay", "l4relay", sys.executable, _l4relay, lambda path: [sys.executable, "-m", "l4relay", str(path)]
)
SUBJECTS = (
    RELAY,
    Subject(
        "bare",
        "bare uvloop relay (bytes only)",
        sys.executable,
        lambda port, server_port: f"{port} {server_port}",
        lambda path: [sys.executable, "bench/l4/bare_relay.py", *path.read_text().split()],
        parts=("exchanges",),
    ),
    Subject("haproxy", "HAProxy", "haproxy", _haproxy(""), _haproxy_command, parts=TCP_PARTS),
    Subject(
        "haproxy-splice",
        "HAProxy, splice-auto",
        "haproxy",
        _haproxy("option splice-auto"),
        _haproxy_command,
        parts=TCP_PARTS,
    ),
    Subject("nginx", "nginx stream", "nginx", _nginx, _nginx_command),
)


class RunningSubject:
    """A relay in a process of its own on the subject's core; `stop` ends it."""

    def __init__(self, subject: Subject, server_port: int, directory: Path) -> None:
        self.subject = subject
        self.port = free_port()
        path = directory / f"{subject.name}-{self.port}.conf"
        path.write_text(subject.configure(self.port, server_port))
        self.process = Process(
            subject.command(path), core=SUBJECT_CORE, log=path.with_suffix(".log"), env={}, cwd=ROOT
        )
        try:
            self.process.wait_until_listening(self.port)
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> None:
        """End the relay's processes."""
        self.process.stop()


def free_port() -> int:
    """Return a port of loopback that is free for TCP and UDP.

    From below the ephemeral range, so that the load's own many ports do not take it before the relay does.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with (
            socket.socket() as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            suppress(OSError),
        ):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


def install_missing() -> dict[str, str]:
    """Install the peers from Debian where that is possible; return those that are not there, and why."""
    missing: dict[str, str] = {}
    for program, packages in _PACKAGES.items():
        if _is_there(program):
            continue
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            missing[program] = "not installed, and only root with apt-get can install it here"
            continue
        argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages.split()]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=False)
        if not _is_there(program):
            missing[program] = f"not installed: apt-get has no {packages}"
    return missing


def _is_there(program: str) -> bool:
    if shutil.which(program) is None:
        return False
    if program != "nginx" or _NGINX_MODULE.exists():
        return True
    said = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False).stderr
    return "--with-stream " in said


def version_of(program: str) -> str:
    """Return a peer's version as it gives it."""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    words = (said.stdout + said.stderr).replace("nginx/", "").split()
    return next((word for word in words if word[0].isdigit()), "unknown")
