"""Folders of sparsify and dictionary_learning: the features of their definitions, and clear refusals."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from saelens_n2g.bases.foreign import CLASSES, READERS, load_dictionary, reader_of
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.bases.registry import BasisInputs, build_basis
from saelens_n2g.errors import ArtefactError
from saelens_n2g.sites import Site

D, N, K = 5, 11, 3


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = 2 * draw(60, D, seed=9)


def largest(before: torch.Tensor, k: int) -> torch.Tensor:
    """`relu(before)` where at most k - 1 others of the row are larger."""
    rank = (before[:, None, :] > before[:, :, None]).sum(-1)
    return torch.where(rank < k, before.clamp(min=0), 0.0)


def write_sparsify(folder, tensors=None, **changes):
    """A folder as sparsify 1.3 writes it."""
    plain = {
        "encoder.weight": draw(N, D),
        "encoder.bias": draw(N),
        "W_dec": draw(N, D, seed=1),
        "b_dec": draw(D),
    }
    config = {"activation": "topk", "expansion_factor": 32, "num_latents": N, "k": K, "d_in": D, "transcode": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config | {"skip_connection": False, "multi_topk": False} | changes))
    save_file(tensors or plain, folder / "sae.safetensors")
    return folder, plain


def state(kind: str) -> dict[str, torch.Tensor]:
    """What `ae.pt` of a class holds, all of it drawn."""
    linear = {"encoder.weight": draw(N, D), "encoder.bias": draw(N), "decoder.weight": draw(D, N, seed=1)}
    no_bias = {k: v for k, v in linear.items() if k != "encoder.bias"}
    plain = {"W_enc": draw(D, N), "b_enc": draw(N), "W_dec": draw(N, D, seed=1), "b_dec": draw(D)}
    top = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.7)}
    gated = {"r_mag": draw(N, seed=2), "gate_bias": draw(N, seed=3), "mag_bias": draw(N, seed=4)}
    return {
        "AutoEncoder": linear | {"bias": draw(D)},
        "AutoEncoderNew": linear | {"decoder.bias": draw(D)},
        "AutoEncoderTopK": linear | top | {"b_dec": draw(D)},
        "BatchTopKSAE": linear | top | {"b_dec": draw(D)},
        "MatryoshkaBatchTopKSAE": plain | top | {"group_sizes": torch.tensor([4, 7])},
        "JumpReluAutoEncoder": plain | {"threshold": draw(N, seed=2)},
        "GatedAutoEncoder": no_bias | gated | {"decoder_bias": draw(D)},
    }[kind]


def expected(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of X and decoder rows, as each class defines them."""
    s = state(kind)
    w_enc = s["W_enc"] if "W_enc" in s else s["encoder.weight"].T
    w_dec = s["W_dec"] if "W_dec" in s else s["decoder.weight"].T
    bias = s["b_enc"] if "b_enc" in s else s.get("encoder.bias", 0)
    if kind == "AutoEncoder":
        return ((X - s["bias"]) @ w_enc + bias).clamp(min=0), w_dec
    if kind == "AutoEncoderNew":
        return (X @ w_enc + bias).clamp(min=0), w_dec
    if kind == "AutoEncoderTopK":
        return largest((X - s["b_dec"]) @ w_enc + bias, K), w_dec
    if kind == "JumpReluAutoEncoder":
        before = X @ w_enc + bias
        return torch.where(before > s["threshold"], before, 0).clamp(min=0), w_dec
    if kind == "GatedAutoEncoder":
        product = (X - s["decoder_bias"]) @ w_enc
        size = (s["r_mag"].exp() * product + s["mag_bias"]).clamp(min=0)
        return torch.where(product > -s["gate_bias"], size, 0), w_dec
    before = (X - s["b_dec"]) @ w_enc + bias
    return torch.where(before > 0.7, before, 0), w_dec


