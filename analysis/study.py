"""Are features easier to explain than neurons? Bases side by side over layers, matched, with controls.

    python analysis/study.py --small                                    # minutes, to try it out
    python analysis/study.py                                            # embedded model, six layers, runs/study
    python analysis/study.py --layers 1,4 --dictionaries tied-R2,topk-R2 --units 24 --out runs/two
    python analysis/study.py --dictionaries 'mine=runs/sae-{layer}/dictionary/sae' --layers 1,3

Neurons, dictionaries, PCA, ICA and random directions, each unit also scored with the graph of another one; graph F1 on
two texts, the interpretability score of Cunningham et al. 2023, the protocol of Gao et al. 2024 (section 4.3). Writes
`report/` in the run folder: results.json (data with provenance), study.md (tables, what may be concluded), index.html
(every unit), figures as PNG and SVG. Interrupted and run again, it goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from saelens_n2g.commands.study import FULL, SMALL, study
from saelens_n2g.errors import N2GError


def main() -> int:
    """Run, or finish what was interrupted, and print where the page lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--small", action="store_true", help=f"settings for minutes: {SMALL}")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    for name, value in FULL.items():
        parser.add_argument(f"--{name}", type=type(value), help=f"default {value}")
    parser.add_argument("--bases", default="neurons,pca,ica,random")
    parser.add_argument("--width", type=int, default=129)
    parser.add_argument("--fragment", type=int, default=64, help="tokens, for the interpretability score")
    parser.add_argument("--method", default="refined", help="how graphs are fitted: paper, suffix, refined")
    parser.add_argument("--thorough", action="store_true", help="method refined with its defaults: slower")
    parser.add_argument("--alpha", type=float, default=3e-3)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    try:
        print(study(**vars(parser.parse_args())))
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
