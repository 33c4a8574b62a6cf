"""Train tied and TopK dictionaries on GPT-2 small, residual stream after layers 4 and 8, beside each other.

    python train/gpt2.py --estimate               # only say what it will cost
    python train/gpt2.py                          # the estimate, then twelve dictionaries
    python train/gpt2.py my-settings.json --out runs/mine

A starting point of today, nobody's published run: R = 8 (6,144 features), four alphas and two k, fifteen million
activations of FineWeb seen once. Alphas are for activations scaled to a root mean square of 1 (docs/decisions.md);
they gave an L0 of 30 to 90 on SmolLM2-135M, on GPT-2 they are untried. Needs the Hugging Face hub.
Everything it does is in `saelens_n2g.commands.dictionaries.sweep`.
"""

from saelens_n2g.cli.scripts import recipe
from saelens_n2g.commands.dictionaries import sweep

if __name__ == "__main__":
    recipe(__doc__, __file__, sweep)
