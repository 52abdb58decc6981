from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4relay.config.toml_lines import KeyPath, Lines

REFERENCE = Path(__file__).parents[2] / "gateway_app" / "config" / "reference.toml"


def paths_in(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """Every path of a parsed document: what `Lines` must find, no more and no less."""
    found: set[KeyPath] = {path} if path else set()
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for step, inner in items:
        found |= paths_in(inner, (*path, step))
    return found


def value_at(document: object, path: KeyPath) -> object:
    for step in path:
        document = document[step]  # type: ignore[index]
    return document


DOCUMENT = '''\
# a comment with = and [brackets]
top = "a # no comment"
dotted.inner."quoted.key" = 1
[table]  # after a header
list = [  # over lines
  1, "two ] , }",   # with a comment ]
  [3,
   4],
  { a = 5, b.c = [6] },
]
text = """
line = 1
[not.a.header]
quotes at the end"""""
literal = \'\'\'
\\ " \'\'\'
date = 1979-05-27 07:32:00
[[rows]]
x = 1
[rows.sub]
y = 2
[[rows.deep]]
z = 3
[[rows]]
x = 4
[[rows.deep]]
[[rows.deep]]
z = 5
[later.sub]
[later]
q = true
[ spaced . "key" ]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("dotted",), 3),
        (("dotted", "inner", "quoted.key"), 3),
        (("table",), 4),
        (("table", "list"), 5),
        (("table", "list", 0), 6),
        (("table", "list", 1), 6),
        (("table", "list", 2, 1), 8),
        (("table", "list", 3), 9),
        (("table", "list", 3, "b", "c", 0), 9),
        (("table", "text"), 11),
        (("table", "literal"), 15),
        (("table", "date"), 17),
        (("rows",), 18),
        (("rows", 0), 18),
        (("rows", 0, "x"), 19),
        (("rows", 0, "sub", "y"), 21),
        (("rows", 0, "deep", 0, "z"), 23),
        (("rows", 1), 24),
        (("rows", 1, "x"), 25),
        (("rows", 1, "deep", 0), 26),
        (("rows", 1, "deep", 1, "z"), 28),
        (("later", "sub"), 29),
        (("later",), 30),
        (("later", "q"), 31),
        (("spaced", "key"), 32),
    ],
)
def test_line_of(path: KeyPath, line: int) -> None:
    assert Lines(DOCUMENT).of(path) == line


def test_all_paths_of_a_document() -> None:
    assert Lines(DOCUMENT).paths() == paths_in(tomllib.loads(DOCUMENT))


def test_all_paths_of_the_reference_file() -> None:
    text = REFERENCE.read_text()
    assert Lines(text).paths() == paths_in(tomllib.loads(text))


def test_a_missing_key_is_at_its_table() -> None:
    assert Lines(DOCUMENT).of(("rows", 1, "missing", "deeper")) == 24


def test_an_unknown_path_is_at_the_first_line() -> None:
    assert Lines("").of(("nothing",)) == 1


def test_windows_line_ends() -> None:
    assert Lines(DOCUMENT.replace("\n", "\r\n")).of(("later", "q")) == 31


# --- generated documents: each leaf is a number of its own, so that the text itself says on which line it is

keys = st.sampled_from(["a", "b", "c-d", "e_f", "0", "x.y", "sp ace", 'quo"te', "ü"])
booleans = st.booleans()
noise = st.sampled_from(["", " ", "\n", " # ] } , = [\n", "\n\n\t"])
strings = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="'"), max_size=8
)  # may hold every bracket, quote and hash that could lead a scanner astray


class Writer:
    """Writes a random TOML document, form by form, as hypothesis draws them."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.next_leaf = 1000

    def key(self, name: str) -> str:
        bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
        quoted = '"' + name.replace('"', '\\"') + '"'
        literal = f"'{name}'"
        forms = [quoted, literal, name] if bare else [quoted, literal]
        return self.draw(st.sampled_from(forms))

    def leaf(self) -> str:
        self.next_leaf += 1
        return str(self.next_leaf)

    def value(self, depth: int) -> str:
        kinds = ["leaf", "text", "array", "table"] if depth else ["leaf", "text"]
        kind = self.draw(st.sampled_from(kinds))
        if kind == "leaf":
            return self.leaf()
        if kind == "text":
            return self.text()
        if kind == "array":
            count = self.draw(st.integers(0, 3))
            elements = [f"{self.draw(noise)}{self.value(depth - 1)}{self.draw(noise)}" for _ in range(count)]
            comma = "," if elements != [] and self.draw(booleans) else ""
            return f"[{','.join(elements)}{comma}{self.draw(noise)}]"
        names = self.draw(st.lists(keys, unique=True, max_size=3))
        return "{" + ", ".join(f"{self.key(name)} = {self.value(depth - 1)}" for name in names) + "}"

    def text(self) -> str:
        content = self.draw(strings)
        escaped = content.replace("\\", "\\\\").replace('"', '\\"')
        forms = [f'"{escaped}"', f"'{content}'", f'"""\n{escaped}\n"""', f"'''{content}\n]'''", '"""x"""""']
        return self.draw(st.sampled_from(forms))

    def pairs(self) -> str:
        lines = []
        for name in self.draw(st.lists(keys, unique=True, max_size=3)):
            dotted = f".{self.key(self.draw(keys))}" if self.draw(booleans) else ""
            comment = self.draw(st.sampled_from(["", "  # ="]))
            lines.append(f"{self.key(name)}{dotted} = {self.value(2)}{comment}\n")
        return "".join(lines)

    def document(self) -> str:
        parts = [self.pairs()]
        for name in self.draw(st.lists(keys, unique=True, max_size=3)):
            prefix = self.key(f"t{name}" if name.isascii() else name)
            if self.draw(booleans):
                parts.append(f"{self.draw(noise)}\n[{prefix}]\n{self.pairs()}")
                parts.append(f"[ {prefix} . {self.key('inner')} ]\n{self.pairs()}")
            else:
                for _ in range(self.draw(st.integers(1, 3))):
                    parts.append(f"[[{prefix}]]\n{self.pairs()}")
                    parts.extend(
                        f"[[{prefix}.{self.key('rows')}]]\n{self.pairs()}"
                        for _ in range(self.draw(st.integers(0, 2)))
                    )
        return "".join(parts)


@st.composite
def documents(draw: st.DrawFn) -> str:
    return Writer(draw).document()


@given(documents())
@settings(max_examples=100, deadline=None)
def test_finds_every_path_on_its_line(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # two drawn keys that exclude each other
        return
    lines = Lines(text)
    assert lines.paths() == paths_in(document)
    for path in lines.paths():
        value = value_at(document, path)
        if isinstance(value, int):
            assert str(value) in text.split("\n")[lines.of(path) - 1 :][0], path
