"""One line of JSON for each connection or session that has ended.

Lines are gathered and written together: a write for each would cost as much as relaying a small exchange.
Workers share standard output, so no write into a pipe is longer than what the kernel keeps in one piece.
"""

import json
import os
import select
import stat
import time
from typing import Final

_FLUSH_BYTES: Final = 32_768


class AccessLog:
    """Writes lines to a descriptor; `flush` is to be called every now and then.

    Args:
        fd: Where to; None writes nothing.

    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        is_pipe = fd is not None and stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._flush_bytes = select.PIPE_BUF if is_pipe else _FLUSH_BYTES
        self._lines: list[bytes] = []
        self._size = 0
        self._second = 0
        self._second_text = ""

    def write(
        self,
        *,
        kind: str,
        relay: str,
        id: str,
        client: str,
        endpoint: str,
        sent: int,
        received: int,
        duration_s: float,
        end: str,
        **more: str | float | None,
    ) -> None:
        """Add a line; `docs/relay.md` has the fields. Those of `more` that are None are left out."""
        if self.fd is None:
            return
        extra = "".join(
            [f', "{name}": {json.dumps(value)}' for name, value in more.items() if value is not None]
        )
        line = (
            f'{{"time": "{self._time()}", "type": "{kind}", "relay": {json.dumps(relay)}, "id": "{id}", '
            f'"client": {json.dumps(client)}, "endpoint": {json.dumps(endpoint)}, "sent": {sent}, '
            f'"received": {received}, "duration_ms": {duration_s * 1000:.1f}{extra}, "end": "{end}"}}\n'
        )
        encoded = line.encode("utf-8", "backslashreplace")
        if self._size + len(encoded) > self._flush_bytes:
            self.flush()
        self._lines.append(encoded)
        self._size += len(encoded)

    def flush(self) -> None:
        """Write what has been gathered; a reader that has gone away is no reason to stop relaying."""
        if not self._lines or self.fd is None:
            return
        pending = memoryview(b"".join(self._lines))
        self._lines.clear()
        self._size = 0
        try:
            while pending:
                pending = pending[os.write(self.fd, pending) :]
        except OSError:
            return

    def _time(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03}Z"
