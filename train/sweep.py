"""Train many dictionaries from one pass over the model, and draw what sparsity costs (FVU against L0, beside PCA).

    python train/sweep.py                         # settings in train/sweep.json: eight alphas on the embedded model
    python train/sweep.py --estimate              # only say what it will cost
    python train/sweep.py my-settings.json --out runs/mine

Everything it does is in `saelens_n2g.commands.dictionaries.sweep`; settings are the options of `saelens-n2g sweep`.
"""

from saelens_n2g.cli.scripts import recipe
from saelens_n2g.commands.dictionaries import sweep

if __name__ == "__main__":
    recipe(__doc__, __file__, sweep)
