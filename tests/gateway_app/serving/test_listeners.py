"""Sockets that listen, as `gateway serve` opens them for its workers."""

from __future__ import annotations

import socket

import pytest

from gateway_app.serving.listeners import open_listeners


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("hosts", [("[::]",), ("[::]", "0.0.0.0"), ("0.0.0.0", "[::]")])
def test_every_address_is_both_families_with_the_other_one_listed_and_without(hosts: tuple[str, ...]) -> None:
    port = free_port()
    listeners = open_listeners([f"{host}:{port}" for host in hosts])
    try:
        assert [each.address for each in listeners] == [f"{host}:{port}" for host in hosts]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()
    finally:
        for each in listeners:
            each.close()
