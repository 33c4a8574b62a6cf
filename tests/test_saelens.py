"""Dictionaries to and from SAELens itself: folders that SAELens 6.51.1 wrote (`tests/data/saelens`), and, where
SAELENS_PYTHON names a Python that has SAELens, both ways with freshly trained ones (`benchmarks/saelens_peer.py`)."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelens_n2g.bases.formats import SaeMetadata, load_saelens, save_saelens
from saelens_n2g.sites import Site
from saelens_n2g.training import TrainingConfig, train
from saelens_n2g.training.architectures.registry import architectures

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ROOT / "tests" / "data" / "saelens"
NAMES = sorted(path.name for path in WRITTEN.iterdir())
EXAMPLES = "examples.safetensors"
TOLERANCE = 1e-5
"""Of a feature's value. SAELens multiplies the magnitude's scale of gated ones into the encoder and we into the
product, which differs by rounding: relative to the largest value of the examples, not by an absolute amount."""


def assert_same_features(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    dictionary = load_saelens(folder)
    features = dictionary.encode(expected["x"])
    assert (expected["features"] > 0).any(), "examples on which nothing fires show nothing"
    for ours, theirs in ((features, expected["features"]), (dictionary.decode(features), expected["rebuilt"])):
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


def test_all_of_saelens_architectures_are_here():
    assert NAMES == ["gated", "jumprelu", "standard", "standard-raw-input", "topk", "topk-rescaled"]


@pytest.mark.parametrize("name", NAMES)
def test_what_saelens_wrote_has_saelens_features_here(name):
    assert_same_features(WRITTEN / name, load_file(WRITTEN / name / EXAMPLES))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_written_here_has_every_key_and_tensor_that_saelens_writes(tmp_path, name):
    """Their loader asks for them by name; values must be theirs, or of an equal dictionary."""
    about = SaeMetadata("tiny", Site(1, "resid_post").hook, 128, prepend_bos=True)
    save_saelens(tmp_path / "own", load_saelens(WRITTEN / name), about)
    theirs, ours = (json.loads((place / "cfg.json").read_text()) for place in (WRITTEN / name, tmp_path / "own"))
    told = {"sae_lens_version", "sae_lens_training_version"}
    assert {k: v for k, v in theirs.items() if k != "metadata"}.items() <= ours.items()
    assert {k: v for k, v in theirs["metadata"].items() if k not in told}.items() <= ours["metadata"].items()
    before, after = (load_file(place / "sae_weights.safetensors") for place in (WRITTEN / name, tmp_path / "own"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


# --- with SAELens at hand -------------------------------------------------------------------------------------

PEER = os.environ.get("SAELENS_PYTHON")
needs_saelens = pytest.mark.skipif(PEER is None, reason="SAELENS_PYTHON names no Python with SAELens")


def peer(*arguments: object) -> None:
    call = [str(PEER), str(ROOT / "benchmarks" / "saelens_peer.py"), *map(str, arguments)]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


@needs_saelens
def test_dictionaries_trained_here_have_the_same_features_in_saelens(tmp_path):
    """All architectures: SAELens loads each folder, and its features are compared with ours."""
    rows = torch.randn(2048, 24, generator=torch.Generator().manual_seed(1)) * 3 + 1
    about = SaeMetadata("tiny", Site(1, "resid_post").hook, 128, prepend_bos=True)
    for name, kind in architectures().items():
        options = {"k": 6} if kind.sparsity == "k" else {}
        config = TrainingConfig(
            architecture=name, options=options, samples=8192, batch=256, alpha=1e-2, wandb="disabled", dead_window=1024
        )
        made = train(config, rows, tmp_path / "runs" / name, metadata=about)
        shutil.copytree(made.folder, tmp_path / "folders" / name)
        save_file({"x": rows[:64].clone()}, tmp_path / "folders" / name / EXAMPLES)
    peer("read", tmp_path / "folders")
    for name in architectures():
        expected = load_file(tmp_path / "folders" / name / EXAMPLES)
        assert expected.keys() == {"x", "features", "rebuilt"}, "SAELens did not read it"
        assert_same_features(tmp_path / "folders" / name, expected)


@needs_saelens
def test_saelens_writes_what_it_wrote(tmp_path):
    """At the sizes of a small model; and the folders kept here are those that it writes."""
    peer("write", tmp_path / "large", "--sizes", 576, 4608, 32)
    for name in NAMES:
        assert_same_features(tmp_path / "large" / name, load_file(tmp_path / "large" / name / EXAMPLES))
    peer("write", tmp_path / "small")
    for name in NAMES:
        kept, made = (load_file(place / name / EXAMPLES) for place in (WRITTEN, tmp_path / "small"))
        assert all(torch.allclose(kept[k], made[k], atol=1e-5) for k in kept)
