import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from gateway_app.answer import answer_error, edge_send
from gateway_app.edge import MAX_FIELDS, MAX_FIELDS_BYTES, Edge
from gateway_app.exchange import Exchange
from gateway_app.header_fields import HOP_BY_HOP, Field
from gateway_app.observe.metrics import Metrics
from gateway_app.problem import Cause, GatewayError
from gateway_app.request_framing import bound_receive

HOST = (b"host", b"example.com")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metrics]:
    metrics = Metrics(tmp_path_factory.mktemp("run"))
    yield metrics
    metrics.close()


@pytest.fixture(scope="module")
def edge(metrics: Metrics) -> Edge:
    return Edge(
        trusted_proxies=["10.0.0.0/8", "unix:"],
        max_body_bytes=100,
        pseudonym="gw-1",
        metrics=metrics,
        access_log=None,
    )


def scope_of(*fields: Field, client: Any = ("192.0.2.1", 5), **others: Any) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "path": "/",
        "client": client,
        "headers": list(fields),
        **others,
    }


def proxied(*fields: Field, **others: Any) -> Scope:
    return scope_of(HOST, *fields, client=("10.0.0.1", 5), **others)


def sent_on(edge: Edge, scope: Scope) -> dict[bytes, bytes]:
    """Admit the request and return its fields; none may come twice."""
    edge.finish(edge.admit(scope), scope)
    names = [name for name, _ in scope["headers"]]
    assert len(names) == len(set(names)), names
    return dict(scope["headers"])


def refusal(edge: Edge, scope: Scope) -> Cause:
    with pytest.raises(GatewayError) as caught:
        edge.admit(scope)
    edge.finish(scope["gateway"], scope)
    return caught.value.cause


