"""Everything about one model on one page: dictionaries, bases side by side, IOI patching, a case study.

    python analysis/report.py --small                                   # minutes, to see what it is
    python analysis/report.py                                           # embedded model, an hour on two cores
    python analysis/report.py --model gpt2 --corpus hf:NeelNanda/pile-10k --out runs/gpt2

Runs `curves.py`, `study.py`, `ioi.py` and `cases.py` with settings that fit together, each in its own folder, and
writes `report/` in the run folder: index.html (self-contained), report.md, a page for each analysis, figures, data. The
exact commands stand in it. Interrupted and run again, it goes on where it stopped. The same as `saelens-n2g report`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "report", out="runs/report")
