"""docs/configuration.md says what the model says: every key, its default and its meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway_app.config import backends, model
from gateway_app.config.load import load_text

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"

SECTIONS: dict[str, type[BaseModel]] = {
    "[gateway]": model.Settings,
    "[admin]": model.AdminConfig,
    "[state]": model.StateConfig,
    "[backends.NAME]": backends.BackendConfig,
    "endpoints": backends.EndpointConfig,
    "[backends.NAME.timeout]": backends.TimeoutConfig,
    "[backends.NAME.retry]": backends.RetryConfig,
    "[backends.NAME.health]": backends.HealthConfig,
    "[backends.NAME.outlier]": backends.OutlierConfig,
    "[backends.NAME.tls]": backends.BackendTlsConfig,
    "[[routes]]": model.RouteConfig,
    "match": model.MatchConfig,
    "[[test]]": model.TestConfig,
    "request": model.TestRequestConfig,
    "expect": model.TestExpectConfig,
}


def section(title: str) -> str:
    """The text below the heading that names `title`."""
    parts = re.split(r"^#+ (.*)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    return next(text for heading, text in texts.items() if f"`{title}`" in heading)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented_as_the_model_has_it(title: str) -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \|.*\| (.*) \|$", section(title), flags=re.MULTILINE))
    fields = {field.alias or name: field for name, field in SECTIONS[title].model_fields.items()}
    assert rows == {name: field.description for name, field in fields.items()}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_default_is_what_the_model_takes(title: str) -> None:
    """The defaults of the document, given as values, make the table that an empty one makes."""
    rows = re.findall(
        r"^\| `([a-z_]+)` \|(?:[^|\\]|\\\|)*\| `([^|]*)` \|", section(title), flags=re.MULTILINE
    )
    table = SECTIONS[title]
    fields = {field.alias or name: field for name, field in table.model_fields.items()}
    documented = {name for name, _ in rows}
    simple = {
        name
        for name, field in fields.items()
        if not field.is_required()
        and field.default not in (None, (), {})
        and not isinstance(field.default, BaseModel)
    }
    assert documented == simple
    for name, value in rows:
        text = f'{{"{name}": {value}}}'
        needed = {"endpoints": '["http://h"]', "path": '"/"', "url": '"http://h"', "name": '"n"'}
        others = "".join(
            f', "{key}": {needed[key]}'
            for key, field in fields.items()
            if field.is_required() and key in needed
        )
        made = table.model_validate_json(f"{text[:-1]}{others}}}", by_alias=True)
        attribute = next(
            attribute for attribute, field in table.model_fields.items() if field is fields[name]
        )
        assert getattr(made, attribute) == fields[name].default


def test_the_examples_are_accepted() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    load_text("\n".join(blocks))
