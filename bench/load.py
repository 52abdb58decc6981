"""Drive a server with wrk: plain keep-alive HTTP/1.1, one thread, no pipelining."""

import re
import subprocess
from dataclasses import dataclass

from bench.processes import LOAD_CORE, SUBJECT_CORE, Process, core_busy_s

CONNECTIONS = 32
_WARM_UP_S = 1.0
"""Before each window: a server that has idled while others were measured has lost its pages and caches."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one window of load measured."""

    cpu_us_per_request: float
    requests_per_s: float
    core_busy: float
    """Share of the window that the server kept its core busy; well below 1, the load was the limit
    or other processes took the core."""
    core_taken: float
    """Share of the window that other processes, or the hypervisor, took of the server's core."""
    errors: str
    """wrk's own words about answers that were not 2xx/3xx and sockets that failed; empty when none."""


def drive(url: str, duration_s: float) -> tuple[int, float, str]:
    """Load `url` for `duration_s`; returns (requests answered, requests per second, errors)."""
    # wrk takes whole seconds only; a longer duration that `timeout` cuts short still prints its totals.
    argv = ["taskset", "-c", str(LOAD_CORE), "timeout", "-s", "INT", f"{duration_s:.2f}"]
    argv += ["wrk", "-t1", f"-c{CONNECTIONS}", "-d600s", "--timeout", "10s", url]
    output = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    total = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if total is None or rate is None:
        return 0, 0.0, "wrk gave no result"
    errors = "; ".join(line.strip() for line in re.findall(r"(?:Socket errors|Non-2xx).*", output))
    return int(total[1]), float(rate[1]), errors


def measure(server: Process, url: str, duration_s: float) -> Sample:
    """Load `url` for `duration_s` and set the CPU that `server` used against the requests it answered."""
    drive(url, _WARM_UP_S)
    before_s, core_before_s = server.cpu_s(), core_busy_s(SUBJECT_CORE)
    requests, rate, errors = drive(url, duration_s)
    used_s = server.cpu_s() - before_s
    taken_s = max(0.0, core_busy_s(SUBJECT_CORE) - core_before_s - used_s)
    if not requests:
        return Sample(
            float("inf"), 0.0, used_s / duration_s, taken_s / duration_s, errors or "no request was answered"
        )
    elapsed_s = requests / rate if rate else duration_s
    return Sample(used_s / requests * 1e6, rate, used_s / elapsed_s, taken_s / elapsed_s, errors)
