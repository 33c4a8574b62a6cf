"""Streams: each row once an epoch, every batch a function of its step, sites in step with each other."""

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.rows import Stream, statistics, stream_statistics
from saelens_n2g.training.rows import as_rows as rows_of
from saelens_n2g.training.stream import BlockSource, MultiStream, OneSite, ShuffledStream, SiteBlocks

ONE, OTHER = Site(0, "resid_post"), Site(2, "mlp_post")


@dataclass
class Numbered:
    """Rows that are their own numbers, in blocks of the given sizes; counts what is read."""

    sizes: list[int]
    known: bool = True
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def size(self, block: int) -> int | None:
        return self.sizes[block] if self.known else None

    def block(self, block: int) -> Tensor:
        self.asked.append(block)
        start = sum(self.sizes[:block])
        return torch.arange(start, start + self.sizes[block], dtype=torch.float64)[:, None]


class Paired(Numbered):
    """The same at two sites, told apart by sign and width."""

    def block(self, block: int) -> dict[Site, Tensor]:
        rows = super().block(block)
        return {ONE: rows.float(), OTHER: -rows.expand(-1, 2)}


def serve(stream: Stream, steps: range) -> list[list[int]]:
    return [stream.batch(step)[:, 0].int().tolist() for step in steps]


SIZES = st.lists(st.integers(0, 13), min_size=1, max_size=14)
SHAPES = st.tuples(st.integers(1, 4), st.integers(4, 10))  # batch, buffer in batches


