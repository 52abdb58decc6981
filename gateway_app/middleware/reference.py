"""The reference of the built-in middlewares, from their docstrings: `docs/middleware-reference.md`.

`python -m gateway_app.middleware.reference > docs/middleware-reference.md` writes it anew; a test compares.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Final

from gateway_app.middleware.registry import BUILT_IN, REQUIRED, resolve, signature_of

_TITLE: Final = """# The built-in middlewares

Each is named in `[middleware.NAME]` with its `type` and options, and used by that name in `[gateway]` or in a
route. Any other ASGI middleware is named by its class, with its keyword arguments as options:

```toml
[middleware.browsers]
type = "starlette.middleware.cors:CORSMiddleware"
allow_origins = ["https://app.example.com"]
allow_methods = ["GET", "PUT"]

[middleware.own-hosts]
type = "starlette.middleware.trustedhost:TrustedHostMiddleware"
allowed_hosts = ["*.example.com"]
```

How to write one: [middleware.md](middleware.md).
"""

_OPTION: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def render() -> str:
    """Return the reference as Markdown."""
    return "\n".join([_TITLE, *(_section(name) for name in BUILT_IN)])


def documented_options(name: str) -> dict[str, str]:
    """Return the description of each option in the docstring of the built-in `name`."""
    options = _parts(name)[1]
    return {option: " ".join(text.split()) for option, text in _OPTION.findall(options)}


def example(name: str) -> str:
    """Return the excerpt of `routes.toml` in the docstring of the built-in `name`."""
    return _parts(name)[2]


def _section(name: str) -> str:
    text, _, excerpt = _parts(name)
    options = signature_of(resolve(name)).options
    lines = [f"## {name}", "", text, ""]
    for option, description in documented_options(name).items():
        default = options[option].default
        if default is REQUIRED:
            note = "required"
        elif default in (None, "", ()):
            note = "optional"
        else:
            note = f"default `{json.dumps(default)}`"
        lines.append(f"- `{option}` ({note}): {description}")
    return "\n".join([*lines, "", "```toml", excerpt, "```", ""])


def _parts(name: str) -> tuple[str, str, str]:
    """Return text, options and example of a class docstring."""
    docstring = inspect.getdoc(resolve(name)) or ""
    text, _, rest = docstring.partition("\n\nOptions:\n")
    options, _, excerpt = rest.partition("\n\nExample:\n")
    return (
        text,
        options,
        inspect.cleandoc(excerpt.strip()).removeprefix("```toml").removesuffix("```").strip(),
    )


if __name__ == "__main__":
    print(render(), end="")
