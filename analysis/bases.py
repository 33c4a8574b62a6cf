"""Are dictionary features easier to explain than neurons? The bases of one layer side by side.

    python analysis/bases.py                                  # embedded model, layer 1, runs/bases
    python analysis/bases.py --layer 5 --units 60 --out runs/bases-5

Writes `report/` in the run folder: results.json (data), comparison.md (table), comparison.png and .svg (figure),
index.html (everything, offline). The same as `saelens-n2g compare`; protocol in docs/protocol.md.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "compare", out="runs/bases")
