import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from l4relay.dns.message import RecordType, encode_name
from l4relay.dns.resolve import (
    LOCAL_EXPIRY_S,
    MAX_TTL_S,
    MIN_TTL_S,
    ResolveError,
    Resolver,
)
from l4relay.dns.system_files import ResolvConf, parse_hosts, parse_resolv_conf

Zone = dict[tuple[str, RecordType], list[bytes]]
A, AAAA, CNAME = RecordType.A, RecordType.AAAA, RecordType.CNAME


def record(name: str, kind: RecordType, content: bytes, ttl_s: int = 60) -> bytes:
    numbers = ((kind, 2), (1, 2), (ttl_s, 4), (len(content), 2))
    return encode_name(name) + b"".join(number.to_bytes(size, "big") for number, size in numbers) + content


def ipv4(name: str, last: int, ttl_s: int = 60) -> bytes:
    return record(name, A, bytes((127, 0, 0, last)), ttl_s)


def alias(name: str, target: str, ttl_s: int = 60) -> bytes:
    return record(name, CNAME, encode_name(target), ttl_s)


class Nameserver:
    """A nameserver on a loopback port, over UDP and TCP: answers from `zone`, NXDOMAIN for what is not there.

    `spoil` may change a UDP reply or leave it out; `udp_limit` truncates longer ones.
    """

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[tuple[bytes, int, str]] = []
        self.udp_limit = 512
        self.spoil: Callable[[bytes], list[bytes]] = lambda reply: [reply]

    def reply(self, query: bytes, over: str) -> bytes:
        name, kind = query[12:-4], int.from_bytes(query[-4:-2], "big")
        self.asked.append((name, kind, over))
        known = {(encode_name(known), k): records for (known, k), records in self.zone.items()}
        answers = known.get((name, RecordType(kind)))
        exists = any(listed == name for listed, _ in known)
        flags = 0x8180 if exists else 0x8183
        counts = (1, len(answers or ()), 0, 0)
        header = query[:2] + b"".join(number.to_bytes(2, "big") for number in (flags, *counts))
        return header + query[12:] + b"".join(answers or ())

    def udp_replies(self, query: bytes) -> list[bytes]:
        reply = self.reply(query, "udp")
        if len(reply) > self.udp_limit:
            reply = reply[:2] + b"\x83\x80" + reply[4:6] + bytes(6) + query[12:]
        return self.spoil(reply)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.reply(query, "tcp")
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()


class _UdpProtocol(asyncio.DatagramProtocol):
    def __init__(self, nameserver: Nameserver) -> None:
        self.nameserver = nameserver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for reply in self.nameserver.udp_replies(data):
            self.transport.sendto(reply, addr)


