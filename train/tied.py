"""Train one tied sparse autoencoder on the embedded model: the recipe behind `make demo`, on its own.

    python train/tied.py                          # settings in train/tied.json
    python train/tied.py my-settings.json --out runs/mine

Everything it does is in `saelens_n2g.commands.dictionaries.train`; settings are the options of `saelens-n2g train`.
"""

import argparse
import json
from pathlib import Path

from saelens_n2g.commands.dictionaries import train
from saelens_n2g.commands.settings import config_of
from saelens_n2g.progress import Reporter


def main() -> None:
    """Read the settings file and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=Path("runs/tied"))
    arguments = parser.parse_args()
    train(config_of(bases="sae", **json.loads(arguments.settings.read_text())), arguments.out, Reporter())


if __name__ == "__main__":
    main()
