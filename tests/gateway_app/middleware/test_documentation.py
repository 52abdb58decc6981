"""What the documentation says about middlewares is so: its example runs, its excerpts load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_app.config.load import load_text
from gateway_app.middleware import reference, registry

DOCS = Path(__file__).parents[3] / "docs"
NAMED_BLOCK = re.compile(r"^```\w+\n# ([\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def with_a_route(middlewares: str) -> str:
    names = re.findall(r"^\[middleware\.([\w-]+)\]", middlewares, re.MULTILINE)
    return f"""{middlewares}
[[routes]]
name = "all"
match = {{ path = "/all/{{id}}" }}
middleware = {names}
backend = "one"

[backends.one]
endpoints = ["http://127.0.0.1:9"]
"""


def test_the_example_of_the_guide_passes_its_own_tests(tmp_path: Path) -> None:
    for name, text in NAMED_BLOCK.findall((DOCS / "middleware.md").read_text()):
        (tmp_path / name).write_text(text)

    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert sorted(file.name for file in tmp_path.glob("*.*")) == [
        "api_key.py",
        "routes.toml",
        "shop.py",
        "test_api_key.py",
    ]
    assert "2 passed" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_excerpt_of_each_built_in_loads(name: str) -> None:
    config = load_text(with_a_route(reference.example(name)))

    assert {table.type for table in config.middleware.values()} == {name}


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_each_option_is_described_and_nothing_else_is(name: str) -> None:
    signature = registry.signature_of(registry.resolve(name))

    assert list(reference.documented_options(name)) == list(signature.options)


def test_the_reference_is_what_the_docstrings_say() -> None:
    text = (DOCS / "middleware-reference.md").read_text()

    assert text == reference.render(), "run: python -m gateway_app.middleware.reference > docs/…"


def test_every_excerpt_of_the_reference_loads() -> None:
    excerpts = TOML_BLOCK.findall((DOCS / "middleware-reference.md").read_text())

    assert load_text(with_a_route("\n".join(excerpts))).middleware
