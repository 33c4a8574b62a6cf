"""IOI counterfactual patching (Cunningham et al. 2023, section 4): how few features carry the answer, basis by basis.

    saelens-n2g sweep --layers 15 --alphas 1e-3,3e-3 --tokens 60000 --samples 240000 --out runs/sweep
    python analysis/ioi.py --layer 15 --dictionary runs/sweep              # embedded model, runs/ioi
    python analysis/ioi.py --layer 15 --dictionary runs/a --dictionary runs/b --prompts 24 --runs 400 --out runs/more

Writes `report/` in the run folder: results.json (data with provenance), ioi.md (table), ioi.png and .svg (figure); the
curves with their features in `bases/NAME/`. Interrupted and run again, it goes on where it stopped. The report says
what differs from the authors' settings; `--exact` takes theirs, which takes hours on a CPU.
"""

import argparse
import sys
from pathlib import Path

from saelens_n2g.commands.ioi import ioi
from saelens_n2g.errors import N2GError
from saelens_n2g.progress import Reporter


def main() -> int:
    """Run the analysis, or finish what was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ioi"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--corpus", default="embedded")
    parser.add_argument("--layer", type=int, help="block whose output is patched; default: the middle one")
    parser.add_argument("--dictionary", action="append", default=[], help="a dictionary or a sweep; may be repeated")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--runs", type=int, default=210, help="forward passes for the ACDC curve of each basis")
    parser.add_argument("--exact", action="store_true", help="ACDC as the authors have it")
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    try:
        ioi(reporter=Reporter(), **vars(parser.parse_args()))
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