def write_learning(folder, kind: str, tensors=None, **trainer):
    """A folder as dictionary_learning 0.1 writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"dict_class": kind, "layer": 3, "lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_3"}
    config = {"trainer": said | ({"k": K} if "TopK" in kind else {}) | trainer, "buffer": {"ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state(kind) if tensors is None else tensors, folder / "ae.pt")
    return folder


# --- what is read ---------------------------------------------------------------------------------------------


def test_a_sparsify_folder_is_a_topk_dictionary(tmp_path):
    folder, w = write_sparsify(tmp_path / "layers.3")
    dictionary = load_dictionary(folder)
    features = largest((X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], K)
    torch.testing.assert_close(dictionary.encode(X), features)
    torch.testing.assert_close(dictionary.decode(features), features @ w["W_dec"] + w["b_dec"])
    assert dictionary.metadata["source"]["format"] == "sparsify"
    assert dictionary.metadata["source"]["config"]["expansion_factor"] == 32
    assert "hook_name" not in dictionary.metadata


def test_sparsify_sizes_by_expansion(tmp_path):
    wide = {"encoder.weight": draw(2 * D, D), "encoder.bias": draw(2 * D), "W_dec": draw(2 * D, D), "b_dec": draw(D)}
    folder, _ = write_sparsify(tmp_path, wide, num_latents=0, expansion_factor=2)
    assert load_dictionary(folder).d_sae == 2 * D


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_dictionary_learning_has_the_features_of_its_definition(tmp_path, kind):
    dictionary = load_dictionary(write_learning(tmp_path, kind))
    features, w_dec = expected(kind)
    assert 0.05 < (features > 0).float().mean() < 0.9, "the rows say little"
    torch.testing.assert_close(dictionary.encode(X), features)
    s = state(kind)
    offset = next(s[name] for name in ("bias", "b_dec", "decoder_bias", "decoder.bias") if name in s)
    torch.testing.assert_close(dictionary.decode(features), features @ w_dec + offset)
    assert dictionary.metadata["source"] == {
        "format": "dictionary_learning",
        "config": json.loads((tmp_path / "config.json").read_text())["trainer"],
    }
    assert dictionary.metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert dictionary.metadata["model_name"] == "EleutherAI/pythia-70m"
    assert dictionary.metadata["context_size"] == 128


@pytest.mark.parametrize("submodule", [None, "mlp_out_layer_3", "resid_post_layer_x"])
def test_a_hook_that_is_not_said_is_left_out(tmp_path, submodule):
    folder = write_learning(tmp_path, "AutoEncoder", submodule_name=submodule)
    assert "hook_name" not in load_dictionary(folder).metadata


@pytest.mark.parametrize("kind", [*CLASSES, "sparsify"])
def test_what_was_read_can_be_written_for_saelens(tmp_path, kind):
    folder = tmp_path / "foreign"
    write_sparsify(folder) if kind == "sparsify" else write_learning(folder, kind)
    before = load_dictionary(folder)
    save_saelens(tmp_path / "sae", before, SaeMetadata("pythia-70m", "blocks.3.hook_resid_post", 128, False))
    assert torch.equal(load_dictionary(tmp_path / "sae").encode(X), before.encode(X))


def test_the_sae_basis_takes_any_layout(tmp_path):
    folder = write_learning(tmp_path, "AutoEncoderTopK")
    basis = build_basis("sae", BasisInputs(Site(3, "resid_post"), D, folder=folder))
    torch.testing.assert_close(basis.encode(X), expected("AutoEncoderTopK")[0])
    assert basis.facts["architecture"] == "topk"


def test_layouts_are_told_apart_by_their_weights(tmp_path):
    write_sparsify(tmp_path / "a")
    write_learning(tmp_path / "b", "AutoEncoder")
    save_saelens(tmp_path / "c", Dictionary.from_tied(draw(N, D), draw(N), draw(D)), SaeMetadata("m", "h", 8, True))
    assert [reader_of(tmp_path / name).name for name in "abc"] == ["sparsify", "dictionary_learning", "SAELens"]
    assert reader_of(tmp_path) is None
    assert len({one.weights for one in READERS}) == len(READERS) == 3


# --- what is refused ------------------------------------------------------------------------------------------


def test_where_there_is_no_dictionary_the_layouts_are_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"sae_weights.safetensors \(SAELens\), sae.*ae.pt.*none of them"):
        load_dictionary(tmp_path)
    with pytest.raises(ArtefactError, match="nothing there"):
        load_dictionary(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match="found a file"):
        load_dictionary(tmp_path / "file")
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(ArtefactError, match="sae_lens_version"):
        load_dictionary(tmp_path)


def test_two_dictionaries_in_one_folder_are_none(tmp_path):
    write_sparsify(tmp_path)
    write_learning(tmp_path, "AutoEncoder")
    with pytest.raises(ArtefactError, match=r"one dictionary, found sae.safetensors and ae.pt"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transcode": True}, "transcode in .*expected False, found True"),
        ({"skip_connection": True}, "skip_connection in "),
        ({"activation": "groupmax"}, "activation in .*expected topk, found 'groupmax'"),
        ({"signed": True}, "signed in .*expected False"),
        ({"k": 0}, "k in .*positive integer, found 0"),
        ({"k": N + 1}, r"k in .*at most 11 \(latents\), found 12"),
        ({"d_in": None}, "d_in in .*positive integer"),
        ({"num_latents": N + 1}, r"shape \(12, 5\), found shape \(11, 5\)"),
        ({"num_latents": 0, "expansion_factor": "2"}, "expansion_factor in "),
    ],
)
def test_sparsify_folders_that_cannot_be_represented(tmp_path, changes, message):
    folder, _ = write_sparsify(tmp_path, **changes)
    with pytest.raises(ArtefactError, match=message):
        load_dictionary(folder)


def test_sparsify_folders_that_are_damaged(tmp_path):
    folder, w = write_sparsify(tmp_path)
    save_file(w | {"W_skip": draw(D, D)}, folder / "sae.safetensors")
    with pytest.raises(ArtefactError, match="found W_dec, W_skip, b_dec"):
        load_dictionary(folder)
    save_file(w | {"b_dec": torch.full((D,), torch.inf)}, folder / "sae.safetensors")
    with pytest.raises(ArtefactError, match=r"b_dec.*finite"):
        load_dictionary(folder)
    save_file(w | {"b_dec": w["b_dec"].half()}, folder / "sae.safetensors")
    with pytest.raises(ArtefactError, match=r"torch\.float16|torch\.float32"):
        load_dictionary(folder)
    (folder / "cfg.json").write_text("[]")
    with pytest.raises(ArtefactError, match="a JSON object, found list"):
        load_dictionary(folder)


class Harm:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, legacy):
    folder = write_learning(tmp_path / "dl", "AutoEncoder")
    harm = {"bias": Harm(tmp_path / "harm")}
    if legacy:
        (folder / "ae.pt").write_bytes(pickle.dumps(harm))
    else:
        torch.save(harm, folder / "ae.pt")
    with pytest.raises(
        ArtefactError, match=r"ae\.pt: expected a state dict of tensors alone, found a pickle of other"
    ) as e:
        load_dictionary(folder)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "harm").exists()


def test_weights_that_are_no_state_dict_are_refused(tmp_path):
    folder = write_learning(tmp_path, "AutoEncoder", [torch.ones(2)])
    with pytest.raises(ArtefactError, match="tensors alone, found a pickled list"):
        load_dictionary(folder)
    torch.save(state("AutoEncoder") | {"step": 3}, folder / "ae.pt")
    with pytest.raises(ArtefactError, match="tensors alone, found a pickled dict"):
        load_dictionary(folder)
    whole = (write_learning(tmp_path, "AutoEncoder") / "ae.pt").read_bytes()
    for part in (whole[:-100], whole[:50], b""):
        (folder / "ae.pt").write_bytes(part)
        with pytest.raises(ArtefactError, match=r"ae\.pt: expected") as e:
            load_dictionary(folder)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("AutoEncoder", {"bias": None}, r"tensors bias, decoder\.weight.*found decoder\.weight"),
        ("AutoEncoder", {"decoder.weight": draw(N, D)}, r"decoder.weight .*shape \(5, 11\), found shape \(11, 5\)"),
        ("AutoEncoder", {"encoder.weight": draw(N)}, "encoder.weight .*2 axes"),
        ("AutoEncoder", {"bias": torch.full((D,), torch.nan)}, "finite"),
        ("AutoEncoder", {"bias": draw(D).double()}, "float32, found torch.float64"),
        ("AutoEncoderTopK", {"k": torch.tensor(K + 1)}, "trainer.k in .*expected 4.*found 3"),
        ("AutoEncoderTopK", {"k": torch.tensor(0)}, "tensor k in .*1 to 11, found 0"),
        ("BatchTopKSAE", {"threshold": torch.tensor(-1.0)}, r"threshold in .*one number >= 0, found -1\.0"),
        ("BatchTopKSAE", {"threshold": torch.tensor(torch.nan)}, "threshold in .*found nan"),
    ],
)
def test_state_dicts_that_do_not_fit_their_class(tmp_path, kind, changes, message):
    tensors = {k: v for k, v in (state(kind) | changes).items() if v is not None}
    folder = write_learning(tmp_path, kind, tensors)
    with pytest.raises(ArtefactError, match=message):
        load_dictionary(folder)


def test_other_classes_are_refused_by_name(tmp_path):
    folder = write_learning(tmp_path, "AutoEncoder")
    for config in ({"trainer": {"dict_class": "CrossCoder"}}, {"trainer": {"dict_class": ["x"]}}, {"trainer": []}, {}):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtefactError, match=r"dict_class in .*one of AutoEncoder, .*found ('Cross|\[|None)"):
            load_dictionary(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ArtefactError, match=r"config.json.*nothing there"):
        load_dictionary(folder)
