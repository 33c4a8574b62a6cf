"""Train the dictionaries of Cunningham et al. 2023: Pythia-70M-deduped, residual stream after layers 0 to 5.

    python train/cunningham.py --estimate         # only say what it will cost: begin with this
    python train/cunningham.py                    # the estimate, then 672 dictionaries; killed, it goes on
    python train/cunningham.py my-settings.json --out runs/mine

The settings in train/cunningham.json are those of the authors' large run, read out of their code of that week
(github.com/HoagyC/sparse_coding, `big_sweep_experiments.py` at 86c7fcb, `sae_ensemble.py`, `activation_dataset.py`):

- tied, R of 0.5 to 32, sixteen alphas from 1e-4 to 1e-2 in equal ratios (the paper's 8.6e-4 is the eighth, 8.577e-4);
- batches of 1,024, ten chunks of 2,097,152 activations, each seen once; windows of 256 tokens, no BOS;
- activations are not scaled (`normalise` is false), so that alpha acts on what it acted on there;
- Adam at 3.2e-4. Their code says 1e-3, but its step counter never advances, which leaves 0.316 of that.

What differs: activations are centred with their mean here; windows do not cross documents, where theirs are joined by
an EOS; rows are shuffled in a buffer of 262,144, not in chunks; activations are in float32, not float16. The Pile as
they named it (`EleutherAI/pile`) no longer loads, so the text is EleutherAI/the_pile_deduplicated, what the model was
trained on.

Layers share passes over the model as far as `memory` (gigabytes) goes; fewer `alphas`, `expansions` or `layers` cost
in proportion. Needs the Hugging Face hub, and for the whole grid a GPU. It has not been run in full by us.
Everything it does is in `saelens_n2g.commands.dictionaries.sweep`.
"""

from saelens_n2g.cli.scripts import recipe
from saelens_n2g.commands.dictionaries import sweep

if __name__ == "__main__":
    recipe(__doc__, __file__, sweep)
