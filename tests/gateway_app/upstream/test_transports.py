"""What every transport must do, whatever carries the request: TCP, TLS, Unix socket, this process, httpx."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import pytest
import trustme
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from starlette.types import Message, Receive, Scope, Send

from gateway_app.config.backends import BackendTlsConfig, RetryConfig
from gateway_app.problem import Cause

NETWORK = ["tcp", "tls", "unix", "httpx"]
ALL = [*NETWORK, "asgi", "wsgi"]
MODULE = __name__

# ---------------------------------------------------------------- the service

PIECE = bytes(range(256)) * 256
PIECES = 64
UNAVAILABLE = [200, 503]
COOKIES = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe9")]


async def turns(count: int) -> None:
    """Let all other tasks go on for so many of the loop's turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the path says."""
    if scope["type"] == "lifespan":
        while True:
            phase = (await receive())["type"]
            await send({"type": f"{phase}.complete"})
            if phase == "lifespan.shutdown":
                return

    def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
        return {"type": "http.response.start", "status": status, "headers": list(headers)}

    match scope["path"]:
        case "/echo":
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            await send(start(200, (b"content-length", b"%d" % len(body)), *COOKIES))
            await send({"type": "http.response.body", "body": body})
        case "/answers-and-reads" | "/answers-and-reads-at-once" as path:
            await receive()
            await send(start(200))
            await send({"type": "http.response.body", "body": b"whole"})
            if path == "/answers-and-reads":
                await turns(20)  # the request is over for everybody else
            while (await receive())["type"] != "http.disconnect":
                pass
        case "/begins-and-reads":
            await receive()
            await receive()
            await send(start(200))
            await receive()
        case "/echo-at-second":
            message = await receive()
            UNAVAILABLE.reverse()
            await send(start(UNAVAILABLE[0]))
            await send({"type": "http.response.body", "body": message["body"]})
        case "/204" | "/304" as path:
            await send(start(int(path[1:])))
            await send({"type": "http.response.body"})
        case "/204-with-a-body" | "/304-with-a-body" as path:
            await send(start(int(path[1:4]), (b"content-length", b"4")))
            await send({"type": "http.response.body", "body": b"body"})
        case "/shorter" | "/longer" as path:
            await send(start(200, (b"content-length", b"6")))
            for piece in [b"body"] if path == "/shorter" else [b"a body", b"more"]:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        case "/no-status" | "/interim-status" as path:
            await send(start(42 if path == "/no-status" else 103))
            await send({"type": "http.response.body"})
        case "/line-break" | "/control-character" as path:
            await send(start(200, (b"x-a", b"a\r\nx-b: b" if path == "/line-break" else b"a\x01b")))
            await send({"type": "http.response.body"})
        case "/space-in-a-name":
            await send(start(200, (b"x a", b"b")))
            await send({"type": "http.response.body"})
        case "/begins-and-raises":
            await send(start(200))
            raise RuntimeError("before the body")
        case "/long":
            await send(start(200))
            for _ in range(PIECES):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await send({"type": "http.response.body"})
        case "/half":
            await send(start(200, (b"content-length", b"10")))
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("on the way")
        case "/never":
            while (await receive())["type"] != "http.disconnect":
                pass
        case _:
            raise RuntimeError("before the answer")


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer as the path says."""
    path = environ["PATH_INFO"]
    if path == "/echo":
        body = environ["wsgi.input"].read()
        cookies = [(name.decode(), value.decode("latin-1")) for name, value in COOKIES]
        start_response("200 OK", [("Content-Length", str(len(body))), *cookies])
        return [body]
    if path == "/echo-at-second":
        UNAVAILABLE.reverse()
        start_response(f"{UNAVAILABLE[0]} x", [])
        return [environ["wsgi.input"].read()]
    if path in ("/204", "/304"):
        start_response(f"{path[1:]} x", [])
        return []
    if path in ("/204-with-a-body", "/304-with-a-body"):
        start_response(f"{path[1:4]} x", [("Content-Length", "4")])
        return [b"body"]
    if path in ("/shorter", "/longer"):
        start_response("200 OK", [("Content-Length", "6")])
        return [b"body"] if path == "/shorter" else [b"a body", b"more"]
    if path == "/begins-and-raises":
        start_response("200 OK", [])
    if path == "/long":
        start_response("200 OK", [])
        return (PIECE for _ in range(PIECES))
    raise RuntimeError("before the answer")


def httpx_application() -> httpx.AsyncBaseTransport:
    """Make a transport of the user's, which frames nothing."""
    return httpx.ASGITransport(app)


