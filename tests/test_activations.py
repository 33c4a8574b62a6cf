"""Harvesting: what lies on disk is what the subject says, however the work was cut."""

import inspect
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from saelens_n2g import activations
from saelens_n2g.activations import ActivationModel, ActivationStore, Harvest, harvest, on_grid
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import COMMIT, read_json, sha256_of, write_json
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
    assert not (tmp_path / "manifest.json").exists()
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


# --- types, exclusion, manifest -------------------------------------------------------------------------------


class Spoilt(Model):
    """One coordinate has `value` at the given token ids of a site."""

    def __init__(self, spoilt: dict[Site, list[int]], value: float = float("inf")) -> None:
        super().__init__()
        self.spoilt, self.value = spoilt, value

    def activations(self, ids: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
        found = super().activations(ids, sites)
        for site, tokens in self.spoilt.items():
            found[site][torch.isin(ids, torch.tensor(tokens)), 0] = self.value
        return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_cache_of_any_type_is_the_cast_of_the_float32_one(windows, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", 7)
    store = harvest(Model(), windows, {NEURONS: None, STREAM: [2, 0]}, tmp_path, dtype=dtype)
    for site, columns in ((NEURONS, slice(None)), (STREAM, [2, 0])):
        wanted = torch.from_numpy(direct(windows, site)[:, columns]).to(getattr(torch, dtype))
        assert torch.equal(torch.cat(store.mapped(site)), wanted)
        np.testing.assert_array_equal(store.rows(site), wanted.float().numpy())
        assert store.rows(site).dtype == np.float32
    again = Model()
    harvest(again, windows, {NEURONS: None, STREAM: [2, 0]}, tmp_path, dtype=dtype)
    assert again.calls == 0
    harvest(
        again, windows, {NEURONS: None, STREAM: [2, 0]}, tmp_path, dtype="float16" if dtype == "float32" else "float32"
    )
    assert again.calls == 5


@pytest.mark.parametrize("shard", [4, 1000])
def test_rows_that_are_not_finite_are_left_out_at_every_site_and_counted(windows, tmp_path, monkeypatch, shard):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", shard)
    ids = windows.tokens[windows.mask]
    one, other = (np.isin(ids, tokens) for tokens in (ids[:2], ids[1:4]))
    model = Spoilt({NEURONS: [*ids[:2].tolist(), BOS], STREAM: [*ids[1:4].tolist(), PAD]})
    store = harvest(model, windows, {NEURONS: None, STREAM: None}, tmp_path, non_finite="exclude")
    for site in (NEURONS, STREAM):
        np.testing.assert_array_equal(store.rows(site), direct(windows, site)[~(one | other)])
    manifest, counts = read_json(tmp_path / "manifest.json"), store.counts()
    assert manifest["non_finite"] == (one | other).sum() == sum(c.non_finite for c in counts)
    assert manifest["non_finite_at"] == {str(NEURONS): one.sum(), str(STREAM): other.sum()}
    assert manifest["rows"] == (~(one | other)).sum() == sum(c.rows for c in counts)
    assert (manifest["bos"], manifest["padding"]) == (ROWS, (windows.tokens == PAD).sum())
    assert sum(manifest[k] for k in ("rows", "bos", "padding", "non_finite")) == windows.tokens.size
    with pytest.raises(InputError, match="scored tokens"):
        on_grid(store.rows(STREAM), windows)


def test_what_overflows_in_the_cast_is_not_finite(windows, tmp_path):
    ids = windows.tokens[windows.mask]
    model = Spoilt({STREAM: ids[:1].tolist()}, value=70_000.0)
    large = ids == ids[0]
    with pytest.raises(InputError, match=r"1\.resid_post: expected finite numbers in float16, found \d+ tokens of"):
        harvest(model, windows, {STREAM: None}, tmp_path / "refused", dtype="float16")
    store = harvest(model, windows, {STREAM: None}, tmp_path / "f16", dtype="float16", non_finite="exclude")
    assert len(store.rows(STREAM)) == (~large).sum()
    for dtype in ("float32", "bfloat16"):  # these reach as far as the subject does
        assert len(harvest(model, windows, {STREAM: None}, tmp_path / dtype, dtype=dtype).rows(STREAM)) == len(ids)


def test_a_shard_may_lose_all_its_rows(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", 1)
    model = Spoilt({STREAM: windows.tokens[4, 1 : windows.lengths[4]].tolist()})
    store = harvest(model, windows, {STREAM: None}, tmp_path, non_finite="exclude")
    assert store.mapped(STREAM)[4].shape == (0, WIDTHS[STREAM])
    assert store.counts()[4].rows == 0
    assert np.isfinite(store.rows(STREAM)).all()
    assert len(store.rows(STREAM)) > 0


def test_the_manifest_describes_the_cache_and_opens_it(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "SHARD_WINDOWS", 8)
    store = harvest(Model(), windows, {NEURONS: [4, 1], STREAM: None}, tmp_path, dtype="bfloat16")
    manifest = read_json(tmp_path / "manifest.json")
    assert (manifest["dtype"], manifest["width"]) == ("bfloat16", {"1.mlp_post": 2, "1.resid_post": 4})
    assert [(s["name"], s["start"], s["stop"]) for s in manifest["shards"]] == [tuple(s) for s in store.shards]
    assert [s["rows"] for s in manifest["shards"]] == [len(part) for part in store.mapped(STREAM)]
    assert ActivationStore.open(tmp_path) == store
    before = (tmp_path / "manifest.json").read_bytes()
    harvest(Model(), windows, {NEURONS: [4, 1], STREAM: None}, tmp_path, dtype="bfloat16")
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_cache_that_is_not_finished_does_not_open(windows, tmp_path):
    with pytest.raises(ArtefactError, match=r"manifest\.json: expected a JSON file, found nothing there"):
        ActivationStore.open(tmp_path)
    harvest(Model(), windows, {STREAM: None}, tmp_path)
    harvest(Model(), windows, {STREAM: [1]}, tmp_path / "other")
    manifest = read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", manifest | {"job": read_json(tmp_path / "other" / "manifest.json")["job"]})
    with pytest.raises(ArtefactError, match="shard_00000: expected a finished shard of the harvest"):
        ActivationStore.open(tmp_path)
    write_json(tmp_path / "manifest.json", manifest | {"version": 2})
    with pytest.raises(ArtefactError, match="expected saelens-n2g/activations, version 1"):
        ActivationStore.open(tmp_path)
    write_json(tmp_path / "manifest.json", {k: manifest[k] for k in ("format", "version", "job")})
    with pytest.raises(ArtefactError, match="expected saelens-n2g/activations, version 1, found one without 'shards'"):
        ActivationStore.open(tmp_path)


def test_counts_that_are_none_are_named(windows, tmp_path):
    store = harvest(Model(), windows, {STREAM: None}, tmp_path)
    write_json(tmp_path / "shard_00000" / "counts.json", {"rows": 3})
    with pytest.raises(ArtefactError, match=r"counts\.json: expected rows, bos, padding, non_finite, non_finite_at"):
        store.counts()


@pytest.mark.parametrize("at", [0, 12, "shape"])
def test_a_header_that_lies_is_named(windows, tmp_path, at):
    """Damage that the checksums do not show, because they were made to fit."""
    store = harvest(Model(), windows, {STREAM: None}, tmp_path)
    path = tmp_path / "shard_00000" / "activations.safetensors"
    data = path.read_bytes()
    if at == "shape":
        path.write_bytes(data.replace(b'"shape":[', b'"shape":[9', 1)[: len(data)])
    else:
        path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(ArtefactError, match="SHA-256"):
        store.mapped(STREAM)
    marker = read_json(path.parent / COMMIT)
    marker["files"][path.name]["sha256"] = sha256_of(path)
    write_json(path.parent / COMMIT, marker)
    with pytest.raises(ArtefactError, match=f"{path}: expected a whole safetensors file of activations"):
        store.mapped(STREAM)


def test_writing_to_what_is_mapped_does_not_reach_the_file(windows, tmp_path):
    store = harvest(Model(), windows, {STREAM: None}, tmp_path)
    store.mapped(STREAM)[0].zero_()
    np.testing.assert_array_equal(store.rows(STREAM), direct(windows, STREAM))


@pytest.mark.parametrize(("option", "value"), [("dtype", "float64"), ("non_finite", "ignore")])
def test_unknown_settings_are_refused(windows, tmp_path, option, value):
    unchecked = inspect.unwrap(harvest)  # beartype would be the first to object
    with pytest.raises(InputError, match=rf"{option} of activations: expected one of .*, found '{value}'"):
        unchecked(Model(), windows, {STREAM: None}, tmp_path, **{option: value})
    assert not list(tmp_path.iterdir())


def test_a_harvest_of_nothing_is_refused(windows, tmp_path):
    with pytest.raises(InputError, match="sites to harvest: expected one or more, found none"):
        harvest(Model(), windows, {}, tmp_path)


def test_on_grid_is_the_inverse_of_the_mask(windows):
    values = np.arange(2 * windows.n_tokens, dtype=np.float32).reshape(-1, 2) + 1
    out = on_grid(values, windows)
    np.testing.assert_array_equal(out[windows.mask], values)
    assert not out[~windows.mask].any()
    with pytest.raises(InputError, match="scored tokens"):
        on_grid(values[1:], windows)
