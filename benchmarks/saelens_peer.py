"""SAELens' half of exchanging dictionaries with SAELens (`tests/test_saelens.py`); runs where SAELens is installed.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install sae-lens==6.51.1 "transformer-lens<4"
    /tmp/peers/bin/python benchmarks/saelens_peer.py write FOLDER    # a dictionary of each architecture, with examples
    /tmp/peers/bin/python benchmarks/saelens_peer.py read FOLDER     # what SAELens makes of dictionaries in subfolders
    SAELENS_PYTHON=/tmp/peers/bin/python python -m pytest tests/test_saelens.py

`write` with the default sizes made `tests/data/saelens`. Beside each dictionary lie `examples.safetensors`: activations
`x`, and `features` and `rebuilt` as SAELens has them. This file knows nothing of our package, and must not.
"""

import argparse
from pathlib import Path

import torch
from sae_lens import SAE, saes
from safetensors.torch import load_file, save_file

EXAMPLES = "examples.safetensors"


def variants(d_in: int, d_sae: int) -> dict[str, saes.SAE]:
    """One dictionary of each architecture that SAELens runs without training code, with settings that people use."""
    size = {"d_in": d_in, "d_sae": d_sae, "device": "cpu"}
    about = saes.sae.SAEMetadata(model_name="tiny", hook_name="blocks.1.hook_resid_post", prepend_bos=True)
    k = max(1, d_sae // 8)
    return {
        "standard": saes.StandardSAE(saes.StandardSAEConfig(**size, metadata=about)),
        "standard-raw-input": saes.StandardSAE(
            saes.StandardSAEConfig(**size, metadata=about, apply_b_dec_to_input=False)
        ),
        "topk": saes.TopKSAE(saes.TopKSAEConfig(**size, metadata=about, k=k, rescale_acts_by_decoder_norm=False)),
        "topk-rescaled": saes.TopKSAE(
            saes.TopKSAEConfig(**size, metadata=about, k=k, rescale_acts_by_decoder_norm=True)
        ),
        "jumprelu": saes.JumpReLUSAE(saes.JumpReLUSAEConfig(**size, metadata=about)),
        "gated": saes.GatedSAE(saes.GatedSAEConfig(**size, metadata=about)),
    }


@torch.no_grad()
def examples(sae: saes.SAE, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SAELens makes of activations (rows, d_in)."""
    features = sae.encode(x)
    return {"x": x, "features": features.to_dense().contiguous(), "rebuilt": sae.decode(features).contiguous()}


@torch.no_grad()
def write(folder: Path, d_in: int, d_sae: int, rows: int) -> None:
    """Every parameter drawn, so that none of them can be forgotten unseen."""
    for name, sae in variants(d_in, d_sae).items():
        generator = torch.Generator().manual_seed(0)
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        sae.save_model(folder / name)
        save_file(examples(sae, torch.randn(rows, d_in, generator=generator)), folder / name / EXAMPLES)


def read(folder: Path) -> None:
    """Load each dictionary below `folder` and run it on the `x` of its examples; SAELens' answers replace ours."""
    for place in sorted(path.parent for path in folder.glob("*/cfg.json")):
        sae = SAE.load_from_disk(place)
        save_file(examples(sae, load_file(place / EXAMPLES)["x"]), place / EXAMPLES)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "read"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs=3, default=(6, 16, 8), help="d_in, d_sae, rows")
    arguments = parser.parse_args()
    if arguments.what == "write":
        write(arguments.folder, *arguments.sizes)
    else:
        read(arguments.folder)


if __name__ == "__main__":
    main()