def httpx_transport() -> httpx.AsyncBaseTransport:
    """Make a transport of httpx's own."""
    return httpx.AsyncHTTPTransport()


# ---------------------------------------------------------------- of every transport


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def serve(
    tmp_path: Path,
    authority: trustme.CA,
    new_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Any]]:
    """Start the service behind a transport's kind; returns the arguments of `line`."""
    stop = asyncio.Event()
    servers: list[asyncio.Task[None]] = []
    monkeypatch.setattr(TCPServer, "_idle_timeout", never_too_long)

    async def start(kind: str) -> dict[str, Any]:
        if kind in ("asgi", "wsgi"):
            return {"port": f"{kind}:{MODULE}:{'app' if kind == 'asgi' else 'wsgi'}"}
        if kind == "httpx to an application":
            return {"port": "http://127.0.0.1:1", "transport": f"{MODULE}:httpx_application"}
        config = Config()
        config.errorlog = None
        config.graceful_timeout = 0
        settings: dict[str, Any] = {}
        port = new_port()
        config.bind = [f"127.0.0.1:{port}"]
        settings["port"] = f"http://127.0.0.1:{port}"
        if kind == "unix":
            config.bind = [f"unix:{tmp_path / 'socket'}"]
            settings["port"] = f"http+unix:{tmp_path / 'socket'}"
        elif kind == "tls":
            authority.cert_pem.write_to_path(tmp_path / "ca.pem")
            certificate = authority.issue_cert("127.0.0.1")
            certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
            certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
            config.certfile, config.keyfile = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
            settings["port"] = f"https://127.0.0.1:{port}"
            settings["tls"] = tls_table(ca=tmp_path / "ca.pem")
        elif kind == "httpx":
            settings["transport"] = f"{MODULE}:httpx_transport"
        served: Any = app  # hypercorn's types of messages are its own
        serving = hypercorn.asyncio.serve(served, config, shutdown_trigger=stop.wait, mode="asgi")
        servers.append(asyncio.create_task(serving))
        await listening(tmp_path / "socket" if kind == "unix" else port)
        return settings

    yield start
    stop.set()
    await asyncio.gather(*servers)


async def never_too_long(connection: TCPServer) -> None:
    """Stand in for the task that closes an idle connection, and would outlive one that we have closed."""


def tls_table(**settings: object) -> BackendTlsConfig:
    return BackendTlsConfig.model_validate({name: str(value) for name, value in settings.items()})


