"""Failures that are this process's own, though they come up while an endpoint is connected to."""

from __future__ import annotations

import errno
from typing import Final

_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def is_exhaustion(error: BaseException | None) -> bool:
    """Say whether descriptors or memory had run out: `error` itself, or what it came of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return True
        error = error.__cause__ or error.__context__  # httpcore replaces without `from`
    return False
