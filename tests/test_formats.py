"""SAELens folders: exact round trips, and a clear refusal of whatever cannot be represented."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelens_n2g.bases.formats import Dictionary, SaeMetadata, load_saelens, save_saelens
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import committed

D, N = 5, 11
METADATA = SaeMetadata("tiny", "blocks.2.hook_resid_post", 128, True, "text", {"l0": 3.5, "seed": 1})


def tied(dtype: torch.dtype = torch.float32) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1).to(dtype)
    bias, mean = torch.randn(N, generator=generator).to(dtype), torch.randn(D, generator=generator).to(dtype)
    return Dictionary.from_tied(weight, bias, mean)


@pytest.fixture
def foreign(tmp_path):
    """A folder as SAELens writes it: no commit marker."""
    save_saelens(tmp_path / "sae", tied(), METADATA)
    (tmp_path / "sae" / "COMMIT.json").unlink()
    return tmp_path / "sae"


def change_config(folder, **changes):
    config = json.loads((folder / "cfg.json").read_text())
    config.update(changes)
    (folder / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_round_trip_is_bit_exact_and_stays_tied(tmp_path, dtype):
    before = tied(dtype)
    save_saelens(tmp_path / "sae", before, METADATA)
    after = load_saelens(tmp_path / "sae")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        stored, loaded = getattr(before, name), getattr(after, name)
        assert loaded.dtype == dtype
        assert torch.equal(stored, loaded)
    assert after.tied
    assert after.log10_sparsity is None
    assert after.metadata["l0"] == 3.5


def test_two_writes_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_saelens(tmp_path / name, tied(), METADATA)
    for file in ("cfg.json", "sae_weights.safetensors", "COMMIT.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_written_is_what_saelens_reads(tmp_path):
    """Keys and shapes of SAELens 6, spelt out."""
    sparsity = torch.linspace(-10, 0, N)
    original = tied()
    named = Dictionary(original.W_enc, original.b_enc, original.W_dec, original.b_dec, sparsity)
    save_saelens(tmp_path / "sae", named, METADATA)
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text()) == {
        "architecture": "standard",
        "d_in": D,
        "d_sae": N,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",
            "model_name": "tiny",
            "hook_name": "blocks.2.hook_resid_post",
            "context_size": 128,
            "prepend_bos": True,
            "dataset_path": "text",
            "l0": 3.5,
            "seed": 1,
        },
    }
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    assert {k: tuple(v.shape) for k, v in weights.items()} == {
        "W_enc": (D, N),
        "b_enc": (N,),
        "W_dec": (N, D),
        "b_dec": (D,),
    }
    assert torch.equal(load_file(tmp_path / "sae" / "sparsity.safetensors")["sparsity"], sparsity)
    assert torch.equal(load_saelens(tmp_path / "sae").log10_sparsity, sparsity)
    assert committed(tmp_path / "sae", check=True) == {"kind": "saelens_n2g/dictionary"}


def test_encode_and_decode_are_the_documented_formulas():
    dictionary, x = tied(torch.float64), torch.randn(7, D, dtype=torch.float64)
    m, b, t = dictionary.W_dec, dictionary.b_enc, dictionary.b_dec
    expected = torch.stack([torch.relu(m @ (row - t) + b) for row in x])
    torch.testing.assert_close(dictionary.encode(x), expected)
    torch.testing.assert_close(dictionary.decode(expected), torch.stack([m.T @ c + t for c in expected]))


def test_a_foreign_folder_loads_and_shows_that_it_is_untied(foreign):
    tensors = load_file(foreign / "sae_weights.safetensors")
    save_file({**tensors, "W_dec": tensors["W_dec"] * 2}, foreign / "sae_weights.safetensors")
    dictionary = load_saelens(foreign)
    assert not dictionary.tied
    assert dictionary.subtracts_b_dec


def test_defaults_that_saelens_leaves_out(foreign):
    config = json.loads((foreign / "cfg.json").read_text())
    minimum = {k: config[k] for k in ("architecture", "d_in", "d_sae", "dtype", "device", "metadata")}
    (foreign / "cfg.json").write_text(json.dumps(minimum))
    assert load_saelens(foreign).subtracts_b_dec
    change_config(foreign, apply_b_dec_to_input=False, dtype="torch.float32")
    assert not load_saelens(foreign).subtracts_b_dec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "topk"}, "architecture in .*expected standard, found 'topk'"),
        ({"dtype": "int8"}, "dtype in .*found 'int8'"),
        ({"dtype": "float64"}, "tensor .*expected torch.float64, found torch.float32"),
        ({"d_in": D + 1}, r"tensor .*shape"),
        ({"d_sae": "11"}, "d_sae in .*positive integer, found '11'"),
        ({"d_sae": True}, "d_sae in .*positive integer, found True"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations in .*found 'layer_norm'"),
        ({"reshape_activations": "hook_z"}, "reshape_activations in .*found 'hook_z'"),
        ({"metadata": {}}, "sae_lens_version of at least 6, found None"),
        ({"metadata": {"sae_lens_version": "5.9.1"}}, "found '5.9.1'"),
        ({"metadata": None}, "sae_lens_version"),
    ],
)
def test_a_config_that_cannot_be_represented_is_refused(foreign, changes, message):
    change_config(foreign, **changes)
    with pytest.raises(ArtefactError, match=message):
        load_saelens(foreign)


def test_tensors_that_do_not_fit_are_refused(foreign):
    path = foreign / "sae_weights.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "threshold": torch.ones(N)}, path)
    with pytest.raises(ArtefactError, match="found W_dec, W_enc, b_dec, b_enc, threshold"):
        load_saelens(foreign)
    save_file({**tensors, "W_enc": tensors["W_dec"].clone()}, path)
    with pytest.raises(ArtefactError, match=r"shape \(5, 11\), found shape \(11, 5\)"):
        load_saelens(foreign)
    save_file({**tensors, "b_enc": torch.full((N,), torch.nan)}, path)
    with pytest.raises(ArtefactError, match=r"b_enc.*finite numbers"):
        load_saelens(foreign)


def test_missing_truncated_and_pickled_files_are_refused(foreign):
    path = foreign / "sae_weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ArtefactError, match="whole safetensors file"):
        load_saelens(foreign)
    torch.save({"W_enc": torch.ones(D, N)}, path)
    with pytest.raises(ArtefactError, match="whole safetensors file"):
        load_saelens(foreign)
    path.unlink()
    with pytest.raises(ArtefactError, match="nothing there"):
        load_saelens(foreign)
    (foreign / "cfg.json").write_text("[1]")
    with pytest.raises(ArtefactError, match="a JSON object, found list"):
        load_saelens(foreign)


def test_our_own_folder_is_checked_byte_by_byte(tmp_path):
    save_saelens(tmp_path / "sae", tied(), METADATA)
    path = tmp_path / "sae" / "sae_weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="SHA-256"):
        load_saelens(tmp_path / "sae")
