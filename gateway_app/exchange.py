"""The state of one request on its way through the gateway.

The edge makes one `Exchange` per request and puts it into the ASGI scope as `scope["gateway"]`. Each stage
writes what it decided; the access log and the metrics read it at the end. Nothing here outlives the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_app.header_fields import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_app.header_fields import Field
    from gateway_app.route import Route

NO_PARAMS: Mapping[str, str] = {}

NOT_FROM_BACKENDS: Final = HOP_BY_HOP | {b"x-request-id"}
"""What `withheld_fields` begins with: fields that end here, and the one that the edge writes itself."""


class Exchange:
    """One request and what became of it.

    Middlewares may read every attribute, and set `backend` (to send the request to another backend of the
    file), `max_body_bytes` and entries of `log`. To `withheld_fields` and `answer_fields` they may add, which
    costs less than to wrap `send`, and holds for the gateway's own answers too.

    Attributes:
        request_id: taken from a trusted proxy, else made here; goes to the backend, the client and the log.
        client: the client's IP address as text, found behind the trusted proxies; "" if unknown.
        scheme: "http" or "https", as the client used it.
        host: the requested host, lower case, without port; "" if the request has none.
        decoded_path: the same path as the gateway put it into `scope["path"]`.
        raw_path: the same path as the gateway put it into `scope["raw_path"]`.
        path: the normalised path that routes are matched on (see `routing.target`).
        params: what `{name}` segments captured, percent-decoded.
        route: the route that won, None until matched.
        backend: name of the backend to forward to; set from the route, a middleware may change it.
        content_length: declared length of the request body in bytes; 0 without a body, -1 if unknown.
        has_body: the request has a body, or may have one (HTTP/2 without a declared length).
        expects_continue: the client waits for 100 (Continue) before it sends the body.
        max_body_bytes: the largest request body that is read; more is 413.
        started: loop time at arrival, in seconds.
        upstream_started: loop time when the last attempt began, 0.0 if none did.
        upstream_first_byte: loop time of the answer's first byte, 0.0 if there was none.
        endpoint: the endpoint that answered or failed last, as configured; "" if none was asked.
        attempts: requests sent upstream, retries included.
        status: the status sent to the client, 0 if none was sent.
        bytes_in: request body bytes read.
        bytes_out: response body bytes sent.
        ends_connection: the client's connection is closed after the answer.
        withheld_fields: names of fields that do not go to the client, whoever has put them into the answer.
        answer_fields: fields that the edge adds to the answer, whoever makes it.
        error: the `Cause` token of what went wrong, "" if nothing did.
        error_detail: what exactly went wrong, for the log.
        refused_by: name of the middleware that refused the request, "" if none did.
        log: fields a middleware adds to the access log line, None until the first.
    """

    __slots__ = (
        "answer_fields",
        "attempts",
        "backend",
        "bytes_in",
        "bytes_out",
        "client",
        "content_length",
        "decoded_path",
        "endpoint",
        "ends_connection",
        "error",
        "error_detail",
        "expects_continue",
        "has_body",
        "host",
        "log",
        "max_body_bytes",
        "params",
        "path",
        "raw_path",
        "refused_by",
        "request_id",
        "route",
        "scheme",
        "started",
        "status",
        "upstream_first_byte",
        "upstream_started",
        "withheld_fields",
    )

    def __init__(
        self, request_id: str, client: str, scheme: str, started: float, max_body_bytes: int
    ) -> None:
        self.request_id = request_id
        self.client = client
        self.scheme = scheme
        self.started = started
        self.max_body_bytes = max_body_bytes
        self.content_length = 0
        self.has_body = False
        self.expects_continue = False
        self.host = ""
        self.path = ""
        self.decoded_path = ""
        self.raw_path = b""
        self.params = NO_PARAMS
        self.route: Route | None = None
        self.backend = ""
        self.upstream_started = 0.0
        self.upstream_first_byte = 0.0
        self.endpoint = ""
        self.attempts = 0
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.ends_connection = False
        self.withheld_fields: frozenset[bytes] = NOT_FROM_BACKENDS
        self.answer_fields: tuple[Field, ...] = ()
        self.error = ""
        self.error_detail = ""
        self.refused_by = ""
        self.log: dict[str, object] | None = None
