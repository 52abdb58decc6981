"""What the backend is told about the host that was asked for."""

from __future__ import annotations

import pytest

from gateway_app.client_address import Peer, forwarded_element
from gateway_app.forwarding_fields import with_host

HOST = (b"host", b"old.example")
NEW = b"new.example:8080"


def test_the_targets_host_takes_the_place_of_host() -> None:
    fields = [HOST, (b"accept", b"*/*"), (b"x-forwarded-host", b"old.example"), (b"via", b"1.1 gw")]
    assert with_host(fields, NEW) == [
        (b"host", NEW), (b"accept", b"*/*"), (b"x-forwarded-host", NEW), (b"via", b"1.1 gw")
    ]  # fmt: skip


def test_what_a_proxy_has_said_before_stays() -> None:
    assert with_host([HOST, (b"x-forwarded-host", b"outer.example")], NEW) == [
        (b"host", NEW), (b"x-forwarded-host", b"outer.example")
    ]  # fmt: skip


@pytest.mark.parametrize("former", [b"old.example", b"", b'quo"ted\\'])
def test_our_element_of_forwarded_names_it(former: bytes) -> None:
    peer = Peer("192.0.2.7", True, None)
    before = b"for=198.51.100.1;host=old.example, "
    own = forwarded_element(peer, "http", former, "gw")
    fields = with_host([(b"host", former), (b"forwarded", before + own)], NEW)
    assert dict(fields)[b"forwarded"] == before + forwarded_element(peer, "http", NEW, "gw")


def test_a_request_without_a_host_gets_the_field() -> None:
    assert with_host([(b"host", b"")], NEW) == [(b"host", NEW), (b"x-forwarded-host", NEW)]
