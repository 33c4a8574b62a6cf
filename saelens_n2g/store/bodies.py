"""Bodies: JSON that is serialised and compressed once, when it is stored, and sent as it is.

The etag is that of the JSON, not of the compressed bytes; compressed bytes depend on the version of zlib, not on the
machine or the time.
"""

import hashlib
import json
import struct
import zlib
from typing import Any, NamedTuple

from saelens_n2g.errors import ArtefactError

LEVEL = 6
"""Of gzip."""
DIGEST = 16
"""Bytes of SHA-256 that are kept."""
HEADER = bytes.fromhex("1f8b08000000000000ff")
"""How gzip data begins here: no name, no time, no word of how or on which system it was made."""
LAST = bytes.fromhex("0300")
"""The empty block that compressed data ends with."""


class Body(NamedTuple):
    """A stored body."""

    data: bytes
    """Gzipped JSON in UTF-8."""
    etag: str
    """32 hex digits that change when the JSON does."""
    size: int
    """Bytes of the JSON."""

    def text(self) -> bytes:
        """The JSON. Raises `ArtefactError` if the bytes are damaged or not those of the etag."""
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            raw = unpacker.decompress(self.data, self.size + 1)  # no more than it says: a file may be a stranger's
        except (ValueError, OverflowError, zlib.error) as error:
            raise ArtefactError(f"body {self.etag}", "whole gzip data", str(error)) from error
        whole = unpacker.eof and not unpacker.unused_data
        if not whole or len(raw) != self.size or digest(raw).hex() != self.etag:
            raise ArtefactError(f"body {self.etag}", f"{self.size} bytes of that checksum", f"{len(raw)} others")
        return raw

    def json(self) -> Any:
        """The value. Raises as `text` does."""
        return json.loads(self.text())


def digest(data: bytes) -> bytes:
    """The first `DIGEST` bytes of SHA-256."""
    return hashlib.sha256(data).digest()[:DIGEST]


def row_digest(*values: str | int) -> bytes:
    """Digest of a row of the small tables."""
    return digest(serialise(list(values)))


def serialise(value: Any) -> bytes:
    """Compact JSON, keys sorted: equal values give equal bytes. Raises `ValueError` for NaN, infinity and half
    characters (lone surrogates), which are no JSON or no UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def compress(raw: bytes) -> bytes:
    """Gzip data without time or name; the same bytes for the same version of zlib.

    The first and the last character are compressed apart from the rest, and all three end at whole bytes, so that text
    can be put around and inside without unpacking (`saelens_n2g.store.splice`).
    """
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in (raw[:1], raw[1:-1], raw[1:][-1:])]
    return b"".join([HEADER, *parts, LAST, struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF)])
