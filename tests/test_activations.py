"""Harvesting: what lies on disk is what the subject says, however the work was cut."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from saelens_n2g import activations
from saelens_n2g.activations import ActivationModel, Harvest, harvest, on_grid
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site

NEURONS, STREAM = Site(1, "mlp_post"), Site(1, "resid_post")
WIDTHS = {NEURONS: 6, STREAM: 4}
WIDTH, ROWS, BOS, PAD = 9, 30, 0, 1


class Model:
    """Values that name the site, the row's sum so far, the token and the column; columns differ between sites."""

    def __init__(self, name: str = "one") -> None:
        self.name, self.calls, self.bad = name, 0, None

    def activations(self, ids: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
        self.calls += 1
        so_far = torch.cumsum(ids, 1).double()
        out = {}
        for site in sites:
            column = torch.arange(WIDTHS[site]) + (10 if site == STREAM else 0)
            out[site] = (torch.sin(so_far + 0.1 * ids)[..., None] * (1 + column)).float()
            if self.bad is not None:
                out[site][ids == self.bad] = float("nan")
        return out

    def describe(self) -> dict:
        return {"model": self.name}


@pytest.fixture
def windows() -> Windows:
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, WIDTH + 1, ROWS).astype(np.int32)
    tokens = draw.integers(2, 50, (ROWS, WIDTH)).astype(np.int32)
    tokens[:, 0] = BOS
    tokens[np.arange(WIDTH) >= lengths[:, None]] = PAD
    return Windows(tokens, lengths, np.arange(ROWS, dtype=np.int32), tuple(map(str, range(ROWS))), BOS, "made up")


def direct(windows: Windows, site: Site) -> np.ndarray:
    """Row by row, each without its padding, BOS thrown away afterwards."""
    rows = []
    for row, length in zip(windows.tokens, windows.lengths, strict=True):
        ids = torch.from_numpy(row[:length]).long()[None]
        rows.append(Model().activations(ids, [site])[site][0, 1:].numpy())
    return np.concatenate(rows)


def test_rows_are_the_subjects_in_the_order_of_the_mask(windows, tmp_path):
    assert isinstance(Model(), ActivationModel)
    store = harvest(Model(), windows, {NEURONS: [4, 1], STREAM: None}, tmp_path)
    assert windows.mask.sum() == len(direct(windows, STREAM)) == windows.n_tokens
    np.testing.assert_array_equal(store.rows(STREAM), direct(windows, STREAM))
    np.testing.assert_array_equal(store.rows(NEURONS), direct(windows, NEURONS)[:, [4, 1]])
    assert store.rows(STREAM).dtype == np.float32


def test_only_the_columns_asked_for_are_kept(windows, tmp_path):
    harvest(Model(), windows, {NEURONS: [4]}, tmp_path)
    kept = load_file(tmp_path / "shard_00000" / "activations.safetensors")
    assert {name: values.shape for name, values in kept.items()} == {"1.mlp_post": (windows.n_tokens, 1)}


@pytest.mark.parametrize("shard", [1, 7, 30, 1000])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_shards_and_batches_change_nothing(windows, tmp_path, monkeypatch, shard, batch):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", shard)
    monkeypatch.setattr(Harvest, "__init__", _with_batch(batch))
    store = harvest(Model(), windows, {STREAM: None}, tmp_path)
    assert len(store.shards) == -(-ROWS // shard)
    np.testing.assert_array_equal(store.rows(STREAM), direct(windows, STREAM))


def _with_batch(size: int):
    real = Harvest.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **{**kwargs, "batch_windows": size})

    return init


def test_without_bos_every_real_token_counts(windows, tmp_path):
    bare = Windows(windows.tokens, windows.lengths, windows.document, windows.document_ids, None, "")
    found = harvest(Model(), bare, {STREAM: None}, tmp_path).rows(STREAM)
    assert len(found) == windows.lengths.sum() == windows.n_tokens + ROWS


def test_finished_shards_are_not_run_again(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", 8)
    model, told = Model(), list[tuple[int, int]]()

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harvest(model, windows, {STREAM: None}, tmp_path, report=stop)
    assert (model.calls, told) == (2, [(8, 30), (16, 30)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard_00000", "shard_00001"]
    store = harvest(model, windows, {STREAM: None}, tmp_path)
    assert model.calls == 4
    np.testing.assert_array_equal(store.rows(STREAM), direct(windows, STREAM))
    harvest(model, windows, {STREAM: None}, tmp_path)
    assert model.calls == 4


@pytest.mark.parametrize("change", ["subject", "columns", "sites", "windows"])
def test_shards_of_anything_else_are_done_again(windows, tmp_path, change):
    harvest(Model(), windows, {NEURONS: [1, 2]}, tmp_path)
    again = Model("two" if change == "subject" else "one")
    columns = {"columns": {NEURONS: [2, 1]}, "sites": {STREAM: [1, 2]}}.get(change, {NEURONS: [1, 2]})
    rows = np.arange(ROWS)[::-1] if change == "windows" else np.arange(ROWS)
    store = harvest(again, windows.subset(rows), columns, tmp_path)
    assert again.calls > 0
    site, wanted = next(iter(columns.items()))
    np.testing.assert_array_equal(store.rows(site), direct(windows.subset(rows), site)[:, wanted])


def test_numbers_that_are_none_are_refused(windows, tmp_path):
    model = Model()
    model.bad = int(windows.tokens[3, 1])
    with pytest.raises(InputError, match=r"activations at 1\.resid_post: expected finite numbers, found \d+ tokens of"):
        harvest(model, windows, {STREAM: None}, tmp_path)
    assert not list(tmp_path.iterdir())
    model.bad = PAD  # where nothing is scored they do no harm
    harvest(model, windows, {STREAM: None}, tmp_path)


def test_damage_and_absence_are_named(windows, tmp_path):
    store = harvest(Model(), windows, {STREAM: None}, tmp_path)
    with pytest.raises(ArtefactError, match=r"shard_00000: expected 1\.mlp_post, found 1\.resid_post"):
        store.rows(NEURONS)
    path = tmp_path / "shard_00000" / "activations.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\1")
    with pytest.raises(ArtefactError, match="SHA-256"):
        store.rows(STREAM)
    path.write_bytes(data[:-4])
    with pytest.raises(ArtefactError, match=str(path)):
        harvest(Model(), windows, {STREAM: None}, tmp_path)


def test_on_grid_is_the_inverse_of_the_mask(windows):
    values = np.arange(2 * windows.n_tokens, dtype=np.float32).reshape(-1, 2) + 1
    out = on_grid(values, windows)
    np.testing.assert_array_equal(out[windows.mask], values)
    assert not out[~windows.mask].any()
    with pytest.raises(InputError, match="scored tokens"):
        on_grid(values[1:], windows)
