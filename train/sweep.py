"""Train many dictionaries from one pass over the model, and draw what sparsity costs (FVU against L0, beside PCA).

    python train/sweep.py                         # settings in train/sweep.json: eight alphas on the embedded model
    python train/sweep.py my-settings.json --out runs/mine

Everything it does is in `saelens_n2g.commands.dictionaries.sweep`; settings are the options of `saelens-n2g sweep`.
"""

import argparse
import json
from pathlib import Path

from saelens_n2g.commands.dictionaries import sweep
from saelens_n2g.progress import Reporter


def main() -> None:
    """Read the settings file and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    arguments = parser.parse_args()
    sweep(out=arguments.out, reporter=Reporter(), **json.loads(arguments.settings.read_text()))


if __name__ == "__main__":
    main()
