"""Single values of a file: each function returns what TOML's value means here, or says what was expected."""

from collections.abc import Callable
from typing import Any, Final

from l4relay.addresses import (
    Address,
    ListenAddress,
    UnixAddress,
    parse_address,
    parse_listen_address,
    parse_network,
)
from l4relay.config.quantities import DURATION_EXPECTED, Rate, parse_duration, parse_rate

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_NO_BOUND: Final = 1 << 31


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


def one_of(*words: str) -> Callable[[object], Any]:
    """Return a converter of one of these words."""

    def convert(raw: object) -> str:
        if raw not in words:
            raise ValueError(f"expected {' or '.join(repr(word) for word in words)}, not {raw!r}")
        return str(raw)

    return convert


def duration(raw: object) -> float:
    """Return seconds, more than none."""
    try:
        seconds = parse_duration(raw) if isinstance(raw, str) else 0.0
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ValueError(f"{DURATION_EXPECTED}, not {raw!r}")
    return seconds


def rate(raw: object) -> Rate:
    """Return so many in a time."""
    return parse_rate(text(raw))


def latin1(raw: object) -> bytes:
    r"""Return bytes, written as text: `"\u0000"` to `"\u00ff"` stand for single ones."""
    try:
        octets = raw.encode("latin-1") if isinstance(raw, str) else b""
    except UnicodeEncodeError as error:
        raise ValueError('write each byte above 0x7f as "\\u0080" to "\\u00ff"') from error
    if not octets:
        raise ValueError(f'expected text such as "PING\\r\\n", not {raw!r}')
    return octets


def networks(raw: object) -> tuple[str, ...]:
    """Return networks and single addresses."""
    if not isinstance(raw, list):
        raise ValueError(f'expected a list such as ["10.0.0.0/8"], not {raw!r}')
    for network in raw:
        parse_network(text(network))
    return tuple(raw)


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
