"""Splice: stored bodies put together to one gzip answer, without being unpacked.

    splice([b'{"data":', body, b',"metadata":' + metadata + b"}"])
    splice([b'{"data":{"similar":[],', Inside(body), b"}"])       # more members in the object of a body

Compressed data is a row of blocks. Bodies are stored so that theirs begin and end at whole bytes (`bodies.compress`);
text around them goes into blocks that are not compressed. What must be computed is the checksum of the whole: with x^8n
the polynomial that n more bytes multiply a checksum by, crc(a + b) = crc(a) * x^8n + crc(b), in the field of the CRC-32
polynomial (RFC 1952, section 8; the rule for combining is that of zlib's `crc32_combine`). This takes microseconds,
where unpacking and compressing 18 kB takes a hundred.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from saelens_n2g.store.bodies import HEADER, LAST, Body, compress

POLYNOMIAL = 0xEDB88320
"""Of CRC-32, the lowest power in the highest bit."""
LITERAL = 0xFFFF
"""Bytes of a block that is not compressed, at most."""
_OPENING = compress(b"{")[len(HEADER) : -len(LAST) - 8]
"""An opening brace, as every body begins; behind it stands an empty block from the flush of nothing."""
_FIRST = _OPENING[: _OPENING.index(b"\x00\x00\xff\xff") + 4]
_BRACE = zlib.crc32(b"{")


class Inside(NamedTuple):
    """An object without its opening brace, for members to be put before its own. It must have members."""

    body: Body


Piece = bytes | Body | Inside


def splice(pieces: Sequence[Piece]) -> bytes | None:
    """Gzip data of the pieces one after the other; None if a body was not stored to be spliced, or is cut short.

    Bodies themselves are not looked into: one that is damaged inside gives an answer that its reader refuses.
    """
    out, checksum, size = [HEADER], 0, 0
    for piece in pieces:
        if isinstance(piece, bytes):
            out += _literal(piece)
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            continue
        body, inside = (piece.body, 1) if isinstance(piece, Inside) else (piece, 0)
        data = body.data
        first = len(HEADER) + len(_FIRST)
        if not data.startswith(HEADER + _FIRST) or data[-10:-8] != LAST or len(data) < first + 10:
            return None
        own, length = struct.unpack("<II", data[-8:])
        out.append(data[first if inside else len(HEADER) : -10])
        rest = length - inside
        checksum = product(checksum ^ (_BRACE if inside else 0), power(rest)) ^ own
        size += rest
    return b"".join([*out, LAST, struct.pack("<II", checksum, size & 0xFFFFFFFF)])


def unspliced(pieces: Sequence[Piece]) -> bytes:
    """The same as plain JSON. Raises `ArtefactError` for a damaged body."""
    return b"".join(_text(piece) for piece in pieces)


def _text(piece: Piece) -> bytes:
    if isinstance(piece, bytes):
        return piece
    return piece.body.text()[1:] if isinstance(piece, Inside) else piece.text()


def _literal(text: bytes) -> list[bytes]:
    """Blocks that are not compressed."""
    found = []
    for start in range(0, len(text), LITERAL):
        part = text[start : start + LITERAL]
        found += [b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF), part]
    return found


def product(a: int, b: int) -> int:
    """The product of two polynomials in the field, 32 bits each, the lowest power in the highest bit."""
    found = 0
    while b:
        if b & 0x80000000:
            found ^= a
        b = b << 1 & 0xFFFFFFFF
        a = a >> 1 ^ POLYNOMIAL if a & 1 else a >> 1
    return found


@lru_cache(maxsize=1 << 16)
def power(n: int) -> int:
    """x^8n: what n bytes behind it multiply a checksum by."""
    low = _LOW[n & 0xFF]
    return low if n < 0x100 else product(_high(n >> 8, 8), low)


@lru_cache(maxsize=1 << 14)
def _high(n: int, squarings: int) -> int:
    """x^(8 n 2^squarings)."""
    found, factor = ONE, _LOW[1]
    for _ in range(squarings):
        factor = product(factor, factor)
    while n:
        if n & 1:
            found = product(found, factor)
        factor = product(factor, factor)
        n >>= 1
    return found


ONE = 0x80000000
_LOW = [ONE]
for _ in range(255):  # times x^8, bit by bit
    _value = _LOW[-1]
    for _ in range(8):
        _value = _value >> 1 ^ POLYNOMIAL if _value & 1 else _value >> 1
    _LOW.append(_value)
