"""docs/relay.md says what is true."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from l4relay.config.load import parse
from l4relay.config.model import HealthConfig, OutlierConfig, ProcessConfig, RelayConfig

GUIDE = (Path(__file__).parents[2] / "docs/relay.md").read_text()
EXCERPTS = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_each_excerpt_is_valid(excerpt: str) -> None:
    relay = '[[relay]]\nname = "x"\nlisten = "127.0.0.1:1"\nendpoints = ["127.0.0.1:2"]\n'
    parse(excerpt if "[[relay]]" in excerpt else excerpt + relay, "docs/relay.md")


def test_every_key_has_its_place_in_the_reference() -> None:
    listed = set(re.findall(r"`([a-z_.]+)`", "\n".join(re.findall(r"^\| `.*", GUIDE, re.MULTILINE))))
    keys = {field.name for model in (RelayConfig, ProcessConfig) for field in fields(model)}
    keys |= {f"health.{field.name}" for field in fields(HealthConfig)}
    keys |= {f"outlier.{field.name}" for field in fields(OutlierConfig)}
    assert keys - {"health", "outlier", "sni"} <= listed
