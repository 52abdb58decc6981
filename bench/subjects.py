"""Who is compared: one entry each, with how it is started on one core and how its version is asked.

In a subject's configuration and arguments these are filled in when it starts: @port@ (where it is
to listen), @admin@ (a second free port), @backend@ (the backend's port), @config@ (its rendered
configuration) and @directory@ (for its scratch files).
"""

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from bench.backend import LARGE_BYTES, SMALL_BYTES
from bench.processes import SUBJECT_CORE, DoesNotStartError, Process, free_port

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
_PATIENCE_S = 5.0
_ENVIRONMENT_BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Subject:
    """A server to measure."""

    name: str
    """For --only."""
    title: str
    """For the table."""
    program: str
    arguments: tuple[str, ...]
    configs: tuple[str, ...] = ()
    """Files of this directory to render; the first is @config@."""
    env: dict[str, str] = field(default_factory=dict)
    version: tuple[str, ...] = ("--version",)
    remarks: str = ""

    def path(self) -> str | None:
        """Return the program's file, from this virtual environment or from PATH, or None."""
        own = _ENVIRONMENT_BIN / self.program
        return str(own) if own.exists() else shutil.which(self.program)


class RunningSubject:
    """A started subject. Raises DoesNotStartError when it does not come to answer rightly."""

    def __init__(self, subject: Subject, backend_port: int, directory: Path) -> None:
        self.subject = subject
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        scratch = directory / subject.name
        scratch.mkdir(exist_ok=True)
        values = {
            "port": str(port),
            "admin": str(free_port()),
            "backend": str(backend_port),
            "directory": str(scratch),
        }
        for name in reversed(subject.configs):
            rendered = scratch / Path(name).name
            rendered.write_text(_fill((BENCH / name).read_text(), values))
            values["config"] = str(rendered)
        program = subject.path()
        assert program is not None, f"{subject.name} is not installed"
        self.process = Process(
            [program, *(_fill(argument, values) for argument in subject.arguments)],
            core=SUBJECT_CORE,
            log=scratch / "output.log",
            env={name: _fill(value, values) for name, value in subject.env.items()},
            cwd=scratch,
        )
        try:
            self.process.wait_until_listening(port)
            self.check()
        except BaseException:
            self.process.stop()
            raise

    def check(self) -> None:
        """Ask for each body; raise DoesNotStartError where the answer does not become the backend's.

        Traefik listens before it has read its routes, hence the patience.
        """
        deadline = time.monotonic() + _PATIENCE_S
        for path, expected in (("/small", SMALL_BYTES), ("/large", LARGE_BYTES)):
            while (complaint := self._complaint(path, expected)) is not None:
                if time.monotonic() > deadline:
                    raise DoesNotStartError(f"GET {path}: {complaint}; {self.process.last_line()}")
                time.sleep(0.05)

    def _complaint(self, path: str, expected_bytes: int) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                length = len(answer.read())
        except (OSError, HTTPException) as error:
            return str(error)
        return None if length == expected_bytes else f"{length} bytes instead of {expected_bytes}"

    def stop(self) -> None:
        """End the subject."""
        self.process.stop()


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@([a-z]+)@", lambda found: values[found[1]], text)


