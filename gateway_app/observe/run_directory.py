"""The directory that the workers of one gateway share, and how to tell which of its processes still live.

Workers are started by servers that know nothing of us, so they find each other by the process that started
them: `GATEWAY_RUN_DIR` where it is set (`gateway serve` does), else a directory named after the parent for a
worker that multiprocessing started (hypercorn, granian and uvicorn do), else one of this process's own.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

VARIABLE: Final = "GATEWAY_RUN_DIR"

_STATE_FIELD: Final = 0
_START_TIME_FIELD: Final = 19  # proc_pid_stat(5): the 22nd; counted here from the state, the 3rd
_DEAD_STATES: Final = frozenset("ZX")


class ProcessIdentity(NamedTuple):
    """A process id with the process's start (clock ticks since boot), since ids are used again."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of a running process, None if there is none. Without /proc, `start` is 0."""
        fields = stat_fields(pid)
        if fields is not None:
            is_dead = fields[_STATE_FIELD] in _DEAD_STATES
            return None if is_dead else cls(pid, int(fields[_START_TIME_FIELD]))
        return cls(pid, 0) if not Path("/proc/self").exists() and _answers_signals(pid) else None

    @classmethod
    def of_self(cls) -> ProcessIdentity:
        """Return this process's identity."""
        pid = os.getpid()
        return cls.of(pid) or cls(pid, 0)

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """Return what `str` wrote; None for any other text."""
        pid, separator, start = text.partition("-")
        is_identity = separator and pid.isdecimal() and start.isdecimal()
        return cls(int(pid), int(start)) if is_identity else None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return ProcessIdentity.of(self.pid) == self

    def __str__(self) -> str:
        return f"{self.pid}-{self.start}"


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None if there is none, or no /proc."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return None
    return line[line.rindex(")") + 2 :].split()  # the name in parentheses may hold blanks and parentheses


def run_directory() -> Path:
    """Return the directory of the gateway that this process belongs to, made if need be.

    Directories of gateways that have ended are removed.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.

    """
    if configured := os.environ.get(VARIABLE):
        return _private(Path(configured))
    root = _root()
    remove_ended(root)
    parent = multiprocessing.parent_process()
    owner = ProcessIdentity.of(parent.pid) if parent is not None and parent.pid is not None else None
    return _private(root / str(owner or ProcessIdentity.of_self()))


def create_run_directory() -> Path:
    """Return a new directory for a gateway whose workers this process starts; the caller removes it."""
    root = _root()
    remove_ended(root)
    return _private(root / str(ProcessIdentity.of_self()))


def remove_ended(root: Path) -> None:
    """Remove the directories below `root` whose owners have ended."""
    for directory in root.iterdir():
        owner = ProcessIdentity.parse(directory.name)
        if owner is not None and not owner.is_running:
            shutil.rmtree(directory, ignore_errors=True)


def _root() -> Path:
    """Return the directory that holds those of all gateways of this user, in memory where possible.

    Process ids mean something within their namespace only, so each namespace has its own.
    """
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108 -- checked in _private
        if candidate and os.access(candidate, os.W_OK | os.X_OK):
            parent = Path(candidate)
            break
    else:
        parent = Path(tempfile.gettempdir())
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return _private(parent / f"l47-gateway-{os.getuid()}-{namespace}")


def _private(directory: Path) -> Path:
    """Make a directory that only this user can enter; another's, waiting there under its name, is refused."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory} must be a directory that only this user can write to")
    return directory


def _answers_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
