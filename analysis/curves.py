"""What sparsity costs, and how alike dictionaries are: sizes, alphas and seeds of one site in one pass over the model.

    python analysis/curves.py                                     # embedded model, layer 1, runs/curves
    python analysis/curves.py --layers 1,12 --alphas 1e-3,3e-3 --expansions 1,2,4,8 --seeds 0,1,2 --out runs/more
    python analysis/curves.py --estimate                          # what it will cost, and nothing else

Writes into the run folder, for each site: frontier-SITE (FVU against L0, beside principal components), mmcs-SITE (mean
max cosine similarity between all dictionaries: do seeds and sizes find the same features?), density-SITE (how often
features fire, dead ones apart), as .png and .svg; sweep.md (tables) and sweep.json (data with provenance). After
Cunningham et al. 2023, section 2 and appendix. The same as `saelens-n2g sweep`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(
        __doc__,
        "sweep",
        out="runs/curves",
        alphas="1e-3,3e-3,8e-3",
        expansions="2,4",
        seeds="0,1",
        wandb="disabled",
    )
