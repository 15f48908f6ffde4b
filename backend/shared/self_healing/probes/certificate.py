"""Reads the end of a certificate's validity straight from its DER form (RFC 5280, section 4.1).

Python decodes a peer's certificate only when it was verified; its expiry also matters where it was not.
"""

from __future__ import annotations

from datetime import UTC, datetime

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18


def not_after(der: bytes) -> float:
    """Return the end of validity in unix seconds. Raises ValueError when ``der`` is no certificate."""
    try:
        certificate = _Reader(der).enter(_SEQUENCE)
        tbs = certificate.enter(_SEQUENCE)
        if tbs.peek() == _VERSION:
            tbs.next()
        for _ in ("serial number", "signature", "issuer"):
            tbs.next()
        validity = tbs.enter(_SEQUENCE)
        validity.next()
        tag, value = validity.next()
        text = value.decode("ascii")
        if tag == _UTC_TIME:
            # Two digits of the year: 50 to 99 belong to the twentieth century.
            text = ("19" if int(text[:2]) >= 50 else "20") + text
        elif tag != _GENERALIZED_TIME:
            raise ValueError(f"unexpected tag {tag:#x}")
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError) as error:
        raise ValueError(f"is no X.509 certificate: {error}") from None


class _Reader:
    """Walks over the tag-length-value elements of one level."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def peek(self) -> int:
        return self._data[self._at]

    def next(self) -> tuple[int, bytes]:
        tag = self._data[self._at]
        length = self._data[self._at + 1]
        start = self._at + 2
        if length & 0x80:
            width = length & 0x7F
            if not 1 <= width <= 4 or start + width > len(self._data):
                raise ValueError("a length is out of range")
            length = int.from_bytes(self._data[start : start + width], "big")
            start += width
        end = start + length
        if end > len(self._data):
            raise ValueError("it is cut short")
        self._at = end
        return tag, self._data[start:end]

    def enter(self, expected: int) -> _Reader:
        tag, value = self.next()
        if tag != expected:
            raise ValueError(f"tag {tag:#x} where {expected:#x} belongs")
        return _Reader(value)
