"""Request ids: made here, or accepted from a trusted proxy."""

from __future__ import annotations

import itertools
import os
import re
import secrets
from typing import Final

_ACCEPTABLE: Final = re.compile(rb"[!-~]{1,128}")


class RequestIds:
    """Makes ids that are unique across workers and restarts: 64 random bits of this process and a counter.

    They are made to be found in logs, not to be kept secret: who sees one can guess the next.
    """

    __slots__ = ("_numbers", "_prefix")

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Begin again with a new random part."""
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """Return the next id."""
        return f"{self._prefix}{next(self._numbers):08x}"


REQUEST_IDS: Final = RequestIds()
"""This process's, so that ids stay unique over reloads."""

os.register_at_fork(after_in_child=REQUEST_IDS.reseed)


def accepted_request_id(value: bytes | None) -> str | None:
    """Return a proxy's id as text; None if there is none, or it is not 1 to 128 visible ASCII characters."""
    if value is None or _ACCEPTABLE.fullmatch(value) is None:
        return None
    return value.decode("ascii")
