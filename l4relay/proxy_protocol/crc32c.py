"""The checksum of version 2 headers, which the standard library lacks."""

from typing import Final


def _make_table() -> tuple[int, ...]:
    table = []
    for remainder in range(256):
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


_TABLE: Final = _make_table()


def crc32c(buffer: bytes) -> int:
    """Return the CRC32C (Castagnoli) checksum of RFC 9260 Appendix A (formerly RFC 4960 Appendix B)."""
    table = _TABLE
    remainder = 0xFFFFFFFF
    for byte in buffer:
        remainder = remainder >> 8 ^ table[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF
