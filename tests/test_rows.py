"""Rows from a cache, and blocks from a subject, a cache or an array: the same rows, wherever they lie."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelens_n2g import activations
from saelens_n2g.activations import ActivationStore, harvest
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.blocks import ArrayBlocks, CachedBlocks, SubjectBlocks
from saelens_n2g.training.rows import CachedRows, Rows, as_rows, statistics, stream_statistics
from saelens_n2g.training.stream import BlockSource, MultiStream, OneSite, ShuffledStream, SiteBlocks

STREAM, NEURONS = Site(1, "resid_post"), Site(0, "mlp_post")
WIDTH, ROWS, BOS, PAD = 9, 30, 0, 1
BAD = 7
"""Token that is not finite at `NEURONS`, where the subject is told to have one."""


class Model:
    """Activations that name the token, its place and the site."""

    def __init__(self, *, bad: bool = False) -> None:
        self.bad, self.calls = bad, 0

    @torch.inference_mode()  # as the real one
    def activations(self, ids: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
        self.calls += 1
        found = {}
        for site in sites:
            place = torch.cumsum(ids, 1) + 0.25 * ids
            found[site] = torch.stack([place, -place, ids + site.layer], -1).float()
            if self.bad and site == NEURONS:
                found[site][ids == BAD, 1] = float("nan")
        return found

    def describe(self) -> dict:
        return {"model": "made up"}


def make_windows() -> Windows:
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, WIDTH + 1, ROWS).astype(np.int32)
    tokens = draw.integers(2, 50, (ROWS, WIDTH)).astype(np.int32)
    tokens[3, 1] = tokens[20, 1] = BAD
    tokens[:, 0] = BOS
    tokens[np.arange(WIDTH) >= lengths[:, None]] = PAD
    return Windows(tokens, lengths, np.arange(ROWS, dtype=np.int32), tuple(map(str, range(ROWS))), BOS, "made up")


WINDOWS = make_windows()
SCORED = WINDOWS.n_tokens


def direct(site: Site) -> Tensor:
    """All scored rows, each window run alone."""
    rows = []
    for row, length in zip(WINDOWS.tokens, WINDOWS.lengths, strict=True):
        ids = torch.from_numpy(row[:length]).long()[None]
        rows.append(Model().activations(ids, [site])[site][0, 1:])
    return torch.cat(rows)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    """A cache of both sites in six shards, bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "SHARD_WINDOWS", 5)
        folder = tmp_path_factory.mktemp("cache")
        return harvest(Model(), WINDOWS, {STREAM: None, NEURONS: None}, folder, dtype="bfloat16")


# --- rows of a cache ------------------------------------------------------------------------------------------


@given(indices=st.lists(st.integers(0, SCORED - 1), max_size=40))
@settings(deadline=None, max_examples=60)
def test_a_gather_is_that_of_the_whole_in_memory(store, indices):
    picked = torch.tensor(indices, dtype=torch.int64)
    rows = CachedRows(store, STREAM)
    assert torch.equal(rows.gather(picked), direct(STREAM).bfloat16()[picked])
    assert rows.gather(picked).dtype == torch.bfloat16


def test_cached_rows_are_rows_like_any_other(store):
    rows = CachedRows(store.folder, NEURONS)  # by its folder
    assert isinstance(rows, Rows)
    assert as_rows(rows) is rows
    assert len(rows) == SCORED
    found, wanted = statistics(rows), statistics(as_rows(direct(NEURONS).bfloat16()))
    assert torch.equal(found.mean, wanted.mean)
    assert found.mean_square == wanted.mean_square


@pytest.mark.parametrize("index", [-1, SCORED])
def test_rows_that_are_not_there_are_an_error(store, index):
    with pytest.raises(IndexError, match=str(SCORED)):
        CachedRows(store, STREAM).gather(torch.tensor([3, index]))


