"""Converters: each returns what TOML's value means here, or raises `ValueError` with what was expected."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from l4relay.addresses import (
    Address,
    ListenAddress,
    UnixAddress,
    parse_address,
    parse_listen_address,
    parse_network,
)
from l4relay.config.quantities import DURATION_EXPECTED, parse_duration
from l4relay.config.toml_lines import KeyPath

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Model = TypeVar("Model", bound="DataclassInstance")

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_NO_BOUND: Final = 1 << 31


class Mistakes(ValueError):
    """Everything that is wrong inside a value, each with its path from there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[KeyPath, str]] = []

    def add(self, message: str, *path: str | int) -> None:
        """Note what is wrong with the value at `path`."""
        self.found.append((path, message))

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Note what a converter raises about the value at `path`, and go on behind it."""
        try:
            yield
        except Mistakes as inner:
            self.found += [((*path, *below), message) for below, message in inner.found]
        except ValueError as error:
            self.add(str(error), *path)

    def raise_any(self) -> None:
        """Raise this if anything was noted."""
        if self.found:
            raise self


def table(model: type[Model]) -> Callable[[object], Model]:
    """Return a converter of a table with the fields of a dataclass, each converted as its annotation says."""

    def convert(raw: object) -> Model:
        given = mapping(raw)
        known = get_type_hints(model, include_extras=True)
        mistakes = Mistakes()
        values: dict[str, Any] = {}
        for key, each in given.items():
            if key in known:
                with mistakes.at(key):
                    values[key] = known[key].__metadata__[0](each)
            else:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(sorted(known))}"
                mistakes.add(f"is no known key; {hint}", key)
        for field in fields(model):
            if field.default is MISSING and field.name not in given:
                mistakes.add("is missing", field.name)
        mistakes.raise_any()
        return model(**values)

    return convert


def mapping(raw: object) -> dict[str, Any]:
    """Return a table as it is."""
    if not isinstance(raw, dict):
        raise ValueError(f"expected a table, not {raw!r}")
    return raw


def text(raw: object) -> str:
    """Return text."""
    if not isinstance(raw, str):
        raise ValueError(f"expected text in quotes, not {raw!r}")
    return raw


def name(raw: object) -> str:
    """Return text that can stand in a log line."""
    if not isinstance(raw, str) or not raw or not raw.isprintable():
        raise ValueError(f"expected a name, not {raw!r}")
    return raw


def boolean(raw: object) -> bool:
    """Return true or false."""
    if not isinstance(raw, bool):
        raise ValueError(f"expected true or false, not {raw!r}")
    return raw


def whole(least: int, most: int = _NO_BOUND) -> Callable[[object], int]:
    """Return a converter of whole numbers in these bounds."""

    def convert(raw: object) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool) or not least <= raw <= most:
            bound = f"of at least {least}" if most == _NO_BOUND else f"from {least} to {most}"
            raise ValueError(f"expected a whole number {bound}, not {raw!r}")
        return raw

    return convert


def share(raw: object) -> float:
    """Return a number from 0 to 1."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 1:
        raise ValueError(f"expected a share from 0 to 1, not {raw!r}")
    return float(raw)


def one_of(*words: str) -> Callable[[object], str]:
    """Return a converter of one of these words."""

    def convert(raw: object) -> str:
        if raw not in words:
            raise ValueError(f"expected {' or '.join(repr(word) for word in words)}, not {raw!r}")
        return str(raw)

    return convert


def duration(raw: object) -> float:
    """Return seconds, more than none."""
    with suppress(ValueError):
        if seconds := parse_duration(str(raw)):
            return seconds
    raise ValueError(f"{DURATION_EXPECTED}, not {raw!r}")


def latin1(raw: object) -> bytes:
    r"""Return bytes, written as text: `"\u0000"` to `"\u00ff"` stand for single ones."""
    if not isinstance(raw, str) or not raw:
        raise ValueError(f'expected text such as "PING\\r\\n", not {raw!r}')
    try:
        return raw.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError('write each byte above 0x7f as "\\u0080" to "\\u00ff"') from error


def networks(raw: object) -> tuple[str, ...]:
    """Return networks and single addresses."""
    if not isinstance(raw, list):
        raise ValueError(f'expected a list such as ["10.0.0.0/8"], not {raw!r}')
    for network in raw:
        parse_network(text(network))
    return tuple(raw)


def address(raw: object) -> Address:
    """Return an endpoint's address."""
    return parse_address(text(raw))


def listens(raw: object) -> tuple[ListenAddress, ...]:
    """Return one address to listen on, or several of one transport."""
    texts = raw if isinstance(raw, list) and raw else [raw]
    addresses = tuple(parse_listen_address(text(each)) for each in texts)
    if len({address.transport for address in addresses}) > 1:
        raise ValueError("TCP and UDP want a relay each: settings and life cycle differ")
    return addresses


def loopback(raw: object) -> Address:
    """Return an address that only this machine reaches."""
    address = parse_address(text(raw), port_zero_allowed=True)
    if not isinstance(address, UnixAddress) and address.host not in _LOOPBACK:
        raise ValueError(f'expected a loopback address such as "127.0.0.1:9091", not {raw!r}')
    return address
