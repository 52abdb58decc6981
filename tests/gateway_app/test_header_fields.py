import pytest

from gateway_app.header_fields import checked_nominations, list_members, nominated_by, without_hop_by_hop
from gateway_app.problem import Cause, GatewayError


def test_hop_by_hop_fields_and_nominated_ones_end_here() -> None:
    fields = [
        (b"content-type", b"text/plain"),
        (b"connection", b"close, X-Private"),
        (b"keep-alive", b"timeout=5"),
        (b"x-private", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"x-public", b"1"),
    ]
    assert without_hop_by_hop(fields) == [(b"content-type", b"text/plain"), (b"x-public", b"1")]


def test_an_answer_cannot_nominate_what_is_end_to_end() -> None:
    fields = [
        (b"connection", b"Content-Length, Set-Cookie"),
        (b"content-length", b"3"),
        (b"set-cookie", b"a=1"),
    ]
    assert without_hop_by_hop(fields) == fields[1:]


@pytest.mark.parametrize(
    "name", [b"Host", b"authorization", b"COOKIE", b"content-length", b"X-Forwarded-For"]
)
def test_a_client_must_not_nominate_what_is_end_to_end(name: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        checked_nominations(b"keep-alive ,\t" + name)
    assert caught.value.cause is Cause.MALFORMED


def test_members_of_lists() -> None:
    assert list_members(b" a, ,b\t,") == [b"a", b"b"]
    assert nominated_by(b"keep-alive") == frozenset()
    assert nominated_by(b"TE, close") == {b"te", b"close"}
