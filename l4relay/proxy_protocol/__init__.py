"""The PROXY protocol, versions 1 and 2: who the client is, told ahead of the connection's own bytes.

Section numbers are those of HAProxy's proxy-protocol.txt. Pure: bytes in, values out. Whether a peer may send
a header at all is the caller's decision (section 5: it must never be guessed from the bytes alone).
"""

from l4relay.proxy_protocol.header import (
    Endpoint,
    Family,
    Header,
    ProxyProtocolError,
    Tlv,
    TlvType,
    Transport,
)
from l4relay.proxy_protocol.reading import MAX_V2_BYTES, parse
from l4relay.proxy_protocol.writing import LOCAL_V2, serialise_v1, serialise_v2, unique_id_tlv

__all__ = [
    "LOCAL_V2",
    "MAX_V2_BYTES",
    "Endpoint",
    "Family",
    "Header",
    "ProxyProtocolError",
    "Tlv",
    "TlvType",
    "Transport",
    "parse",
    "serialise_v1",
    "serialise_v2",
    "unique_id_tlv",
]