@given(SIZES, SHAPES, st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_each_row_is_served_once_an_epoch(sizes, shape, seed, known):
    batch, held = shape
    total, steps = sum(sizes), sum(sizes) // batch
    if steps == 0:
        with pytest.raises(InputError, match=f"at least one batch of {batch} rows, found {total} rows"):
            ShuffledStream(Numbered(sizes, known), batch=batch, buffer_rows=held * batch, seed=seed).batch(0)
        return
    stream = ShuffledStream(Numbered(sizes, known), batch=batch, buffer_rows=held * batch, seed=seed)
    served = serve(stream, range(3 * steps))
    assert stream.rows_per_epoch == total
    assert stream.left_over == total % batch
    for epoch in range(3):
        rows = [row for rows in served[epoch * steps : (epoch + 1) * steps] for row in rows]
        assert len(set(rows)) == len(rows) == steps * batch
        assert set(rows) <= set(range(total))


@given(SIZES.filter(lambda s: sum(s) >= 4), SHAPES, st.booleans(), st.lists(st.integers(0, 80), max_size=6))
@settings(deadline=None, max_examples=60)
def test_any_step_can_be_the_first(sizes, shape, known, steps):
    """A new stream at any step, and one that jumps about, serve what an undisturbed run serves."""
    batch, held = shape

    def stream() -> ShuffledStream:
        return ShuffledStream(Numbered(sizes, known), batch=batch, buffer_rows=held * batch, seed=7)

    whole, jumping = serve(stream(), range(81)), stream()
    for step in steps:
        assert serve(stream(), range(step, min(step + 2, 81))) == whole[step : step + 2]
        assert serve(jumping, range(step, step + 1)) == whole[step : step + 1]


def rounds_of(source: Numbered, batch: int, buffer: int, seed: int) -> list[list[int]]:
    """The rows of the first epoch, cut where the text of `shuffling.py` says that rounds end."""
    stream = ShuffledStream(source, batch=batch, buffer_rows=buffer, seed=seed)
    served = [row for rows in serve(stream, range(sum(source.sizes) // batch)) for row in rows]
    cuts = [0, *range(3 * buffer // 4, len(served), buffer // 2)]
    return [served[a:b] for a, b in itertools.pairwise(cuts)]


def test_rounds_mix_two_chunks_and_nothing_waits_longer():
    source = Numbered([1] * 64 * 10)
    rounds = rounds_of(source, batch=4, buffer=128, seed=3)
    order = source.asked  # blocks of one row: the order in which rows were read
    chunk = {row: place // 64 for place, row in enumerate(order)}
    first, *others = ([chunk[row] for row in rows] for rows in rounds)
    assert (first.count(0), first.count(1)) == (64, 32)
    for number, found in enumerate(others[:8], start=1):
        assert (found.count(number), found.count(number + 1)) == (32, 32)
        quarter = found[:16]  # the two are mixed, not one after the other
        assert 1 <= quarter.count(number) <= 15
    second = {order.index(row) for row in rounds[0]} & set(range(64, 128))
    assert 8 <= sum(place < 96 for place in second) <= 24  # drawn from all of the chunk, not its front


def test_a_round_is_shuffled_evenly():
    """Over many seeds every row of one full buffer comes first about equally often (chi-square, 15 degrees)."""
    hits = torch.zeros(16)
    for seed in range(400):
        hits[serve(ShuffledStream(Numbered([16]), batch=1, buffer_rows=32, seed=seed), range(1))[0][0]] += 1
    assert ((hits - 25).square() / 25).sum() < 37.7  # one in a thousand, but the seeds are fixed
    assert hits.min() > 0


def test_epochs_and_seeds_differ():
    def epoch(number: int, seed: int) -> list[list[int]]:
        stream = ShuffledStream(Numbered([8] * 8), batch=4, buffer_rows=16, seed=seed)
        return serve(stream, range(16 * number, 16 * number + 16))

    found = [epoch(0, 0), epoch(1, 0), epoch(0, 1), epoch(1, 1)]
    assert len({str(rows) for rows in found}) == 4
    assert found[0] != sorted(found[0])


def test_an_epoch_reads_each_block_once():
    source = Numbered([5] * 40)
    stream = ShuffledStream(source, batch=4, buffer_rows=32)
    serve(stream, range(50))
    assert sorted(source.asked) == list(range(40))
    serve(stream, range(50, 100))
    assert sorted(source.asked[40:]) == list(range(40))
    assert source.asked[:40] != source.asked[40:]


@pytest.mark.parametrize("step", [0, 13, 190, 249, 250, 700])
def test_to_begin_anywhere_is_to_read_one_buffer(step):
    source = Numbered([5] * 200)
    stream = ShuffledStream(source, batch=4, buffer_rows=32)
    stream.batch(step)
    assert len(source.asked) <= 32 / 5 + 2


def test_unknown_sizes_need_one_pass_at_most():
    source = Numbered([5] * 40, known=False)
    stream = ShuffledStream(source, batch=4, buffer_rows=32)
    assert (stream.rows_per_epoch, stream.left_over) == (None, None)
    stream.batch(0)
    assert len(source.asked) <= 32 / 5 + 2
    assert stream.rows_per_epoch is None
    serve(stream, range(1, 50))
    assert len(source.asked) == 40
    assert stream.rows_per_epoch == 200


def test_a_small_source_takes_no_more_memory_than_it_has_rows():
    stream = ShuffledStream(Numbered([9]), batch=2, buffer_rows=100_000)
    stream.batch(0)
    assert stream._shuffler.pool[""].shape == (9, 1)


def test_sites_are_served_the_same_rows_in_one_pass():
    source = Paired([5] * 40)
    streams = MultiStream(source, batch=4, buffer_rows=32, seed=2)
    for step in range(120):
        found = streams.batch(step)
        assert found.keys() == {ONE, OTHER}
        assert found[ONE].dtype == torch.float32
        torch.testing.assert_close(found[ONE].double().expand(-1, 2), -found[OTHER], rtol=0, atol=0)
    assert len(source.asked) == 40 + 40 + len(set(source.asked[80:]))
    assert source.asked.count(0) <= 3


def test_the_stream_of_a_site_is_that_of_the_site_alone():
    streams, source = MultiStream(Paired([5] * 40), batch=4, buffer_rows=32, seed=2), Paired([5] * 40)
    both = [streams.at(ONE), streams.at(OTHER)]
    alone = [ShuffledStream(OneSite(source, site), batch=4, buffer_rows=32, seed=2) for site in (ONE, OTHER)]
    for step in range(60):
        for shared, single in zip(both, alone, strict=True):
            assert torch.equal(shared.batch(step), single.batch(step))
    assert (both[0].rows_per_epoch, both[0].left_over, both[0].batch_rows) == (200, 0, 4)
    with pytest.raises(InputError, match=r"site 7\.resid_pre of a stream: expected one of 0\.resid_post, 2\.mlp_post"):
        streams.at(Site(7, "resid_pre")).batch(0)
    assert isinstance(source, SiteBlocks)
    assert isinstance(Numbered([1]), BlockSource)


def test_a_batch_is_written_where_it_is_wanted():
    stream = ShuffledStream(Numbered([20]), batch=4, buffer_rows=16)
    streams = MultiStream(Paired([20]), batch=4, buffer_rows=16)
    for dtype in (torch.float64, torch.bfloat16):  # the source's type, and another
        out = torch.zeros(4, 1, dtype=dtype)
        assert stream.batch(2, out) is out
        assert torch.equal(out, stream.batch(2).to(dtype))
    out = torch.zeros(4, 2, dtype=torch.float64)
    found = streams.batch(3, {OTHER: out})
    assert found[OTHER] is out
    assert torch.equal(found[ONE][:, 0].double(), -out[:, 0])
    kept = stream.batch(0)
    before = kept.clone()
    serve(stream, range(1, 10))
    assert torch.equal(kept, before), "a batch is no view of the buffer"


def test_a_source_that_breaks_its_word_is_named():
    class Liar(Numbered):
        def block(self, block: int) -> Tensor:
            return super().block(block)[1:]

    with pytest.raises(InputError, match=r"block \d of the activations: expected 9 rows, found 8"):
        ShuffledStream(Liar([9, 9]), batch=2, buffer_rows=8).batch(0)


def test_a_read_that_fails_leaves_the_stream_as_good_as_new():
    class Flaky(Numbered):
        fail = True

        def block(self, block: int) -> Tensor:
            if self.fail and len(self.asked) == 20:
                raise OSError("gone")
            return super().block(block)

    source = Flaky([5] * 40)
    stream = ShuffledStream(source, batch=4, buffer_rows=32)
    whole = serve(ShuffledStream(Numbered([5] * 40), batch=4, buffer_rows=32), range(50))
    with pytest.raises(OSError, match="gone"):
        serve(stream, range(50))
    source.fail = False
    assert serve(stream, range(50)) == whole


@pytest.mark.parametrize(("batch", "rows", "seed"), [(4, 15, 0), (0, 8, 0), (4, 16, -1)])
def test_impossible_buffers_are_refused(batch, rows, seed):
    with pytest.raises(InputError, match="shuffling buffer"):
        ShuffledStream(Numbered([50]), batch=batch, buffer_rows=rows, seed=seed)


def test_steps_before_the_first_are_refused():
    with pytest.raises(InputError, match="step of a stream: expected an integer >= 0, found -1"):
        ShuffledStream(Numbered([50]), batch=4, buffer_rows=16).batch(-1)


def test_statistics_of_a_sample_are_those_of_its_rows():
    source, stream = Numbered([5] * 40), ShuffledStream(Numbered([5] * 40), batch=4, buffer_rows=32, seed=1)
    for rows, steps in ((1, 1), (61, 16), (10_000, 50)):  # whole batches; an epoch at most
        seen = torch.cat([stream.batch(step) for step in range(steps)]) + 1e6  # far from zero, where sums lose digits
        found, wanted = stream_statistics(_Shifted(stream), rows), statistics(rows_of(seen))
        torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-14, atol=0)
        assert found.mean_square == pytest.approx(wanted.mean_square, rel=1e-12)
    assert found.mean.dtype == torch.float64
    several = MultiStream(Paired(source.sizes), batch=4, buffer_rows=32, seed=1).statistics(61)
    torch.testing.assert_close(several[ONE].mean, -several[OTHER].mean[:1])
    assert several[OTHER].mean_square == pytest.approx(2 * several[ONE].mean_square)
    assert several[ONE].mean_square == pytest.approx(stream_statistics(stream, 61).mean_square)


@dataclass
class _Shifted:
    stream: ShuffledStream
    rows_per_epoch: int = 200
    batch_rows: int = 4

    def batch(self, step: int, out: Tensor | None = None) -> Tensor:  # noqa: ARG002  # the protocol's name
        return self.stream.batch(step) + 1e6


@pytest.mark.parametrize(("value", "found"), [(float("nan"), "NaN or infinity"), (3.0, "8 equal rows")])
def test_statistics_of_nothing_to_learn_are_refused(value, found):
    class Constant(Numbered):
        def block(self, block: int) -> Tensor:
            return torch.full_like(super().block(block), value)

    with pytest.raises(InputError, match=found):
        stream_statistics(ShuffledStream(Constant([8]), batch=4, buffer_rows=16))
