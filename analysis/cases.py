"""Case study of the feature that goes with apostrophes, or with another pattern (Cunningham et al. 2023, section 5).

    saelens-n2g sweep --layers 1,15 --alphas 1e-3,3e-3 --tokens 60000 --samples 240000 --out runs/sweep
    python analysis/cases.py --dictionary runs/sweep/1.resid_post-alpha0.003/sae \\
        --later runs/sweep/15.resid_post-alpha0.003/sae --out runs/apostrophe
    python analysis/cases.py --dictionary runs/sae/dictionary/sae --pattern '\\((?=[A-Z])' --out runs/brackets

Picks the feature itself: the one whose firing predicts the matching tokens best on the fit documents; says which it is
and how well it does, on test documents too. Writes `case/` in the run folder: case.json (data with provenance),
case.md (text), case.png and .svg (figure). `--unit ...` studies one that is named. Options: `saelens-n2g case`.
"""

from saelens_n2g.causal.patterns import APOSTROPHE
from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "case", out="runs/apostrophe", pattern=APOSTROPHE)