class Recorder:
    """A server's `send`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.messages[-1]["body"])
        return problem


# ---------------------------------------------------------------- who is asking


def test_a_strangers_request_gets_the_forwarding_fields_of_its_connection(edge: Edge) -> None:
    scope = scope_of(HOST, (b"accept", b"*/*"))
    fields = sent_on(edge, scope)
    exchange = scope["gateway"]
    assert scope["headers"][0] == HOST
    assert fields == {
        b"host": b"example.com",
        b"accept": b"*/*",
        b"x-forwarded-for": b"192.0.2.1",
        b"x-forwarded-host": b"example.com",
        b"x-forwarded-proto": b"http",
        b"via": b"1.1 gw-1",
        b"x-request-id": exchange.request_id.encode(),
    }
    assert (exchange.client, exchange.scheme, exchange.has_body) == ("192.0.2.1", "http", False)


def test_a_stranger_is_believed_nothing(edge: Edge) -> None:
    scope = scope_of(
        HOST,
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"forwarded", b"for=1.1.1.1;proto=https"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"admin.internal"),
        (b"x-forwarded-prefix", b"/admin"),
        (b"x-real-ip", b"127.0.0.1"),
        (b"x_forwarded_for", b"127.0.0.1"),
        (b"x-forwarded_for", b"127.0.0.1"),
        (b"true-client-ip", b"127.0.0.1"),
        (b"transfer_encoding", b"chunked"),
        (b"content_length", b"5"),
        (b"x-request-id", b"mine"),
    )
    fields = sent_on(edge, scope)
    assert set(fields) == {
        b"host", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id",
    }  # fmt: skip
    assert fields[b"x-forwarded-for"] == b"192.0.2.1"
    assert fields[b"x-forwarded-proto"] == b"http"
    assert fields[b"x-forwarded-host"] == b"example.com"
    assert fields[b"x-request-id"] != b"mine"


def test_a_trusted_proxy_is_believed_and_appended_to(edge: Edge) -> None:
    scope = proxied(
        (b"x-forwarded-for", b"192.0.2.9"),
        (b"x-forwarded-for", b"10.3.3.3"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"shop.example"),
        (b"x-real-ip", b"192.0.2.9"),
        (b"x_real_ip", b"127.0.0.1"),
        (b"x-request-id", b"abc-123"),
        (b"forwarded", b"for=192.0.2.9"),
    )
    fields = sent_on(edge, scope)
    exchange = scope["gateway"]
    assert (exchange.client, exchange.scheme, exchange.request_id) == ("192.0.2.9", "https", "abc-123")
    assert fields[b"x-forwarded-for"] == b"192.0.2.9, 10.3.3.3, 10.0.0.1"
    assert fields[b"x-forwarded-proto"] == b"https"
    assert fields[b"x-forwarded-host"] == b"shop.example"
    assert fields[b"x-real-ip"] == b"192.0.2.9"
    assert fields[b"x-request-id"] == b"abc-123"
    assert fields[b"forwarded"] == b'for=192.0.2.9, for=10.0.0.1;by=_gw-1;proto=http;host="example.com"'
    assert b"x_real_ip" not in fields
    assert fields[b"host"] == b"example.com", "routing goes by Host"


def test_forwarded_alone_tells_the_client_too(edge: Edge) -> None:
    scope = proxied((b"forwarded", b"for=6.6.6.6, for=192.0.2.9;proto=https, for=10.9.9.9;proto=http"))
    fields = sent_on(edge, scope)
    assert (scope["gateway"].client, scope["gateway"].scheme) == ("192.0.2.9", "https")
    assert fields[b"x-forwarded-for"] == b"192.0.2.9, 10.0.0.1"


def test_x_forwarded_for_counts_where_a_proxy_let_a_clients_forwarded_through(edge: Edge) -> None:
    scope = proxied((b"forwarded", b"for=127.0.0.1"), (b"x-forwarded-for", b"192.0.2.9"))
    sent_on(edge, scope)
    assert scope["gateway"].client == "192.0.2.9"


def test_a_malformed_forwarded_is_dropped(edge: Edge) -> None:
    fields = sent_on(edge, proxied((b"forwarded", b'for="6.6.6.6, for=192.0.2.9')))
    assert b"forwarded" not in fields
    assert fields[b"x-forwarded-for"] == b"10.0.0.1"


@pytest.mark.parametrize("sent", [b"", b"with blank", b"x" * 129, b"caf\xc3\xa9", b"a, b"])
def test_a_request_id_that_is_none_is_replaced(edge: Edge, sent: bytes) -> None:
    assert re.fullmatch(rb"[0-9a-f]{24,}", sent_on(edge, proxied((b"x-request-id", sent)))[b"x-request-id"])


@pytest.mark.parametrize("proto", [b"gopher", b"", b"http, ftp", b"\xff"])
def test_a_scheme_that_is_none_is_ignored(edge: Edge, proto: bytes) -> None:
    assert sent_on(edge, proxied((b"x-forwarded-proto", proto)))[b"x-forwarded-proto"] == b"http"


def test_a_trusted_unix_peer_adds_no_address(edge: Edge) -> None:
    scope = scope_of(HOST, (b"x-forwarded-for", b"192.0.2.9"), client=None)
    assert sent_on(edge, scope)[b"x-forwarded-for"] == b"192.0.2.9"
    scope = scope_of(HOST, client=None)
    assert b"x-forwarded-for" not in sent_on(edge, scope)
    assert scope["gateway"].client == ""


def test_request_ids_differ(edge: Edge) -> None:
    assert len({sent_on(edge, scope_of(HOST))[b"x-request-id"] for _ in range(1000)}) == 1000


# ---------------------------------------------------------------- what does not pass


def test_hop_by_hop_fields_end_here(edge: Edge) -> None:
    fields = sent_on(
        edge,
        scope_of(
            HOST,
            (b"connection", b"close, X-Hop"),
            (b"x-hop", b"1"),
            (b"keep-alive", b"300"),
            (b"te", b"trailers"),
            (b"trailer", b"x"),
            (b"upgrade", b"h2c"),
            (b"http2-settings", b"AAMAAABk"),
            (b"proxy-connection", b"keep-alive"),
            (b"proxy-authorization", b"Basic eDp5"),
        ),
    )
    assert not fields.keys() & (HOP_BY_HOP | {b"x-hop"})


def test_connection_cannot_strip_our_own_fields(edge: Edge) -> None:
    for name in (b"X-Forwarded-For", b"X-Request-ID", b"Via", b"Host", b"Authorization", b"Cookie"):
        assert refusal(edge, scope_of(HOST, (b"connection", b"close, " + name))) is Cause.MALFORMED


def test_via_is_appended_and_finds_loops(edge: Edge) -> None:
    fields = sent_on(
        edge, scope_of(HOST, (b"via", b"1.0 cdn (gw-1)"), (b"via", b"HTTP/2 xgw-1x"), http_version="2")
    )
    assert fields[b"via"] == b"1.0 cdn (gw-1), HTTP/2 xgw-1x, 2 gw-1"
    assert refusal(edge, scope_of(HOST, (b"via", b"1.0 cdn, 1.1 gw-1 (l47)"))) is Cause.LOOP


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"host", b""),),
        (HOST, HOST),
        ((b"host", b"a, b"),),
        (HOST, (b":authority", b"other")),
        (HOST, (b"content-length", b"1"), (b"content-length", b"1")),
        (HOST, (b"content-length", b"+1")),
        (HOST, (b"content-length", b"-1")),
        (HOST, (b"content-length", b"1_0")),
        (HOST, (b"content-length", b"")),
        (HOST, (b"content-length", b"0x1")),
        (HOST, (b"content-length", b"9" * 19)),
        (HOST, (b"content-length", b"\xc2\xb2")),
        (HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")),
        (HOST, (b"transfer-encoding", b"gzip, chunked")),
        (HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")),
        (HOST, (b"transfer-encoding", b"xchunked")),
        (HOST, (b"transfer-encoding", b"")),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(edge: Edge, fields: tuple[Field, ...]) -> None:
    assert refusal(edge, scope_of(*fields)) is Cause.MALFORMED


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
def test_chunked_exists_in_http_1_1_only(edge: Edge, version: str) -> None:
    scope = scope_of(HOST, (b"transfer-encoding", b"chunked"), http_version=version)
    assert refusal(edge, scope) is Cause.MALFORMED


def test_framing_is_checked_without_a_host_too(edge: Edge) -> None:
    scope = scope_of((b"content-length", b"1, 1"), http_version="1.0")
    assert refusal(edge, scope) is Cause.MALFORMED


@pytest.mark.parametrize(
    ("fields", "version", "length", "has_body"),
    [
        ((), "1.1", 0, False),
        (((b"content-length", b"0"),), "1.1", 0, False),
        (((b"content-length", b"17"),), "1.1", 17, True),
        (((b"transfer-encoding", b"Chunked"),), "1.1", -1, True),
        ((), "2", -1, True),
        (((b"cookie", b"a=1"),), "2", -1, True),
        (((b"content-length", b"0"),), "2", 0, False),
    ],
)
def test_the_exchange_knows_what_body_to_expect(
    edge: Edge, fields: tuple[Field, ...], version: str, length: int, has_body: bool
) -> None:
    scope = scope_of(HOST, *fields, http_version=version)
    sent_on(edge, scope)
    assert (scope["gateway"].content_length, scope["gateway"].has_body) == (length, has_body)


def test_http_1_0_needs_no_host(edge: Edge) -> None:
    fields = sent_on(edge, scope_of(http_version="1.0"))
    assert fields[b"host"] == b""
    assert b"x-forwarded-host" not in fields
    assert fields[b"via"] == b"1.0 gw-1"


def test_granian_calls_http_1_0_by_another_name(edge: Edge) -> None:
    scope = scope_of((b"expect", b"100-continue"), http_version="1")
    fields = sent_on(edge, scope)
    assert fields[b"via"] == b"1.0 gw-1"
    assert b"expect" not in fields
    assert scope["http_version"] == "1.0", "for the access log"


def test_authority_is_a_host(edge: Edge) -> None:
    assert sent_on(edge, scope_of((b":authority", b"a.example"), http_version="2"))[b"host"] == b"a.example"
    fields = sent_on(edge, scope_of((b":authority", b"A.example"), (b"host", b"a.example"), http_version="2"))
    assert fields[b"host"] == b"a.example"
    assert b":authority" not in fields


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("fields", [(), ((b"host", b""),), ((b":authority", b""),)])
def test_later_versions_need_a_host_as_well(edge: Edge, version: str, fields: tuple[Field, ...]) -> None:
    assert refusal(edge, scope_of(*fields, http_version=version)) is Cause.MALFORMED


def test_cookie_crumbs_become_one_field(edge: Edge) -> None:
    scope = scope_of(HOST, (b"cookie", b"a=1"), (b"cookie", b"b=2"), http_version="2")
    assert sent_on(edge, scope)[b"cookie"] == b"a=1; b=2"


def test_expectations(edge: Edge) -> None:
    scope = scope_of(HOST, (b"expect", b"100-Continue"))
    assert sent_on(edge, scope)[b"expect"] == b"100-Continue"
    assert scope["gateway"].expects_continue
    assert refusal(edge, scope_of(HOST, (b"expect", b"miracles"))) is Cause.EXPECTATION
    assert b"expect" not in sent_on(edge, scope_of(HOST, (b"expect", b"100-continue"), http_version="1.0"))


def test_too_much_of_it_is_refused(edge: Edge) -> None:
    many = [(b"x-%d" % number, b"") for number in range(MAX_FIELDS)]
    assert refusal(edge, scope_of(HOST, *many)) is Cause.FIELDS_TOO_LARGE
    assert refusal(edge, scope_of(HOST, (b"x", b"y" * MAX_FIELDS_BYTES))) is Cause.FIELDS_TOO_LARGE
    sent_on(edge, scope_of(HOST, *many[1:]))


names = st.one_of(
    st.sampled_from(
        [b"connection", b"via", b"forwarded", b"x-forwarded-for", b"content-length", b"te", b"cookie"]
    ),
    st.from_regex(rb"[a-z_-]{1,8}", fullmatch=True),
)


@given(st.lists(st.tuples(names, st.binary(max_size=30)), max_size=12), st.booleans())
def test_any_fields_are_cleaned_or_refused(edge: Edge, fields: list[Field], is_proxied: bool) -> None:
    scope = scope_of(HOST, *fields, client=("10.0.0.1" if is_proxied else "192.0.2.1", 1))
    try:
        exchange = edge.admit(scope)
    except GatewayError as error:
        refused_with = error.cause.status
        assert 400 <= refused_with < 500 or refused_with == 508
    else:
        after = [name for name, _ in scope["headers"]]
        assert not HOP_BY_HOP & set(after)
        for name in (b"host", b"via", b"x-forwarded-for", b"x-request-id", b"x-forwarded-proto"):
            assert after.count(name) == 1
        assert exchange is scope["gateway"]
    edge.finish(scope["gateway"], scope)


# ---------------------------------------------------------------- the answer's way


def exchange_of(edge: Edge, *fields: Field, **others: Any) -> tuple[Exchange, Scope]:
    scope = scope_of(HOST, *fields, **others)
    return edge.admit(scope), scope


async def test_an_answer_is_cleaned_and_counted(edge: Edge) -> None:
    exchange, _ = exchange_of(edge)
    server = Recorder()
    send = edge_send(exchange, server)
    start = {
        "type": "http.response.start",
        "status": 201,
        "headers": [
            (b"connection", b"keep-alive, x-hop"),
            (b"x-hop", b"1"),
            (b"transfer-encoding", b"chunked"),
            (b"x-request-id", b"theirs"),
            (b"server", b"x"),
        ],
        "trailers": True,
    }
    await send(start)
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    await send({"type": "http.response.body"})
    own = (b"x-request-id", exchange.request_id.encode())
    assert server.messages[0]["headers"] == [(b"server", b"x"), own]
    assert server.messages[0]["trailers"] is True
    assert len(start["headers"]) == 5, "the backend's own message stays as it is"  # type: ignore[arg-type]
    assert (exchange.status, exchange.bytes_out) == (201, 3)


async def test_fields_may_be_any_sequence(edge: Edge) -> None:
    exchange, _ = exchange_of(edge)
    server = Recorder()
    await edge_send(exchange, server)(
        {"type": "http.response.start", "status": 200, "headers": ((b"a", b"b"),)}
    )
    await edge_send(exchange, server)({"type": "http.response.start", "status": 200})
    assert server.messages[0]["headers"][0] == (b"a", b"b")
    assert [name for name, _ in server.messages[1]["headers"]] == [b"x-request-id"]


# ---------------------------------------------------------------- the body's limits


def receiving(*parts: bytes) -> Any:
    waiting = [
        {"type": "http.request", "body": part, "more_body": index < len(parts)}
        for index, part in enumerate(parts, 1)
    ]

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    return receive


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message["body"]


async def test_a_body_within_its_limit_is_counted(edge: Edge) -> None:
    exchange, _ = exchange_of(edge, (b"content-length", b"100"))
    assert len(await read(bound_receive(exchange, receiving(b"x" * 60, b"x" * 40)))) == 100
    assert exchange.bytes_in == 100


@pytest.mark.parametrize(
    ("fields", "parts", "cause"),
    [
        (((b"content-length", b"101"),), (), Cause.BODY_TOO_LARGE),
        (((b"transfer-encoding", b"chunked"),), (b"x" * 60, b"x" * 41), Cause.BODY_TOO_LARGE),
        (((b"content-length", b"5"),), (b"123456",), Cause.MALFORMED),
        (((b"content-length", b"5"),), (b"12", b"34"), Cause.MALFORMED),
    ],
)
async def test_a_body_is_held_to_its_limit_and_its_length(
    edge: Edge, fields: tuple[Field, ...], parts: tuple[bytes, ...], cause: Cause
) -> None:
    exchange, _ = exchange_of(edge, *fields)
    with pytest.raises(GatewayError) as caught:
        await read(bound_receive(exchange, receiving(*parts)))
    assert caught.value.cause is cause


async def test_a_route_may_allow_more_after_the_body_was_bounded(edge: Edge) -> None:
    exchange, _ = exchange_of(edge, (b"content-length", b"200"))
    receive = bound_receive(exchange, receiving(b"x" * 200))
    exchange.max_body_bytes = 200
    assert len(await read(receive)) == 200


# ---------------------------------------------------------------- errors


async def test_a_gateway_error_is_a_problem(edge: Edge) -> None:
    exchange, scope = exchange_of(edge)
    server = Recorder()
    await answer_error(exchange, scope, edge_send(exchange, server), GatewayError(Cause.MALFORMED, "why"))
    assert server.messages[0]["status"] == exchange.status == 400
    assert server.problem["detail"] == "why"
    assert server.problem["request_id"] == exchange.request_id
    assert (exchange.error, exchange.error_detail) == ("malformed", "why")


async def test_an_unknown_error_is_500_with_its_cause_in_the_log_only(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    exchange, scope = exchange_of(edge)
    server = Recorder()
    with caplog.at_level(logging.ERROR):
        await answer_error(exchange, scope, edge_send(exchange, server), ZeroDivisionError("secret"))
    assert exchange.status == 500
    assert b"secret" not in server.messages[-1]["body"]
    (record,) = caplog.records
    assert exchange.request_id in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("status", [0, 42, 101, 1000])
async def test_a_status_that_ends_no_request_is_an_error_of_ours(edge: Edge, status: int) -> None:
    """Whichever middleware sends it: some servers would not survive it."""
    scope = proxied()
    exchange = edge.admit(scope)
    server = Recorder()
    answer = edge_send(exchange, server)
    with pytest.raises(ValueError, match="from 200 to 999") as caught:
        await answer({"type": "http.response.start", "status": status, "headers": []})
    await answer_error(exchange, scope, answer, caught.value)
    assert server.messages[0]["status"] == server.problem["status"] == 500
    assert server.problem["cause"] == "internal"


async def test_an_answer_that_has_begun_is_cut(edge: Edge) -> None:
    exchange, scope = exchange_of(edge)
    server = Recorder()
    send = edge_send(exchange, server)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    error = GatewayError(Cause.ANSWER_INCOMPLETE)
    with pytest.raises(GatewayError) as caught:
        await answer_error(exchange, scope, send, error)
    assert caught.value is error
    assert len(server.messages) == 1
    assert exchange.error == "answer_incomplete"


async def test_a_client_whose_body_ends_early_is_told_so_and_logged_as_gone(edge: Edge) -> None:
    exchange, scope = exchange_of(edge)
    server = Recorder()
    await answer_error(exchange, scope, edge_send(exchange, server), GatewayError(Cause.CLIENT_CLOSED))
    assert server.messages[0]["status"] == 400
    assert (b"connection", b"close") in server.messages[0]["headers"]
    assert (exchange.status, exchange.error, exchange.error_detail) == (499, "client_closed", "")


async def test_a_refused_websocket_gets_a_problem_where_the_server_can(edge: Edge) -> None:
    exchange, scope = exchange_of(
        edge, type="websocket", scheme="wss", extensions={"websocket.http.response": {}}
    )
    del scope["method"]
    server = Recorder()
    error = GatewayError(Cause.WEBSOCKET_UNSUPPORTED)
    await answer_error(exchange, scope, edge_send(exchange, server), error)
    assert [message["type"] for message in server.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (exchange.status, exchange.scheme) == (501, "https")
    assert server.problem["cause"] == "websocket_unsupported"


async def test_a_refused_websocket_is_closed_where_the_server_cannot(edge: Edge) -> None:
    exchange, scope = exchange_of(edge, type="websocket", scheme="ws")
    server = Recorder()
    await answer_error(
        exchange, scope, edge_send(exchange, server), GatewayError(Cause.WEBSOCKET_UNSUPPORTED)
    )
    assert server.messages == [{"type": "websocket.close", "code": 1008}]
    assert exchange.status == 403


# ---------------------------------------------------------------- the end


def test_finish_counts_and_logs(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    logged: list[float] = []

    class Log:
        def write(self, exchange: Exchange, scope: Scope, duration_s: float) -> None:
            logged.append(duration_s)

    edge = Edge(
        trusted_proxies=[],
        max_body_bytes=1,
        pseudonym="gw",
        metrics=metrics,
        access_log=Log(),  # type: ignore[arg-type]  # the log itself is tested by its own tests
    )
    exchange, scope = exchange_of(edge)
    assert metrics.in_flight == 1
    exchange.backend, exchange.endpoint, exchange.attempts = "users", "http://a", 3
    exchange.error, exchange.refused_by = "rate_limited", "per-client"
    edge.finish(exchange, scope)
    assert metrics.in_flight == 0
    assert 0.0 <= logged[0] < 5.0
    assert metrics.cell("l47_gateway_upstream_retries", "users").value == 2
    assert metrics.cell("l47_gateway_errors", "", "rate_limited").value == 1
    assert metrics.refusals("per-client", "rate_limited").value == 1
    metrics.close()


async def test_a_cancelled_request_is_not_answered(edge: Edge) -> None:
    exchange, _ = exchange_of(edge)

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    reading = asyncio.ensure_future(bound_receive(exchange, never)())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
