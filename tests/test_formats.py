"""SAELens folders: exact round trips, and a clear refusal of whatever cannot be represented."""

import json
import math
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, load_saelens, save_saelens
from saelens_n2g.bases.sae import RuleBasis, SaeBasis, sae_basis
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import committed
from saelens_n2g.sites import Site

D, N = 5, 11
METADATA = SaeMetadata("tiny", "blocks.2.hook_resid_post", 128, True, "text", {"l0": 3.5, "seed": 1})


def tied(dtype: torch.dtype = torch.float32) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1).to(dtype)
    bias, mean = torch.randn(N, generator=generator).to(dtype), torch.randn(D, generator=generator).to(dtype)
    return Dictionary.from_tied(weight, bias, mean)


def dictionaries() -> dict[str, Dictionary]:
    """One of each architecture, untied, decoder rows of all lengths, every part drawn."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parts = draw(D, N), draw(N), draw(N, D), draw(D)
    return {
        "standard": Dictionary(*parts),
        "topk": Dictionary(*parts, architecture="topk", k=3),
        "topk rescaled": Dictionary(*parts, architecture="topk", k=3, rescale_acts_by_decoder_norm=True),
        "jumprelu": Dictionary(*parts, architecture="jumprelu", threshold=draw(N)),
        "gated": Dictionary.gated(parts[0], parts[2], parts[3], b_gate=draw(N), r_mag=draw(N), b_mag=draw(N)),
        "jumprelu on x": Dictionary(*parts, architecture="jumprelu", threshold=draw(N), subtracts_b_dec=False),
    }


def by_hand(d: Dictionary, row: torch.Tensor) -> torch.Tensor:
    """Features of one row, one number at a time."""
    x = (row - d.b_dec if d.subtracts_b_dec else row).tolist()
    product = [sum(a * b for a, b in zip(x, column, strict=True)) for column in d.W_enc.T.tolist()]
    before = [p + b for p, b in zip(product, d.b_enc.tolist(), strict=True)]
    if d.architecture == "topk":
        if d.rescale_acts_by_decoder_norm:
            before = [p * math.hypot(*w) for p, w in zip(before, d.W_dec.tolist(), strict=True)]
        kept = sorted(range(N), key=lambda i: -before[i])[: d.k]
        return torch.tensor([max(before[i], 0.0) if i in kept else 0.0 for i in range(N)], dtype=row.dtype)
    if d.architecture == "jumprelu":
        pairs = zip(before, d.threshold.tolist(), strict=True)
        return torch.tensor([p if p > max(t, 0.0) else 0.0 for p, t in pairs], dtype=row.dtype)
    if d.architecture == "gated":
        parts = zip(product, d.b_gate.tolist(), d.r_mag.tolist(), d.b_mag.tolist(), strict=True)
        return torch.tensor([max(math.exp(r) * p + m, 0.0) if p + g > 0 else 0.0 for p, g, r, m in parts]).to(row)
    return torch.tensor([max(p, 0.0) for p in before], dtype=row.dtype)


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


@pytest.mark.parametrize("name", dictionaries())
def test_every_architecture_is_what_its_definition_says(name):
    dictionary, x = dictionaries()[name], 2 * torch.randn(40, D, dtype=torch.float64)
    features = dictionary.encode(x)
    torch.testing.assert_close(features, torch.stack([by_hand(dictionary, row) for row in x]).to(features))
    assert (features > 0).any(0).sum() > N // 2, "the rows say little"
    assert (features == 0).any(1).all(), "the rows say little"
    # Whatever scale features have, the rebuilt activation is the sum of decoder rows at their own lengths.
    plain = replace(dictionary, rescale_acts_by_decoder_norm=False)
    if name == "topk rescaled":
        lengths = dictionary.W_dec.norm(dim=1)
        torch.testing.assert_close(dictionary.decode(features), plain.decode(features / lengths))
    else:
        torch.testing.assert_close(dictionary.decode(features), features @ dictionary.W_dec + dictionary.b_dec)


@pytest.mark.parametrize("name", dictionaries())
def test_every_architecture_round_trips_bit_for_bit(tmp_path, name):
    before = dictionaries()[name]
    save_saelens(tmp_path / "sae", before, METADATA)
    after = load_saelens(tmp_path / "sae")
    for field in fields(Dictionary):
        stored, loaded = getattr(before, field.name), getattr(after, field.name)
        if isinstance(stored, torch.Tensor):
            assert torch.equal(stored, loaded), field.name
        elif field.name != "metadata":
            assert stored == loaded, field.name
    x = torch.randn(9, D, dtype=torch.float64)
    assert torch.equal(before.encode(x), after.encode(x))


def test_what_saelens_reads_of_the_other_architectures(tmp_path):
    """Names of tensors and settings beside those of "standard", spelt out."""
    tensors, settings = {}, {}
    for name, dictionary in dictionaries().items():
        save_saelens(tmp_path / name, dictionary, METADATA)
        tensors[name] = set(load_file(tmp_path / name / "sae_weights.safetensors"))
        config = json.loads((tmp_path / name / "cfg.json").read_text())
        settings[name] = [config["architecture"], config.get("k"), config.get("rescale_acts_by_decoder_norm")]
    four = {"W_enc", "b_enc", "W_dec", "b_dec"}
    assert tensors["topk"] == tensors["topk rescaled"] == four
    assert tensors["jumprelu"] == four | {"threshold"}
    assert tensors["gated"] == {"W_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag"}
    assert settings["topk"] == ["topk", 3, False]
    assert settings["topk rescaled"] == ["topk", 3, True]
    assert settings["gated"] == ["gated", None, None]
    assert settings["jumprelu"] == ["jumprelu", None, None]


@pytest.mark.parametrize("name", dictionaries())
def test_a_basis_has_the_dictionarys_features(name):
    dictionary = dictionaries()[name]
    narrow = replace(dictionary, **{k: v.float() for k, v in vars(dictionary).items() if isinstance(v, torch.Tensor)})
    basis, x = sae_basis(Site(2, "resid_post"), narrow), torch.randn(3, 8, D)
    assert isinstance(basis, Basis)
    assert isinstance(basis, RuleBasis) == (name != "standard")
    assert isinstance(basis, SaeBasis)
    features = basis.encode(x)
    torch.testing.assert_close(features, narrow.encode(x))
    torch.testing.assert_close(basis.decode(features), narrow.decode(features))
    columns = torch.tensor([7, 0, 10, 7])
    torch.testing.assert_close(basis.encode_features(x, columns), features[..., columns])
    assert torch.equal(basis.to("cpu").encode(x), features)
    assert basis.to("meta").encode(x.to("meta")).device.type == "meta"


def test_at_the_threshold_and_at_a_closed_gate_a_feature_is_zero():
    eye, zero = torch.eye(3), torch.zeros(3)
    x = torch.tensor([[0.5, 0.75, 1.0]])
    jump = Dictionary(eye, zero, eye, zero, architecture="jumprelu", threshold=torch.full((3,), 0.75))
    assert jump.encode(x).tolist() == [[0, 0, 1]]
    gate = {"b_gate": torch.full((3,), -0.75), "r_mag": torch.full((3,), math.log(2)), "b_mag": torch.ones(3)}
    torch.testing.assert_close(Dictionary.gated(eye, eye, zero, **gate).encode(x), torch.tensor([[0, 0, 3.0]]))


def test_a_feature_without_direction_is_zero_not_nan():
    whole = dictionaries()["topk rescaled"]
    rows = whole.W_dec.clone()
    rows[4] = 0
    dictionary, x = replace(whole, W_dec=rows, k=N), torch.randn(20, D, dtype=torch.float64)
    assert (dictionary.encode(x)[:, 4] == 0).all()
    assert torch.isfinite(dictionary.decode(dictionary.encode(x))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "temporal"}, "one of standard, topk, jumprelu, gated, found 'temporal'"),
        ({"k": 3}, "expected nothing beside what all have, found k"),
        ({"architecture": "topk"}, "expected k beside what all have, found nothing"),
        ({"architecture": "topk", "k": N + 1}, r"k of a dictionary.*1 to 11 \(d_sae\), found 12"),
        ({"architecture": "jumprelu", "b_mag": torch.ones(N)}, "expected threshold .*found b_mag"),
        ({"rescale_acts_by_decoder_norm": True}, "topk alone"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(tied(), **changes)


def test_a_gated_dictionary_has_no_other_encoder_bias():
    gate = {"architecture": "gated", "b_gate": torch.ones(N), "r_mag": torch.ones(N), "b_mag": torch.ones(N)}
    with pytest.raises(InputError, match="b_enc of 0"):
        replace(tied(), **gate)


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
        ({"architecture": "temporal"}, "architecture in .*standard or topk or jumprelu or gated, found 'temporal'"),
        ({"architecture": "topk"}, r"k in .*integer from 1 to 11 \(d_sae\), found None"),
        ({"architecture": "topk", "k": True}, "k in .*found True"),
        ({"architecture": "topk", "k": 12}, "k in .*found 12"),
        ({"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": "yes"}, "rescale_acts.*found 'yes'"),
        ({"architecture": "jumprelu"}, "tensors W_dec, W_enc, b_dec, b_enc, threshold"),
        ({"architecture": "gated"}, "tensors W_dec, W_enc, b_dec, b_gate, b_mag, r_mag, found"),
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
