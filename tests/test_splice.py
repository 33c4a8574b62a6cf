"""Splicing: whatever is put together is what it would be if it were unpacked, put together and packed."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.store.bodies import Body, compress, digest, serialise
from saelens_n2g.store.splice import ONE, Members, power, product, splice, unspliced

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
OBJECTS = st.dictionaries(st.text(), JSON, min_size=1, max_size=5)


def body_of(value: object) -> Body:
    raw = serialise(value)
    return Body(compress(raw), digest(raw).hex(), len(raw))


@given(OBJECTS, OBJECTS, st.binary(max_size=200))
def test_pieces_are_one_gzip_member(first, second, text):
    pieces = [text, body_of(first), b"", Members(body_of(second)), text]
    expected = text + serialise(first) + serialise(second)[1:-1] + text
    found = splice(pieces)
    assert found is not None
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert unpacker.decompress(found) == expected == unspliced(pieces)
    assert (unpacker.eof, unpacker.unused_data) == (True, b""), "one member: some clients read no other"


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 200_000])
def test_long_texts_take_several_blocks(size):
    body = body_of({"a": list(range(size // 10))})
    pieces = [b"x" * size, body, b"y" * size]
    assert gzip.decompress(splice(pieces)) == unspliced(pieces)


def test_members_go_before_those_of_a_body():
    body = body_of({"b": 1, "c": [2]})
    found = json.loads(gzip.decompress(splice([b'{"data":{"a":0,', Members(body), b"}}"])))
    assert found == {"data": {"a": 0, "b": 1, "c": [2]}}


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_combine(a, b):
    assert product(zlib.crc32(a), power(len(b))) ^ zlib.crc32(b) == zlib.crc32(a + b)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_powers_multiply(n, m):
    assert product(power(n), power(m)) == power(n + m)
    assert product(power(n), ONE) == power(n)


def test_what_was_stored_otherwise_is_not_spliced():
    raw = serialise({"a": 1})
    for data in (gzip.compress(raw), compress(raw)[:-3], b"", compress(raw)[:12]):
        assert splice([b"{", Body(data, digest(raw).hex(), len(raw)), b"}"]) is None, data


def test_damage_is_found_by_the_reader():
    body = body_of({"a": list(range(500))})
    damaged = body._replace(data=body.data[:200] + bytes([body.data[200] ^ 64]) + body.data[201:])
    with pytest.raises((OSError, zlib.error)):
        gzip.decompress(splice([b'{"data":', damaged, b"}"]))
