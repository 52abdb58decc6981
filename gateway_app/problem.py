"""Failure is an answer: causes, their status, and the RFC 9457 body that tells the client.

One table maps every cause to its HTTP status and its `Proxy-Status` error type (RFC 9209 2.3). Code that
fails raises `GatewayError(cause, detail)`; the edge turns it into an answer. A middleware that wants to
answer with a problem itself calls `send_problem`.
"""

from __future__ import annotations

import enum
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Scope, Send

    Headers = Sequence[tuple[bytes, bytes]]

PROXY_NAME = "l47-gateway"


class Cause(enum.Enum):
    """Why the gateway answers itself: token, status, Proxy-Status error type, tells the client the detail."""

    MALFORMED = ("malformed", 400, "http_request_error", True)
    BLOCKED = ("blocked", 400, "http_request_denied", False)
    FORBIDDEN = ("forbidden", 403, "http_request_denied", False)
    NO_ROUTE = ("no_route", 404, "destination_not_found", False)
    REQUEST_TIMEOUT = ("request_timeout", 408, "http_request_error", True)
    BODY_TOO_LARGE = ("body_too_large", 413, "http_request_error", True)
    TARGET_TOO_LONG = ("target_too_long", 414, "http_request_error", True)
    EXPECTATION = ("expectation", 417, "http_request_error", True)
    MISDIRECTED = ("misdirected", 421, "http_request_error", True)
    RATE_LIMITED = ("rate_limited", 429, "http_request_denied", True)
    FIELDS_TOO_LARGE = ("fields_too_large", 431, "http_request_error", True)
    CLIENT_STALLED = ("client_stalled", 408, "connection_write_timeout", False)
    CLIENT_CLOSED = ("client_closed", 499, "connection_terminated", False)
    INTERNAL = ("internal", 500, "proxy_internal_error", False)
    WEBSOCKET_UNSUPPORTED = ("websocket_unsupported", 501, "http_request_error", True)
    CONNECTION_REFUSED = ("connection_refused", 502, "connection_refused", False)
    CONNECTION_RESET = ("connection_reset", 502, "connection_terminated", False)
    DNS = ("dns", 502, "dns_error", False)
    TLS = ("tls", 502, "tls_protocol_error", False)
    TLS_CERTIFICATE = ("tls_certificate", 502, "tls_certificate_error", False)
    BAD_ANSWER = ("bad_answer", 502, "http_protocol_error", False)
    ANSWER_INCOMPLETE = ("answer_incomplete", 502, "http_response_incomplete", False)
    ANSWER_FIELDS_TOO_LARGE = ("answer_fields_too_large", 502, "http_response_header_section_size", False)
    NO_ENDPOINT = ("no_endpoint", 503, "destination_unavailable", False)
    OVERLOADED = ("overloaded", 503, "connection_limit_reached", False)
    DRAINING = ("draining", 503, "proxy_internal_response", False)
    CONNECT_TIMEOUT = ("connect_timeout", 504, "connection_timeout", False)
    RESPONSE_TIMEOUT = ("response_timeout", 504, "http_response_timeout", False)
    IDLE_TIMEOUT = ("idle_timeout", 504, "connection_read_timeout", False)
    TOTAL_TIMEOUT = ("total_timeout", 504, "http_response_timeout", False)
    LOOP = ("loop", 508, "proxy_loop_detected", False)

    def __init__(self, token: str, status: int, proxy_status: str, tells_detail: bool) -> None:
        self.token = token
        self.status = status
        self.proxy_status = proxy_status
        self.tells_detail = tells_detail
        self.title = "Client Closed Request" if status == 499 else HTTPStatus(status).phrase


class GatewayError(Exception):
    """A request that cannot go on. The edge answers with the cause's status, unless an answer has begun.

    `detail` is for the log; the client sees it only where the cause concerns the client's own request.
    """

    def __init__(self, cause: Cause, detail: str = "", headers: Headers = ()) -> None:
        super().__init__(f"{cause.token}: {detail}" if detail else cause.token)
        self.cause = cause
        self.detail = detail
        self.headers = headers


async def send_problem(
    scope: Scope, send: Send, cause: Cause, detail: str = "", headers: Headers = ()
) -> None:
    """Answer with `cause` as application/problem+json (RFC 9457) and Proxy-Status (RFC 9209).

    `headers` are added as they are. The cause and detail are noted on the exchange for the access log.
    """
    exchange = scope["gateway"]
    exchange.error = cause.token
    exchange.error_detail = detail
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": cause.title,
        "status": cause.status,
        "cause": cause.token,
        "request_id": exchange.request_id,
    }
    if detail and cause.tells_detail:
        problem["detail"] = detail
    body = json.dumps(problem).encode()
    start = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"proxy-status", f"{PROXY_NAME}; error={cause.proxy_status}".encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": cause.status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