async def listening(where: Path | int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                if isinstance(where, int):
                    _, writer = await asyncio.open_connection("127.0.0.1", where)
                else:
                    _, writer = await asyncio.open_unix_connection(where)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


async def unused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The conversation of an endpoint that nobody asks."""


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("length", [None, 300_000], ids=["chunked", "length"])
async def test_a_body_goes_there_and_back(serve: Any, line: Any, kind: str, length: int | None) -> None:
    body = [bytes([n]) * 100_000 for n in range(3)]
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("POST", "/echo", body=body, length=length)
    assert (outcome.status, outcome.cause, outcome.is_whole) == (200, None, True)
    assert outcome.body == b"".join(body)
    assert [field for field in outcome.headers if field[0] == b"set-cookie"] == COOKIES


@pytest.mark.parametrize("kind", ALL)
async def test_answers_without_a_body(serve: Any, line: Any, kind: str) -> None:
    async with line(unused, **await serve(kind)) as asked:
        seen = [
            await asked.ask("GET", "/204"),
            await asked.ask("GET", "/304"),
            await asked.ask("HEAD", "/echo"),
        ]
    assert [(one.status, one.body, one.is_whole, one.cause) for one in seen] == [
        (204, b"", True, None), (304, b"", True, None), (200, b"", True, None)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [*ALL, "httpx to an application"])
@pytest.mark.parametrize("path", ["/204-with-a-body", "/304-with-a-body"])
async def test_a_body_that_cannot_be_is_dropped(serve: Any, line: Any, kind: str, path: str) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", path)
    assert (outcome.status, outcome.body, outcome.is_whole) == (int(path[1:4]), b"", True)
    assert ((b"content-length", b"4") in outcome.headers) is (outcome.status == 304)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("path", ["/shorter", "/longer"])
async def test_a_body_of_another_length_than_declared_is_no_whole_answer(
    serve: Any, line: Any, kind: str, path: str
) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", path)
    assert (outcome.is_whole, outcome.cause) == (False, Cause.ANSWER_INCOMPLETE)


@pytest.mark.parametrize("kind", ["asgi", "httpx to an application"])
@pytest.mark.parametrize(
    "path", ["/no-status", "/interim-status", "/line-break", "/control-character", "/space-in-a-name"]
)
async def test_a_head_that_nobody_could_send_is_a_bad_answer(
    serve: Any, line: Any, kind: str, path: str
) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", path)
        assert asked.pool["open"] == 0
    assert (outcome.status, outcome.cause) == (0, Cause.BAD_ANSWER)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_an_application_that_raises_before_the_body_has_not_begun_to_answer(
    serve: Any, line: Any, kind: str
) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", "/begins-and-raises")
    assert (outcome.status, outcome.cause is None) == (0, False)


@pytest.mark.parametrize("kind", ALL)
async def test_a_long_answer_arrives_whole_and_no_faster_than_it_is_taken(
    serve: Any, line: Any, kind: str
) -> None:
    longest = 0

    async def slowly(message: Any) -> None:
        nonlocal longest
        longest = max(longest, len(message.get("body", b"")))
        await asyncio.sleep(0)

    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", "/long", on_send=slowly)
    assert outcome.is_whole
    whole = PIECE * PIECES
    assert hashlib.sha256(outcome.body).digest() == hashlib.sha256(whole).digest()
    assert longest < len(whole) / 4  # never held here as a whole


@pytest.mark.parametrize("kind", [*NETWORK, "asgi"])
async def test_an_answer_that_breaks_off_is_cut(serve: Any, line: Any, kind: str) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", "/half")
    assert (outcome.status, outcome.body, outcome.is_whole) == (200, b"half", False)
    assert outcome.cause is Cause.ANSWER_INCOMPLETE


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_an_application_that_raises_is_a_bad_answer(serve: Any, line: Any, kind: str) -> None:
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("GET", "/raises")
        again = await asked.ask("POST", "/echo", body=[b"on"], length=2)
    assert (outcome.status, outcome.cause) == (0, Cause.BAD_ANSWER)
    assert again.body == b"on"


@pytest.mark.parametrize("kind", [*NETWORK, "asgi"])
async def test_who_leaves_takes_everything_along(serve: Any, line: Any, kind: str) -> None:
    async with line(unused, **await serve(kind)) as asked:
        request = asyncio.create_task(asked.ask("GET", "/never"))
        async with asyncio.timeout(10):
            while not asked.pool["open"]:  # noqa: ASYNC110 -- there is no event for it
                await asyncio.sleep(0.005)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        async with asyncio.timeout(10):
            while asked.pool["open"]:  # noqa: ASYNC110 -- an application ends in its own time
                await asyncio.sleep(0.005)
        assert asked.flights == 0


# ---------------------------------------------------------------- bodies that take their time


def giving(*pieces: bytes, pause_s: float = 0.0, then: str = "end") -> Callable[[], Awaitable[Message]]:
    """Return a `receive` that gives the pieces one after the other, and then ends, "stalls" or "leaves"."""
    left = list(pieces)

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or then != "end"}
        if then == "stall":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


@pytest.mark.parametrize("kind", ALL)
async def test_a_long_upload_does_not_use_up_the_time_for_the_answer(
    serve: Any, line: Any, kind: str
) -> None:
    receive = giving(*[b"piece"] * 5, pause_s=0.3)
    timeout = {"response": 1.2, "idle": 5.0}
    async with line(unused, **await serve(kind), timeout=timeout) as asked:
        outcome = await asked.ask("PUT", "/echo", receive=receive)
    assert (outcome.cause, outcome.body) == (None, b"piece" * 5)


@pytest.mark.parametrize("kind", ALL)
async def test_a_client_that_stalls_its_body_is_at_fault(serve: Any, line: Any, kind: str) -> None:
    receive = giving(b"piece", b"piece", then="stall")
    timeout = {"response": 5.0, "idle": 0.3}
    async with line(unused, **await serve(kind), timeout=timeout) as asked:
        outcome = await asked.ask("PUT", "/echo", receive=receive)
        assert asked.backend.endpoints[0].failures == 0
    assert (outcome.status, outcome.cause) == (0, Cause.REQUEST_TIMEOUT)


async def test_a_client_that_stalls_is_at_fault_also_where_the_application_has_begun(
    serve: Any, line: Any
) -> None:
    """A head without body has not gone out, so that nobody but the reading of the body tells the cause."""
    receive = giving(b"piece", b"piece", then="stall")
    timeout = {"response": 5.0, "idle": 0.3}
    async with line(unused, **await serve("asgi"), timeout=timeout) as asked:
        outcome = await asked.ask("PUT", "/begins-and-reads", receive=receive)
        assert asked.backend.endpoints[0].failures == 0
    assert (outcome.status, outcome.cause) == (0, Cause.REQUEST_TIMEOUT)


@pytest.mark.parametrize("kind", ALL)
async def test_a_client_that_leaves_its_body_ends_the_request_and_nothing_else(
    serve: Any, line: Any, kind: str
) -> None:
    receive = giving(b"piece", b"piece", then="leave")
    async with line(unused, **await serve(kind)) as asked:
        outcome = await asked.ask("PUT", "/echo", receive=receive)
        await asyncio.sleep(0)  # where a cancellation left over would show
        assert asked.backend.endpoints[0].failures == 0
    assert (outcome.status, outcome.cause) == (0, Cause.CLIENT_CLOSED)


@pytest.mark.parametrize("path", ["/answers-and-reads", "/answers-and-reads-at-once"])
async def test_an_application_that_reads_on_behind_its_answer_ends_nothing(
    serve: Any, line: Any, path: str
) -> None:
    """The task of the request may have gone on to something else."""
    leaves = asyncio.Event()
    pieces: list[Message] = [{"type": "http.request", "body": b"piece", "more_body": True}] * 2

    async def receive() -> Message:
        if pieces:
            return pieces.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async with line(unused, **await serve("asgi")) as asked:
        outcome = await asked.ask("PUT", path, receive=receive)
        leaves.set()
        await turns(60)  # where a cancellation would show
        assert asked.pool["open"] == 0
    assert (outcome.status, outcome.body, outcome.is_whole) == (200, b"whole", True)


@pytest.mark.parametrize("kind", ALL)
async def test_a_retry_sends_the_body_again(serve: Any, line: Any, kind: str) -> None:
    async with line(unused, **await serve(kind), retry=RetryConfig()) as asked:
        outcome = await asked.ask("PUT", "/echo-at-second", body=[b"whole"], length=5)
        assert asked.backend.endpoints[0].requests == 2
    assert (outcome.status, outcome.body) == (200, b"whole")


# ---------------------------------------------------------------- TLS


async def say_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class TlsEndpoint:
    """Asks for a client's certificate, and keeps the names that clients ask for."""

    def __init__(self, authority: trustme.CA, name: str, *, wants_client: bool) -> None:
        self.names: list[str | None] = []
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(self.context)
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        if wants_client:
            self.context.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(self.context)

    async def __aenter__(self) -> TlsEndpoint:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await say_ok(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def test_a_certificate_of_another_authority_is_refused(
    line: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for tls in (None, tls_table(ca=tmp_path / "other.pem")):
        async with (
            TlsEndpoint(authority, "127.0.0.1", wants_client=False) as endpoint,
            line(unused, endpoint.url, tls=tls) as asked,
        ):
            outcome = await asked.ask()
        assert outcome.cause is Cause.TLS_CERTIFICATE


async def test_a_certificate_for_another_name_is_refused(
    line: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with (
        TlsEndpoint(authority, "db.example", wants_client=False) as endpoint,
        line(unused, endpoint.url, tls=tls_table(ca=tmp_path / "ca.pem")) as asked,
    ):
        outcome = await asked.ask()
    assert outcome.cause is Cause.TLS_CERTIFICATE


async def test_the_server_name_is_asked_for_and_verified_and_we_show_our_certificate(
    line: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("gateway.example")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = tls_table(
        ca=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem", server_name="db.example"
    )
    async with (
        TlsEndpoint(authority, "db.example", wants_client=True) as endpoint,
        line(unused, endpoint.url, tls=tls) as asked,
    ):
        outcome = await asked.ask()
        assert (outcome.cause, outcome.body) == (None, b"ok")
        assert endpoint.names == ["db.example"]
