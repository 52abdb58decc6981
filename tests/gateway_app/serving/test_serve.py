"""`gateway serve` as a user starts it: real processes, real signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway_app.serving import granian_server

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[3]

HELD_APP = """
import asyncio, os, pathlib

HERE = pathlib.Path(__file__).parent

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/held":
        (HERE / "arrived").touch()
        while not (HERE / "released").exists():
            await asyncio.sleep(0.01)
    body = str(os.getpid()).encode() if scope["path"] == "/pid" else b"held"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


NewPort = Callable[[], int]


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds`, where nothing can be awaited: other processes change it."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.01)


class Client:
    """A connection of HTTP/1.1, kept open."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.file = self.socket.makefile("rb")

    def ask(self, path: str) -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())

    def answer(self) -> tuple[int, bytes]:
        """The status and body of the next answer; 0 if the connection has ended."""
        line = self.file.readline()
        if not line:
            return 0, b""
        length = 0
        while (field := self.file.readline().strip()) != b"":
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return int(line.split()[1]), self.file.read(length)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Served:
    """A `gateway serve` in a directory of its own."""

    def __init__(
        self,
        port: int,
        directory: Path,
        server: str,
        text: str,
        *options: str,
        workers: int = 1,
        messages_to: int = subprocess.STDOUT,
    ) -> None:
        self.directory = directory
        self.port = port
        self.config = directory / "routes.toml"
        self.write(text)
        (directory / "held_app.py").write_text(HELD_APP)
        self.output = (directory / "output").open("w+")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gateway_app",
                "serve",
                "--server",
                server,
                "--workers",
                str(workers),
                *options,
            ],
            cwd=directory,
            stdout=self.output,
            stderr=messages_to,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.clients: list[Client] = []

    def write(self, text: str) -> None:
        """Replace the file, as an editor does."""
        new = self.directory / "routes.toml.new"
        new.write_text(text.replace("PORT", str(self.port)))
        new.replace(self.config)

    def client(self) -> Client:
        client = Client(self.port)
        self.clients.append(client)
        return client

    def client_of_each_worker(self, workers: int) -> list[Client]:
        """A connection to each, since chance decides who takes the next one."""
        found: dict[bytes, Client] = {}

        def have_all() -> bool:
            client = self.client()
            client.ask("/pid")
            status, pid = client.answer()
            if status == 200:
                found.setdefault(pid, client)
            return len(found) == workers

        eventually(have_all)
        return list(found.values())

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask on a new connection; (0, b"") if there is nobody."""
        try:
            client = Client(self.port)
        except ConnectionError:
            return 0, b""
        try:
            client.ask(path)
            return client.answer()
        except ConnectionError:
            return 0, b""
        finally:
            client.close()

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log()
            return self.get("/ready")[0] == 200

        eventually(is_ready)

    def refuses_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return True
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def log(self) -> str:
        return (self.directory / "output").read_text()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGINT)  # the second signal ends it at once
                self.process.wait(DEADLINE_S)
        self.output.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, new_port: NewPort) -> Iterator[Serve]:
    started: list[Served] = []

    def start(server: str, text: str, *options: str, **settings: int) -> Served:
        served = Served(new_port(), tmp_path, server, text, *options, **settings)
        started.append(served)
        return served

    yield start
    for served in started:
        served.close()


SERVERS = ["hypercorn", "granian"]

FILE = """
[gateway]
listen = ["127.0.0.1:PORT"]
access_log = "off"
drain = "DRAIN"

[backends.held]
endpoints = ["asgi:held_app:app"]

[[routes]]
name = "held"
match = { path = "/held" }
backend = "held"

[[routes]]
name = "pid"
match = { path = "/pid" }
backend = "held"

[[routes]]
name = "ready"
match = { path = "/ready" }
respond = { body = "one" }
"""


def file(drain: str = "60s") -> str:
    return FILE.replace("DRAIN", drain)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int, depth: int) -> list[int]:
    """The processes that are so many generations below `pid`."""
    found = [pid]
    for _ in range(depth):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found = [child for parent in found for child in children(parent)]
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_lets_requests_in_flight_finish(serve: Serve, server: str) -> None:
    served = serve(server, file())
    served.wait_ready()
    idle = served.client()
    idle.ask("/ready")
    assert idle.answer()[0] == 200
    busy = served.client()
    busy.ask("/held")
    eventually((served.directory / "arrived").exists)

    served.stop()
    eventually(served.refuses_connections)
    assert idle.answer() == (0, b"")  # an idle connection is closed at once
    assert served.process.poll() is None
    (served.directory / "released").touch()
    assert busy.answer() == (200, b"held")
    assert served.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_does_not_wait_longer_than_drain(serve: Serve, server: str) -> None:
    served = serve(server, file("1s"))
    served.wait_ready()
    busy = served.client()
    busy.ask("/held")
    eventually((served.directory / "arrived").exists)

    began = time.monotonic()
    served.stop()
    served.process.wait(DEADLINE_S)
    assert time.monotonic() - began > 0.9
    assert busy.answer()[0] == (503 if server == "hypercorn" else 0)  # granian kills the worker


def test_a_second_signal_ends_it_at_once(serve: Serve) -> None:
    served = serve("hypercorn", file("60s"))
    served.wait_ready()
    served.client().ask("/held")
    eventually((served.directory / "arrived").exists)
    served.stop()
    eventually(served.refuses_connections)
    served.stop(signal.SIGINT)
    served.process.wait(DEADLINE_S)


@pytest.mark.parametrize("server", SERVERS)
def test_sighup_and_a_changed_file_reload_every_worker(serve: Serve, server: str) -> None:
    served = serve(server, file(), workers=2)
    served.wait_ready()
    served.write(file().replace('"one"', '"two"'))
    served.stop(signal.SIGHUP)  # one of the workers may still be starting
    clients = served.client_of_each_worker(2)

    def answers() -> list[tuple[int, bytes]]:
        for client in clients:
            client.ask("/ready")
        return [client.answer() for client in clients]

    eventually(lambda: answers() == [(200, b"two")] * 2)
    served.write(file().replace('"one"', '"three"'))
    eventually(lambda: answers() == [(200, b"three")] * 2)
    served.write("[gateway]\nlisten = 5\n")
    eventually(lambda: served.log().count("expected a list, found 5") >= 2)
    assert answers() == [(200, b"three")] * 2


@pytest.mark.parametrize("server", SERVERS)
def test_a_worker_that_is_killed_comes_back(serve: Serve, server: str) -> None:
    served = serve(server, file())
    served.wait_ready()
    workers = children(served.process.pid)
    if server == "granian":
        workers = [child for child in children(workers[0]) if b"resource_tracker" not in cmdline(child)]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    eventually(lambda: served.get("/ready")[0] == 200)


@pytest.mark.parametrize("server", SERVERS)
def test_workers_have_as_many_descriptors_as_the_system_allows(serve: Serve, server: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
    try:
        served = serve(server, file())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    served.wait_ready()
    status, pid = served.get("/pid")
    assert (status, resource.prlimit(int(pid), resource.RLIMIT_NOFILE)) == (200, (hard, hard))


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(1, 1), (100, 50), (1024, 512), (1_048_576, 65_536), (resource.RLIM_INFINITY, 65_536)],
)
def test_clients_of_granian_leave_descriptors_for_the_endpoints(descriptors: int, connections: int) -> None:
    assert granian_server.max_connections(descriptors) == connections


@pytest.mark.parametrize("server", SERVERS)
def test_an_answer_that_is_cut_off_is_a_line_of_the_access_log_alone(serve: Serve, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        text = file().replace('"off"', '"json"').replace("asgi:held_app:app", "http://127.0.0.1:ENDPOINT")
        served = serve(server, text.replace("ENDPOINT", str(endpoint.getsockname()[1])))
        served.wait_ready()
        client = served.client()
        client.ask("/held")
        with endpoint.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        assert client.answer() == (200, b"half")
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0
    assert '"error":"answer_incomplete"' in served.log()
    assert "Traceback" not in served.log()


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end that is written to of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("server", SERVERS)
def test_messages_that_nobody_reads_hold_nothing_up(serve: Serve, server: str, full_pipe: int) -> None:
    served = serve(server, file(), messages_to=full_pipe)
    served.wait_ready()
    (worker,) = descendants(served.process.pid, 1)
    if server == "granian":
        (worker,) = [child for child in children(worker) if b"resource_tracker" not in cmdline(child)]
    os.kill(worker, signal.SIGKILL)  # which both server and supervisor tell
    eventually(lambda: not Path(f"/proc/{worker}").exists())
    served.wait_ready()
    served.write(file().replace('"one"', '"two"'))
    eventually(lambda: served.get("/ready") == (200, b"two"))
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")
def test_granian_that_is_killed_takes_its_workers_with_it(serve: Serve) -> None:
    served = serve("granian", file(), workers=2)
    served.wait_ready()
    (granian,) = children(served.process.pid)
    workers = [child for child in children(granian) if b"resource_tracker" not in cmdline(child)]
    os.kill(granian, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    served.wait_ready()


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_killed_supervisor_leaves_nothing_behind(serve: Serve) -> None:
    served = serve("hypercorn", file())
    served.wait_ready()
    served.process.kill()
    eventually(served.refuses_connections)


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_while_it_starts_waits_for_nothing(serve: Serve, server: str) -> None:
    served = serve(server, file("60s"))
    # As soon as the process is there that will serve; it does not listen for signals yet.
    depth = {"hypercorn": 1, "granian": 2}[server]
    eventually(lambda: len(descendants(served.process.pid, depth)) > 0)
    served.stop()
    served.process.wait(DEADLINE_S)


@pytest.mark.skipif(sys.platform != "linux", reason="the policy is Linux's")
def test_granian_s_workers_are_scheduled_in_batches(serve: Serve) -> None:
    served = serve("granian", file())
    served.wait_ready()
    [granian] = children(served.process.pid)
    workers = children(granian)
    assert workers
    assert {os.sched_getscheduler(worker) for worker in workers} == {os.SCHED_BATCH}


@pytest.mark.parametrize("server", SERVERS)
def test_an_address_in_use_is_reported(serve: Serve, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = serve(server, file().replace("127.0.0.1:PORT", address))
        assert served.process.wait(DEADLINE_S) == 2
    assert served.log() == f"gateway: cannot listen on {address}: Address already in use\n"


@pytest.mark.parametrize("server", SERVERS)
def test_an_address_of_the_admin_in_use_is_reported(serve: Serve, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = serve(server, f'{file()}\n[admin]\nlisten = "{address}"\n')
        assert served.process.wait(10) == 2
    said = f"gateway: the admin listener cannot use {address}: another program listens there\n"
    assert served.log() == said


def test_an_admin_socket_is_free_after_it_was_checked(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    served = serve("hypercorn", f'{file()}\n[admin]\nlisten = "unix:{path}"\n')
    served.wait_ready()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    served = serve("hypercorn", file().replace("127.0.0.1:PORT", f"unix:{path}"))
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    eventually(lambda: client.connect_ex(str(path)) == 0)
    with client:
        client.sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0
    assert not path.exists()


def test_the_relay_runs_beside_and_ends_with_it(serve: Serve, new_port: NewPort) -> None:
    relay_port = new_port()
    relay = f"""
[[relay]]
name = "front"
listen = "tcp://127.0.0.1:{relay_port}"
endpoints = ["127.0.0.1:PORT"]
"""
    served = serve("hypercorn", file() + relay)
    served.wait_ready()
    own_port, served.port = served.port, relay_port
    eventually(lambda: served.get("/ready") == (200, b"one"))
    served.port = own_port
    started = children(served.process.pid)
    assert sorted(b"l4relay" in cmdline(child) for child in started) == [False, True]
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in started)


THROUGH_A_RELAY = """
[backends.relayed]
endpoints = ["http://127.0.0.1:RELAY"]
keep_alive = "0s"

[[routes]]
name = "relayed"
match = { path = "/relayed" }
middleware = ["after-a-while"]
backend = "relayed"

[middleware.after-a-while]
type = "held_app:Held"

[[relay]]
name = "behind"
listen = "tcp://127.0.0.1:RELAY"
endpoints = ["127.0.0.1:PORT_BEHIND"]
"""

HELD_MIDDLEWARE = """

class Held:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        (HERE / "arrived").touch()
        while not (HERE / "released").exists():
            await asyncio.sleep(0.01)
        await self.app(scope, receive, send)
"""


@pytest.mark.parametrize("server", SERVERS)
def test_the_relay_takes_the_last_requests_of_the_gateway(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_port: NewPort, server: str
) -> None:
    """A request in flight needs a new connection through the relay after the stop has begun."""
    monkeypatch.setitem(globals(), "HELD_APP", HELD_APP + HELD_MIDDLEWARE)
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.settimeout(DEADLINE_S)
        text = THROUGH_A_RELAY.replace("RELAY", str(new_port()))
        served = serve(server, file() + text.replace("PORT_BEHIND", str(service.getsockname()[1])))
        served.wait_ready()
        eventually(lambda: "relay behind listens on" in served.log())
        client = served.client()
        client.ask("/relayed")
        eventually((tmp_path / "arrived").exists)
        served.stop()
        eventually(served.refuses_connections)
        (tmp_path / "released").touch()
        upstream, _ = service.accept()
        with upstream:
            upstream.settimeout(DEADLINE_S)
            assert upstream.recv(65_536).startswith(b"GET /relayed")
            upstream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            assert client.answer() == (200, b"ok")
        assert served.process.wait(DEADLINE_S) == 0


BEHIND_A_RELAY = """
[gateway]
listen = ["127.0.0.1:PORT"]
trusted_proxies = ["127.0.0.1"]
accept_proxy_protocol = true

[[routes]]
name = "ready"
match = { path = "/ready" }
respond = { body = "one" }

[[relay]]
name = "front"
listen = "tcp://127.0.0.1:RELAY"
endpoints = ["127.0.0.1:PORT"]
proxy_protocol = "v2-crc32c"
"""


def test_one_id_goes_from_the_relay_s_accept_to_the_gateway_s_log(serve: Serve, new_port: NewPort) -> None:
    relay_port = new_port()
    served = serve("hypercorn", BEHIND_A_RELAY.replace("RELAY", str(relay_port)))
    own_port, served.port = served.port, relay_port
    served.wait_ready()
    with socket.create_connection(("127.0.0.1", relay_port), source_address=("127.0.0.2", 0)) as sock:
        sock.sendall(
            b"GET /ready HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.1\r\nconnection: close\r\n\r\n"
        )
        assert sock.makefile("rb").read().endswith(b"one")
        port = sock.getsockname()[1]
    served.port = own_port
    assert served.get("/ready") == (0, b""), "127.0.0.1 has to send a header"
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for line in served.log().splitlines() if line.startswith("{")]
    gateway = next(line for line in lines if line.get("client") == "127.0.0.2")
    relay = next(line for line in lines if line.get("client") == f"127.0.0.2:{port}")
    assert gateway["connection_id"] == relay["id"]


@pytest.mark.parametrize("command", ["granian", "the hypercorn command"])
def test_proxy_headers_that_nobody_would_read_are_refused(tmp_path: Path, command: str) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(BEHIND_A_RELAY.replace("PORT", "0").partition("[[relay]]")[0])
    arguments = ["gateway_app", "serve", "--server", "granian"]
    if command != "granian":
        arguments = ["hypercorn", "gateway_app:app", "-b", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env={**os.environ, "GATEWAY_CONFIG": str(path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "PROXY headers are read by" in ended.stderr


def test_the_shipped_file_shows_a_request_at_both_layers(
    serve: Serve, tmp_path: Path, new_port: NewPort
) -> None:
    """Client, gateway, relay, service; on ports of its own."""
    ports = {port: new_port() for port in (9090, 9091, 15080, 10053, 9092)}
    text = (ROOT / "routes.toml").read_text().replace(":8080", ":PORT")
    text = text.replace("asgi:gateway_app.demo:app", "asgi:own_demo:app")
    for shipped, own in ports.items():
        text = text.replace(f":{shipped}", f":{own}")
    demo = f"from gateway_app.demo import make_app\napp = make_app({ports[9092]})\n"
    (tmp_path / "own_demo.py").write_text(demo)
    served = serve("hypercorn", text)
    eventually(lambda: "relay echo listens on" in served.log())
    # The first request of all: the demo's application has started without one of its own.
    eventually(lambda: served.get("/relayed/users/7") == (200, b'{"id":"7","path":"/users/7"}'))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect(("127.0.0.1", ports[10053]))
        client.send(b"who?")
        assert client.recv(100) == b"who?"
    served.stop()
    assert served.process.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for line in served.log().splitlines() if line.startswith("{")]
    gateway = next(line for line in lines if line.get("route") == "relayed" and line["status"] == 200)
    relay = next(line for line in lines if line.get("relay") == "service" and line["endpoint"])
    assert gateway["endpoint"] == f"http://127.0.0.1:{ports[15080]}"
    assert relay["endpoint"] == f"127.0.0.1:{ports[9092]}"
    assert relay["end"] == "client_closed"


@pytest.mark.parametrize("server", SERVERS)
def test_every_answer_has_one_date(serve: Serve, server: str) -> None:
    dated = HELD_APP.replace("[(b", '[(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b')
    served = serve(server, file())
    (served.directory / "held_app.py").write_text(dated)
    (served.directory / "released").touch()
    served.wait_ready()
    for path, expected in {"/held": b"1994", "/ready": b"20", "/nothing": b"20"}.items():
        with socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE_S) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            answer = client.makefile("rb").read()
        dates = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"date:")]
        assert len(dates) == 1
        assert expected in dates[0]


@pytest.mark.parametrize("server", SERVERS)
def test_a_middleware_that_cannot_start_ends_the_start_and_is_told(
    serve: Serve, tmp_path: Path, server: str
) -> None:
    (tmp_path / "no_database.py").write_text(
        "class NoDatabase:\n"
        "    def __init__(self, app):\n"
        "        self.app = app\n\n"
        "    async def __call__(self, scope, receive, send):\n"
        "        await self.app(scope, receive, send)\n\n"
        "    async def startup(self):\n"
        "        raise RuntimeError('no database')\n"
    )
    text = file() + 'middleware = ["late"]\n\n[middleware.late]\ntype = "no_database:NoDatabase"\n'
    served = serve(server, text)
    assert served.process.wait(50) == 1
    assert "the gateway does not start:\nno database\nTraceback" in served.log()