@asynccontextmanager
async def serving(nameserver: Nameserver, ip: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve on one port for both transports; that port is given back."""
    stream, datagram = _pair_of_sockets(ip, port)
    tcp = await asyncio.start_server(nameserver.serve_tcp, sock=stream)
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _UdpProtocol(nameserver), sock=datagram
    )
    try:
        async with tcp:
            yield stream.getsockname()[1]
    finally:
        udp.close()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn


def _pair_of_sockets(ip: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Bind TCP and UDP to one port; a port that is free for one may be taken for the other."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    while True:
        stream = socket.socket(family, socket.SOCK_STREAM)
        datagram = socket.socket(family, socket.SOCK_DGRAM)
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind((ip, port))
            datagram.bind((ip, stream.getsockname()[1]))
        except OSError:
            stream.close()
            datagram.close()
            if port:
                raise
        else:
            return stream, datagram


@pytest.fixture
def make_resolver(tmp_path: Path) -> Callable[..., Resolver]:
    def make(port: int = 1, *, conf: str = "nameserver 127.0.0.1", hosts: str = "") -> Resolver:
        (tmp_path / "resolv.conf").write_text(conf)
        (tmp_path / "hosts").write_text(hosts)
        return Resolver(tmp_path / "resolv.conf", tmp_path / "hosts", port)

    return make


MakeResolver = Callable[..., Resolver]


async def test_hosts_come_before_nameservers_and_are_read_again(
    make_resolver: MakeResolver, tmp_path: Path
) -> None:
    resolver = make_resolver(hosts="::1 db DB.local # comment\n127.0.0.9 db\nnonsense db\n")
    resolution = await resolver.resolve("DB")
    assert (resolution.addresses, resolution.expires_in_s) == (("127.0.0.9", "::1"), LOCAL_EXPIRY_S)
    (tmp_path / "hosts").write_text("127.0.0.10 db")
    assert (await resolver.resolve("db.")).addresses == ("127.0.0.10",)


async def test_localhost_needs_nobody(make_resolver: MakeResolver) -> None:
    assert (await make_resolver().resolve("localhost")).addresses == ("127.0.0.1", "::1")


async def test_both_families_are_asked_and_the_shortest_ttl_counts(make_resolver: MakeResolver) -> None:
    zone: Zone = {
        ("db.example", A): [ipv4("db.example", 1, 50), ipv4("db.example", 2, 90)],
        ("db.example", AAAA): [record("db.example", AAAA, socket.inet_pton(socket.AF_INET6, "::1"), 40)],
    }
    async with serving(Nameserver(zone)) as port:
        resolution = await make_resolver(port).resolve("db.example")
    assert resolution.addresses == ("127.0.0.1", "127.0.0.2", "::1")
    assert resolution.expires_in_s == 40


@pytest.mark.parametrize(("listed", "kept"), [((1, 255), {"127.0.0.1"}), ((255,), {"255.255.255.255"})])
async def test_an_address_without_a_route_is_left_out_if_there_are_others(
    make_resolver: MakeResolver, listed: tuple[int, ...], kept: set[str]
) -> None:
    """The broadcast address stands for it: the system connects no ordinary socket to that."""
    packed = {1: b"\x7f\0\0\1", 255: b"\xff\xff\xff\xff"}
    zone: Zone = {("db.example", A): [record("db.example", A, packed[each]) for each in listed]}
    async with serving(Nameserver(zone)) as port:
        assert set((await make_resolver(port).resolve("db.example")).addresses) == kept


@pytest.mark.parametrize(("ttl_s", "expires_in_s"), [(0, MIN_TTL_S), (7, 7), (86_400, MAX_TTL_S)])
async def test_ttls_are_clamped(make_resolver: MakeResolver, ttl_s: int, expires_in_s: float) -> None:
    async with serving(Nameserver({("db.example", A): [ipv4("db.example", 1, ttl_s)]})) as port:
        resolution = await make_resolver(port).resolve("db.example")
    assert resolution.expires_in_s == expires_in_s


async def test_an_alias_is_followed(make_resolver: MakeResolver) -> None:
    zone: Zone = {
        ("www.example", A): [alias("www.example", "a.example", 30), ipv4("a.example", 3, 90)],
    }
    async with serving(Nameserver(zone)) as port:
        resolution = await make_resolver(port).resolve("www.example")
    assert (resolution.addresses, resolution.expires_in_s) == (("127.0.0.3",), 30)


async def test_a_truncated_reply_is_asked_for_over_tcp(make_resolver: MakeResolver) -> None:
    nameserver = Nameserver({("db.example", A): [ipv4("db.example", last) for last in range(1, 100)]})
    async with serving(nameserver) as port:
        resolution = await make_resolver(port).resolve("db.example")
    assert len(resolution.addresses) == 99
    assert (encode_name("db.example"), A, "tcp") in nameserver.asked


async def test_absence_is_an_error(make_resolver: MakeResolver) -> None:
    async with serving(Nameserver({("empty.example", CNAME): []})) as port:
        for name in ("nobody.example", "empty.example"):
            with pytest.raises(ResolveError, match="no such name"):
                await make_resolver(port).resolve(name)


async def test_an_impossible_name_is_an_error(make_resolver: MakeResolver) -> None:
    with pytest.raises(ResolveError, match="no such name"):
        await make_resolver().resolve("a..b")


async def test_short_names_are_searched(make_resolver: MakeResolver) -> None:
    nameserver = Nameserver({("db.two.example", A): [ipv4("db.two.example", 4)]})
    async with serving(nameserver) as port:
        resolver = make_resolver(port, conf="nameserver 127.0.0.1\nsearch one.example two.example")
        assert (await resolver.resolve("db")).addresses == ("127.0.0.4",)
        with pytest.raises(ResolveError):
            await resolver.resolve("db.")
    assert [name for name, kind, _ in nameserver.asked if kind == A] == [
        encode_name("db.one.example"),
        encode_name("db.two.example"),
        encode_name("db"),
    ]


async def test_forged_and_garbled_replies_are_passed_over(make_resolver: MakeResolver) -> None:
    nameserver = Nameserver({("db.example", A): [ipv4("db.example", 5)]})
    nameserver.spoil = lambda reply: [bytes((reply[0] ^ 1,)) + reply[1:], b"", reply[:20], reply]
    async with serving(nameserver) as port:
        assert (await make_resolver(port).resolve("db.example")).addresses == ("127.0.0.5",)


async def test_the_next_nameserver_is_asked_when_one_fails(
    make_resolver: MakeResolver, new_port: Callable[[], int]
) -> None:
    broken, sound = Nameserver({}), Nameserver({("db.example", A): [ipv4("db.example", 6)]})
    broken.spoil = lambda reply: [reply[:3] + bytes((reply[3] & 0xF0 | 2,)) + reply[4:]]  # SERVFAIL
    conf = "nameserver 127.0.0.3\nnameserver 127.0.0.2\nnameserver 127.0.0.1"  # the first one refuses
    async with serving(sound, port=new_port()) as port, serving(broken, "127.0.0.2", port):
        assert (await make_resolver(port, conf=conf).resolve("db.example")).addresses == ("127.0.0.6",)
    assert broken.asked


async def test_a_silent_nameserver_is_asked_again(make_resolver: MakeResolver) -> None:
    nameserver = Nameserver({("db.example", A): [ipv4("db.example", 7)]})
    nameserver.spoil = lambda reply: [reply] if len(nameserver.asked) > 2 else []
    async with serving(nameserver) as port:
        resolver = make_resolver(port, conf="nameserver 127.0.0.1\noptions timeout:1 attempts:3")
        assert (await resolver.resolve("db.example")).addresses == ("127.0.0.7",)


async def test_one_family_without_an_answer_does_not_spoil_the_other(make_resolver: MakeResolver) -> None:
    nameserver = Nameserver({("db.example", A): [ipv4("db.example", 8)]})
    refused = b"\x85"
    nameserver.spoil = lambda reply: [reply if reply[6:8] == b"\0\1" else reply[:3] + refused + reply[4:]]
    async with serving(nameserver) as port:
        assert (await make_resolver(port).resolve("db.example")).addresses == ("127.0.0.8",)


@pytest.mark.parametrize("conf", ["", "nameserver 127.0.0.1"])
async def test_the_system_is_asked_where_no_nameserver_answers(
    make_resolver: MakeResolver, new_port: Callable[[], int], conf: str
) -> None:
    resolver = make_resolver(new_port(), conf=conf)
    # What the system's own resolver knows differs between machines: the machine's own answer is the measure.
    host = socket.gethostname()
    try:
        expected = {address[0] for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        with pytest.raises(ResolveError):
            await resolver.resolve(host)
        return
    resolution = await resolver.resolve(host)
    assert set(resolution.addresses) == expected
    assert resolution.expires_in_s == LOCAL_EXPIRY_S


def test_resolv_conf_is_read_as_the_system_does() -> None:
    conf = parse_resolv_conf(
        "# comment\nnameserver 192.0.2.1 ; one\nnameserver 2001:db8::1\nnameserver ?\nnameserver 192.0.2.2\n"
        "nameserver 192.0.2.3\ndomain old.example\nsearch a.example b.example.\n"
        "options ndots:2 timeout:99 attempts:0 rotate edns0 trust-ad\nsortlist x\n"
    )
    assert conf == ResolvConf(
        ("192.0.2.1", "2001:db8::1", "192.0.2.2"), ("a.example", "b.example"), 2, timeout_s=30, attempts=1
    )
    assert parse_resolv_conf("") == ResolvConf((), (), ndots=1, timeout_s=2, attempts=2)
    assert conf.names_to_try("x.y") == ["x.y.a.example", "x.y.b.example", "x.y"]
    assert conf.names_to_try("x.y.z") == ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]
    assert conf.names_to_try("x.") == ["x."]


def test_hosts_are_read_as_the_system_does() -> None:
    assert parse_hosts("::1 a\n1.2.3.4 A b\n\n# c\nx y") == {"a": ("1.2.3.4", "::1"), "b": ("1.2.3.4",)}
