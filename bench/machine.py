"""What a figure was measured on and with."""

import platform
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.processes import LOAD_CORE, SUBJECT_CORE
from bench.subjects import ROOT, SUBJECTS, version_of

_BUILD_OPTIONS = ("--enable-optimizations", "--with-lto", "--enable-shared")
_LIBRARIES = ("uvloop", "httptools", "h11", "httpx", "starlette", "limits")


def describe(command: str) -> list[str]:
    """Markdown lines: date, command, machine, source and every version that takes part."""
    cores = f"server under test on core {SUBJECT_CORE}, load and backend on core {LOAD_CORE}"
    return [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, command: `{command}`, source: {_source()}",
        f"- machine: {_cpu_model()}, {_core_count()} cores, Linux {platform.release()}; {cores}",
        f"- {python_build()}, wrk {_first_number(['wrk', '-v'])}, " + _library_versions(),
        "- peers: " + _peer_versions(),
    ]


def python_build() -> str:
    """Return the interpreter's version and those ways of its build that tell in its speed."""
    said = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    used = "".join(f" {option}" for option in _BUILD_OPTIONS if option in said)
    return f"Python {platform.python_version()} (configure{used or ' without options for speed'})"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _core_count() -> int:
    return Path("/proc/cpuinfo").read_text().count("processor\t")


def _source() -> str:
    argv = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def _first_number(argv: list[str]) -> str:
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    words = (said.stdout + said.stderr).split()
    return next((word for word in words if any(character.isdigit() for character in word)), "unknown")


def _library_versions() -> str:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} is not installed", file=sys.stderr)
    return ", ".join(found)


def _peer_versions() -> str:
    programs = {subject.program: subject for subject in SUBJECTS if subject.program != "gateway"}
    return ", ".join(f"{program} {version_of(subject)}" for program, subject in programs.items())
