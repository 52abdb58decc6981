"""docs/routing.md says what happens: its example passes its own tests, its table is what targets become."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

from gateway_app.config.load import load_text
from gateway_app.expectations import failed_expectations
from gateway_app.problem import GatewayError
from gateway_app.routing.target import TargetReader

TEXT = (Path(__file__).parents[3] / "docs" / "routing.md").read_text()
EXAMPLE = "\n".join(re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
ROWS = re.findall(
    r"^\| (`[^|]*`) \| ([^|]*) \| [^|]*\|$", TEXT.partition("| A client asks for")[2], re.MULTILINE
)
CASES = [
    (target, outcome.strip("`"))
    for targets, outcomes in ROWS
    for target, outcome in zip_longest(
        re.findall("`([^`]*)`", targets),
        outcomes.split(", "),
        fillvalue=outcomes.split(", ")[0],
    )
]


async def test_the_example_passes_its_tests() -> None:
    config = load_text(EXAMPLE)
    assert len(config.tests) == 3
    assert not await failed_expectations(config)


@pytest.mark.parametrize(("target", "outcome"), CASES)
def test_a_target_becomes_what_the_table_says(target: str, outcome: str) -> None:
    if outcome.isdigit():
        with pytest.raises(GatewayError) as refused:
            TargetReader().read("GET", target.encode(), b"")
        assert refused.value.cause.status == int(outcome)
    else:
        assert TargetReader().read("GET", target.encode(), b"").raw_path == outcome.encode()


def test_the_table_is_read_whole() -> None:
    assert len(CASES) > 18


def test_explain_prints_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text(EXAMPLE)
    ((command, shown),) = re.findall(
        r"^```console\n\$ gateway (.*?)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL
    )
    ran = subprocess.run(
        [sys.executable, "-m", "gateway_app", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    printed = ran.stdout.splitlines()
    assert [line for line in shown.splitlines() if line.strip() != "..." and line not in printed] == []
