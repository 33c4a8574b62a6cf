"""Case study of the feature that goes with apostrophes, or with another pattern (Cunningham et al. 2023, section 5).

    saelens-n2g sweep --layers 1,15 --alphas 1e-3,3e-3 --tokens 60000 --samples 240000 --out runs/sweep
    python analysis/cases.py --dictionary runs/sweep/1.resid_post-alpha0.003/sae \\
        --later runs/sweep/15.resid_post-alpha0.003/sae --out runs/apostrophe
    python analysis/cases.py --dictionary runs/sae/dictionary/sae --pattern '\\((?=[A-Z])' --out runs/brackets

Picks the feature itself: the one whose firing predicts the matching tokens best on the fit documents; says which it is
and how well it does, on test documents too. Writes `case/` in the run folder: case.json (data with provenance),
case.md (text), case.png and .svg (figure). `saelens-n2g case --unit ...` does the same for a unit that is named.
"""

import argparse
import sys
from pathlib import Path

from saelens_n2g.causal.patterns import APOSTROPHE
from saelens_n2g.commands.cases import WINDOWS, best_case
from saelens_n2g.errors import N2GError
from saelens_n2g.progress import Reporter


def main() -> int:
    """Choose a feature and study it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dictionary", required=True, help="folder of a dictionary that says where it belongs")
    parser.add_argument("--out", type=Path, default=Path("runs/apostrophe"))
    parser.add_argument("--pattern", default=APOSTROPHE, help="with ^ in front it is asked of every token by itself")
    parser.add_argument("--later", help="dictionary of a later layer")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="on which the unit is taken out")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    try:
        best_case(reporter=Reporter(), **vars(parser.parse_args()))
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