def version_of(subject: Subject) -> str:
    """Return the version of the package, else what the program tells of itself, or "not installed"."""
    program = subject.path()
    if program is None:
        return "not installed"
    with suppress(PackageNotFoundError):
        return metadata.version(subject.program)
    try:
        said = subprocess.run(
            [program, *subject.version], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    found = re.search(r"\d+\.\d+(\.\d+)?", _without_hashes(said.stdout + said.stderr))
    return found[0] if found else "unknown"


def _without_hashes(text: str) -> str:
    """Envoy puts a commit hash before its version, and its digits would be taken for one."""
    return re.sub(r"\b[0-9a-f]{40}\b", "", text)


_SCRATCH_HOME = {"HOME": "@directory@", "XDG_CONFIG_HOME": "@directory@", "XDG_DATA_HOME": "@directory@"}
_ONE_GO_THREAD = {"GOMAXPROCS": "1"}
_APPS = {"PYTHONPATH": str(ROOT)}
_GRANIAN = ("--interface", "asgi", "--loop", "uvloop", "--no-log", "--port", "@port@")
_HYPERCORN = ("-b", "127.0.0.1:@port@", "--log-level", "WARNING")
_PLAIN, _FILTERED = "configs/gateway.toml", "configs/gateway-filtered.toml"


def _gateway(name: str, title: str, config: str, server: str) -> Subject:
    serve = ("serve", "--config", "@config@", "--server", server)
    return Subject(name, title, "gateway", serve, configs=(config,), env=_APPS, version=("version",))


SUBJECTS: Sequence[Subject] = (
    _gateway("gateway-granian", "gateway on granian", _PLAIN, "granian"),
    _gateway(
        "gateway-granian-filtered", "gateway on granian, header_filter + rate_limit", _FILTERED, "granian"
    ),
    _gateway("gateway-hypercorn", "gateway on hypercorn", _PLAIN, "hypercorn"),
    _gateway(
        "gateway-hypercorn-filtered",
        "gateway on hypercorn, header_filter + rate_limit",
        _FILTERED,
        "hypercorn",
    ),
    Subject(
        "gateway-hypercorn-command",
        "gateway, served by the hypercorn command",
        "hypercorn",
        (*_HYPERCORN, "-k", "uvloop", "-c", "@config@", "gateway_app:app"),
        configs=("peers/hypercorn.toml", _PLAIN),
        env={**_APPS, "GATEWAY_CONFIG": "@directory@/gateway.toml"},
        remarks="uvloop, keep_alive_max_requests raised; `gateway serve` has cheaper idle connections",
    ),
    Subject(
        "granian", "granian hello world (no proxy)", "granian", (*_GRANIAN, "bench.apps.hello:app"), env=_APPS
    ),
    Subject(
        "hypercorn",
        "hypercorn hello world (no proxy)",
        "hypercorn",
        (*_HYPERCORN, "-k", "uvloop", "-c", "@config@", "bench.apps.hello:app"),
        configs=("peers/hypercorn.toml",),
        env=_APPS,
        remarks="uvloop, keep_alive_max_requests raised",
    ),
    Subject(
        "hypercorn-default",
        "hypercorn hello world, its defaults (no proxy)",
        "hypercorn",
        (*_HYPERCORN, "bench.apps.hello:app"),
        env=_APPS,
        remarks="asyncio's loop, a connection closes after 1,000 requests",
    ),
    Subject(
        "nginx",
        "nginx",
        "nginx",
        ("-e", "/dev/null", "-c", "@config@"),
        configs=("peers/nginx.conf",),
        version=("-v",),
        remarks="worker_processes 1",
    ),
    Subject(
        "haproxy",
        "HAProxy",
        "haproxy",
        ("-q", "-db", "-f", "@config@"),
        configs=("peers/haproxy.cfg",),
        version=("-v",),
        remarks="nbthread 1",
    ),
    Subject(
        "envoy",
        "Envoy",
        "envoy",
        ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "@config@"),
        configs=("peers/envoy.yaml",),
        remarks="--concurrency 1",
    ),
    Subject(
        "caddy",
        "Caddy",
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "@config@"),
        configs=("peers/Caddyfile",),
        env={**_ONE_GO_THREAD, **_SCRATCH_HOME},
        version=("version",),
        remarks="GOMAXPROCS=1",
    ),
    Subject(
        "traefik",
        "Traefik",
        "traefik",
        ("--configFile=@config@",),
        configs=("peers/traefik.yaml", "peers/traefik-routes.yaml"),
        env={**_ONE_GO_THREAD, **_SCRATCH_HOME},
        version=("version",),
        remarks="GOMAXPROCS=1",
    ),
    Subject(
        "starlette-httpx",
        "Starlette + httpx on uvicorn",
        "uvicorn",
        ("--port", "@port@", "--no-access-log", "--log-level", "warning", "bench.apps.httpx_proxy:app"),
        env={**_APPS, "BENCH_BACKEND": "http://127.0.0.1:@backend@"},
        remarks="the usual way",
    ),
)