def test_a_cache_without_the_site_or_without_rows_is_refused(store, tmp_path, monkeypatch):
    with pytest.raises(ArtefactError, match=r"shard_00000: expected 7\.resid_pre, found 0\.mlp_post, 1\.resid_post"):
        CachedRows(store, Site(7, "resid_pre"))
    monkeypatch.setattr(activations, "SHARD_WINDOWS", 1)
    only = Windows(np.array([[BOS, BAD]], np.int32), np.array([2], np.int32), np.array([0], np.int32), ("a",), BOS, "")
    empty = harvest(Model(bad=True), only, {NEURONS: None}, tmp_path, non_finite="exclude")
    with pytest.raises(InputError, match="at least one row, found an empty cache"):
        CachedRows(empty, NEURONS)


@pytest.mark.parametrize("opened", [CachedRows, lambda store, site: CachedBlocks(store, [site])])
def test_a_damaged_shard_is_named(tmp_path, opened):
    harvested = harvest(Model(), WINDOWS, {STREAM: None}, tmp_path)
    path = tmp_path / "shard_00000" / "activations.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=f"{path}: expected SHA-256"):
        opened(harvested, STREAM)
    path.write_bytes(data[:-1])
    with pytest.raises(ArtefactError, match=f"{path}: expected {len(data)} bytes, found {len(data) - 1} bytes"):
        opened(harvested, STREAM)
    path.unlink()
    with pytest.raises(ArtefactError, match=f"{path}: expected {len(data)} bytes, found nothing there"):
        CachedRows(harvested, STREAM, check=False)


