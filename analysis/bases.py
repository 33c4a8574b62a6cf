"""Are dictionary features easier to explain than neurons? The bases of one layer side by side.

    python analysis/bases.py                                  # embedded model, layer 1, runs/bases
    python analysis/bases.py --layer 5 --units 60 --out runs/bases-5

Writes `report/` in the run folder: results.json (data), comparison.md (table), comparison.png and .svg (figure),
index.html (everything, offline). The same code path as `make demo`; protocol in docs/protocol.md.
"""

import argparse
from pathlib import Path

from saelens_n2g.commands.comparisons import compare
from saelens_n2g.commands.settings import config_of
from saelens_n2g.graphs.methods import DEFAULT
from saelens_n2g.progress import Reporter


def main() -> None:
    """Compare, or finish a comparison that was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bases"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    parser.add_argument("--layer", type=int, default=1)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--method", default=DEFAULT)
    parser.add_argument("--augmenter", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    out = options.pop("out")
    compare(config_of(**options), out, Reporter())


if __name__ == "__main__":
    main()
