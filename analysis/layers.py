"""Precision, recall and F1 by layer (Foote et al. 2023, table 1), several methods side by side on the same units.

    python analysis/layers.py                                           # embedded model, layers 0 to 5, runs/layers
    python analysis/layers.py --layers 0,5,10,15,20,25 --units 20 --methods suffix
    python analysis/layers.py --basis sae --dictionary 'runs/sae-{layer}/dictionary/sae' --layers 1,3 --out runs/sae
    python analysis/layers.py --model gpt2 --corpus hf:NeelNanda/pile-10k --layers 0,1,2 --out runs/gpt2

Writes `report/` in the run folder: layers.json (data with provenance), layers.md (tables), layers.png and .svg
(figure); and `layers/NN-BASIS/METHOD/graphs/`. Interrupted and run again, it goes on where it stopped; a further method
leaves what is finished as it is. Tables of counts stand beside the methods; failures are counted.
"""

import argparse
import sys
from pathlib import Path

from saelens_n2g.commands.comparisons import layers
from saelens_n2g.errors import N2GError


def main() -> int:
    """Explain, or finish what was interrupted, and print where the report lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    parser.add_argument("--layers", default="0,1,2,3,4,5", help="comma-separated")
    parser.add_argument("--basis", default="neurons", help="neurons, sae, random, pca, ica")
    parser.add_argument("--dictionary", help="folder of a trained dictionary; {layer} stands for the layer")
    parser.add_argument("--units", type=int, default=32, help="per layer")
    parser.add_argument("--methods", "--method", nargs="+", default=["paper", "suffix", "refined"])
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument(
        "--augmenter",
        default="auto",
        help="for method paper: auto, spellings, subject, A+B, none, or a fill-mask model",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    try:
        print(layers(**vars(parser.parse_args())))
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
