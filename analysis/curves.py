"""What sparsity costs, and how alike dictionaries are: sizes, alphas and seeds of one site in one pass over the model.

    python analysis/curves.py                                     # embedded model, layer 1, runs/curves
    python analysis/curves.py --layers 1,12 --alphas 1e-3,3e-3 --expansions 1,2,4,8 --seeds 0,1,2 --out runs/more
    python analysis/curves.py --estimate                          # what it will cost, and nothing else

Writes into the run folder, for each site: frontier-SITE (FVU against L0, beside principal components), mmcs-SITE (mean
max cosine similarity between all dictionaries: do seeds and sizes find the same features?), density-SITE (how often
features fire, dead ones apart), as .png and .svg; sweep.md (tables) and sweep.json (data with provenance). After
Cunningham et al. 2023, section 2 and appendix. The same code path as `saelens-n2g sweep`.
"""

import argparse
import sys
from pathlib import Path

from saelens_n2g.commands.dictionaries import sweep
from saelens_n2g.errors import N2GError
from saelens_n2g.progress import Reporter


def main() -> int:
    """Train, or finish what was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    parser.add_argument("--layers", default="1", help="comma-separated")
    parser.add_argument("--architecture", default="tied", help="comma-separated")
    parser.add_argument("--alphas", default="1e-3,3e-3,8e-3", help="comma-separated")
    parser.add_argument("--expansions", default="2,4", help="comma-separated: features per dimension")
    parser.add_argument("--seeds", default="0,1", help="comma-separated: of the first weights")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--samples", type=int, help="activations to train on; default: all, once")
    parser.add_argument("--wandb", default="disabled")
    parser.add_argument("--estimate", action="store_true", help="say what it will cost, and stop")
    try:
        sweep(reporter=Reporter(), **vars(parser.parse_args()))
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
