"""The Date field (RFC 9110 6.6.1), formatted once a second."""

from __future__ import annotations

import time
from email.utils import formatdate


class DateField:
    """Gives the field for now."""

    __slots__ = ("_field", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._field = (b"date", b"")

    def __call__(self) -> tuple[bytes, bytes]:
        """Return the field."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._field = (b"date", formatdate(second, usegmt=True).encode())
        return self._field
