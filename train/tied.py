"""Train one tied sparse autoencoder on the embedded model: the recipe behind `make demo`, on its own.

    python train/tied.py                          # settings in train/tied.json
    python train/tied.py --estimate               # only say what it will cost
    python train/tied.py my-settings.json --out runs/mine

Everything it does is in `saelens_n2g.commands.dictionaries.train`; settings are the options of `saelens-n2g train`.
"""

from saelens_n2g.cli.scripts import recipe
from saelens_n2g.commands.dictionaries import train_with

if __name__ == "__main__":
    recipe(__doc__, __file__, train_with)
