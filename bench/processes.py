"""Start servers pinned to a core, and read what their whole process trees cost.

CPU time is the kernel's own account of each process (every thread, also those that ended) in
nanoseconds, read through its POSIX CPU clock: `/proc/PID/stat` has the same sum in ticks of 10 ms,
too coarse for windows of a second.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CORES = sorted(os.sched_getaffinity(0))
SUBJECT_CORE = _CORES[0]
"""Where the server under test runs, alone."""
LOAD_CORE = _CORES[-1]
"""Where the load generator and the backend run."""


class DoesNotStartError(Exception):
    """The server ended, or did not listen in time; the message is the last line that it wrote."""


class Process:
    """A server and all its children, pinned to `core`, its output kept in `log`.

    The process leads a session of its own, so that `stop` reaches the children of its master too.
    """

    def __init__(
        self, argv: Sequence[str], *, core: int, log: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )

    def wait_until_listening(self, port: int, timeout_s: float = 20) -> None:
        """Return when `port` of loopback accepts; raise DoesNotStartError if the server ends or is late."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise DoesNotStartError(self.last_line())

    def last_line(self) -> str:
        """Return the last thing that the server said."""
        lines = [line.strip(" │╭╰─╯╮") for line in self._log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "(no output)")

    def tree(self) -> list[int]:
        """Return the ids of the server's process and of all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (parent := _parent_of(int(entry))) is not None:
                children.setdefault(parent, []).append(int(entry))
        found, pending = [], [self._process.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += children.get(pid, [])
        return found

    def cpu_s(self) -> float:
        """Return the CPU seconds, user and system, that the tree has used so far."""
        return sum(_cpu_s(pid) for pid in self.tree())

    def rss_bytes(self) -> int:
        """Return the resident memory of the tree; pages that several processes share count once for each."""
        return sum(_rss_bytes(pid) for pid in self.tree())

    def pause(self) -> None:
        """Stop the whole tree until `resume`: what a server does by itself would disturb the one measured."""
        self._signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the tree go on."""
        self._signal_tree(signal.SIGCONT)

    def _signal_tree(self, number: int) -> None:
        for pid in self.tree():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, timeout_s: float = 5) -> None:
        """End the whole session: asked first, forced after `timeout_s`."""
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def core_busy_s(core: int) -> float:
    """Return the seconds since boot that a core was not idle, those the hypervisor stole included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    raise LookupError(f"/proc/stat has no cpu{core}")


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    return int(stat.rpartition(")")[2].split()[1])


def _cpu_s(pid: int) -> float:
    # linux/posix-timers.h: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