def _own_memory() -> int:
    """Bytes of memory that belong to this process and to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' account of memory")
def test_memory_stays_flat(tmp_path):
    """All rows of a cache of 64 MiB are read, 2 MiB at a time."""

    class Wide(Model):
        def activations(self, ids: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
            return {site: ids[..., None].float().expand(-1, -1, 4096) for site in sites}

    tokens = np.arange(4096, dtype=np.int32).reshape(64, 64)
    flat = Windows(tokens, np.full(64, 64, np.int32), np.zeros(64, np.int32), ("a",), None, "")
    harvest(Wide(), flat, {STREAM: None}, tmp_path)
    rows = CachedRows(tmp_path, STREAM)
    rows.gather(torch.arange(128))
    before, most = _own_memory(), 0
    for start in range(0, 4096, 128):
        assert rows.gather(torch.arange(start, start + 128))[:, 7].tolist() == list(range(start, start + 128))
        most = max(most, _own_memory() - before)
    assert most < 16 * 2**20


# --- blocks ---------------------------------------------------------------------------------------------------


def blocks_in_order(source: SiteBlocks) -> dict[Site, Tensor]:
    found = [source.block(i) for i in range(len(source))]
    return {site: torch.cat([block[site] for block in found]) for site in found[0]}


@pytest.mark.parametrize("step", [1, 7, 100])
def test_blocks_of_a_subject_are_its_scored_rows(step):
    source = SubjectBlocks(Model(), WINDOWS, [STREAM, NEURONS], windows_per_block=step)
    assert isinstance(source, SiteBlocks)
    assert len(source) == -(-ROWS // step)
    assert [source.size(i) for i in range(len(source))] == [len(source.block(i)[STREAM]) for i in range(len(source))]
    for site, rows in blocks_in_order(source).items():
        assert torch.equal(rows, direct(site))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_of_a_cache_are_its_rows(store, rows):
    source = CachedBlocks(store, [STREAM, NEURONS], rows=rows)
    sizes = [source.size(i) for i in range(len(source))]
    assert max(sizes) <= rows
    assert sum(sizes) == SCORED
    for site, found in blocks_in_order(source).items():
        assert torch.equal(found, direct(site).bfloat16())


@pytest.mark.parametrize("kind", [torch.clone, Tensor.numpy])
def test_blocks_of_an_array_are_its_rows(kind):
    source = ArrayBlocks(kind(direct(STREAM)), rows=13)
    assert isinstance(source, BlockSource)
    found = [source.block(i) for i in range(len(source))]
    assert [len(block) for block in found] == [source.size(i) for i in range(len(source))]
    assert torch.equal(torch.cat(found), direct(STREAM))


def test_bad_rows_of_a_live_subject_are_refused_or_left_out_and_counted():
    refusing = SubjectBlocks(Model(bad=True), WINDOWS, [STREAM, NEURONS])
    with pytest.raises(InputError, match=r"activations at 0\.mlp_post: expected finite numbers, found \d+ tokens of"):
        blocks_in_order(refusing)
    bad = torch.from_numpy(WINDOWS.tokens[WINDOWS.mask] == BAD)
    source = SubjectBlocks(Model(bad=True), WINDOWS, [STREAM, NEURONS], non_finite="exclude")
    assert [source.size(i) for i in range(len(source))] == [None] * len(source)
    for site, rows in blocks_in_order(source).items():
        assert torch.equal(rows, direct(site)[~bad])
    assert sum(source.excluded.values()) == bad.sum() >= 2
    assert sum(source.size(i) for i in range(len(source))) == SCORED - bad.sum()


def test_a_stream_of_a_live_subject_goes_on_where_it_was():
    """With rows left out too, whose number a new run does not know; what was found earlier saves it the look."""
    first = SubjectBlocks(Model(bad=True), WINDOWS, [STREAM, NEURONS], windows_per_block=2, non_finite="exclude")
    streams = MultiStream(first, batch=4, buffer_rows=32)
    whole = [streams.batch(step) for step in range(80)]
    assert streams.rows_per_epoch == SCORED - sum(first.excluded.values())
    calls = []
    for excluded in (None, first.excluded):
        model = Model(bad=True)
        source = SubjectBlocks(
            model, WINDOWS, [STREAM, NEURONS], windows_per_block=2, non_finite="exclude", excluded=excluded
        )
        again = MultiStream(source, batch=4, buffer_rows=32)
        for step in (61, 62):
            for site, rows in again.batch(step).items():
                assert torch.equal(rows, whole[step][site])
        calls.append(model.calls)
    assert calls[1] <= 6 < calls[0]


def test_a_subject_and_a_cache_feed_one_stream(store):
    """Cut into the same blocks, the two give the same batches but for the cache's type."""
    live = SubjectBlocks(Model(), WINDOWS, [STREAM], windows_per_block=5)
    cached = CachedBlocks(store, [STREAM], rows=1000)  # a block a shard, and a shard has five windows
    options = {"batch": 4, "buffer_rows": 32, "seed": 3}
    one, other = (ShuffledStream(OneSite(source, STREAM), **options) for source in (live, cached))
    for step in range(2 * (SCORED // 4)):
        assert torch.equal(one.batch(step).bfloat16(), other.batch(step))


def test_a_sample_of_a_whole_epoch_is_everything():
    stream = ShuffledStream(ArrayBlocks(direct(STREAM), rows=10), batch=1, buffer_rows=40)
    exact, sample = statistics(as_rows(direct(STREAM))), stream_statistics(stream)
    torch.testing.assert_close(sample.mean, exact.mean, rtol=1e-13, atol=0)
    assert sample.mean_square == pytest.approx(exact.mean_square, rel=1e-12)


@pytest.mark.parametrize("wrong", [{"sites": []}, {"sites": [STREAM], "windows_per_block": 0}])
def test_impossible_blocks_are_refused(store, wrong):
    with pytest.raises(InputError, match="blocks of activations"):
        SubjectBlocks(Model(), WINDOWS, **wrong)
    with pytest.raises(InputError, match="blocks of activations"):
        CachedBlocks(store, wrong["sites"], rows=0)


def test_an_unknown_rule_is_refused():
    unchecked = inspect.unwrap(SubjectBlocks.__init__)  # beartype would be the first to object
    with pytest.raises(InputError, match="non_finite of activations: expected one of refuse, exclude, found 'drop'"):
        unchecked(SubjectBlocks.__new__(SubjectBlocks), Model(), WINDOWS, [STREAM], non_finite="drop")
