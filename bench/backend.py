"""The service behind every proxy: nginx with a 100-byte JSON answer, a 1 MiB file and a larger one."""

import os
from pathlib import Path

from bench.processes import LOAD_CORE, Process, free_port

SMALL_BYTES = 100
LARGE_BYTES = 1 << 20
SLOW_BYTES = 4 << 20
"""A body too large for the socket buffers between backend and client, for slow downloads."""

_CONFIG = """
daemon off; worker_processes 1; error_log /dev/null; pid {directory}/backend.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nodelay on;
  # Connections that churn would blur what a proxy costs.
  keepalive_requests 1000000000; keepalive_timeout 3600;
  server {{
    # A bounded send buffer: without it the kernel swallows a whole slow download.
    listen 127.0.0.1:{port} backlog=4096 sndbuf=256k;
    location = /small {{ default_type application/json; return 200 '{small}'; }}
    location = /large {{ default_type application/octet-stream; alias {directory}/large; }}
    location = /slow {{ default_type application/octet-stream; alias {directory}/slow; }}
  }}
}}
"""


class Backend:
    """A running backend on a free port of loopback, on the load generator's core."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        small = '{"padding":"' + "x" * (SMALL_BYTES - 14) + '"}'
        (directory / "large").write_bytes(os.urandom(LARGE_BYTES))
        (directory / "slow").write_bytes(os.urandom(SLOW_BYTES))
        config = directory / "backend.conf"
        config.write_text(_CONFIG.format(directory=directory, port=self.port, small=small))
        self._process = Process(
            ["nginx", "-e", "/dev/null", "-c", str(config)],
            core=LOAD_CORE,
            log=directory / "backend.log",
            env={},
            cwd=directory,
        )
        self._process.wait_until_listening(self.port)

    def stop(self) -> None:
        """End the backend."""
        self._process.stop()
