"""What a connection says before its own bytes: a PROXY header, and the name in a TLS ClientHello.

Pure: bytes in, verdict out. The ClientHello is only looked at and goes on to the endpoint untouched; the
PROXY header is taken off.
"""

from l4relay.proxy_protocol import Header, parse
from l4relay.sni import ClientHelloReader


class Preface:
    """Reads the first bytes of one connection, however they are split.

    Args:
        expects_header: A PROXY header has to come first.
        reads_name: The server name of a ClientHello is wanted.

    Attributes:
        header: The PROXY header, None until it is complete or where none is expected.
        rest: What came behind the header, for the endpoint.

    """

    __slots__ = ("_expects_header", "_hello", "header", "rest")

    def __init__(self, *, expects_header: bool, reads_name: bool) -> None:
        self._expects_header = expects_header
        self._hello = ClientHelloReader() if reads_name else None
        self.header: Header | None = None
        self.rest = bytearray()

    @property
    def server_name(self) -> str | None:
        """The name asked for; None where there is none."""
        return self._hello.server_name if self._hello is not None else None

    def feed(self, segment: bytes) -> bool:
        """Take the next bytes; true when all is known that was wanted.

        Raises:
            ProxyProtocolError: a PROXY header is expected, and this is none.

        """
        self.rest += segment
        if self._expects_header and self.header is None:
            parsed = parse(self.rest)
            if parsed is None:
                return False
            self.header, length = parsed
            del self.rest[:length]
        return self._hello is None or self._hello.read(self.rest)
