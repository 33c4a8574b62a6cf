"""IOI counterfactual patching (Cunningham et al. 2023, section 4): how few features carry the answer, basis by basis.

    saelens-n2g sweep --layers 15 --alphas 1e-3,3e-3 --tokens 60000 --samples 240000 --out runs/sweep
    python analysis/ioi.py --layer 15 --dictionary runs/sweep              # embedded model, runs/ioi
    python analysis/ioi.py --layer 15 --dictionary runs/a --dictionary runs/b --prompts 24 --runs 400 --out runs/more

Writes `report/` in the run folder: results.json (data with provenance), ioi.md (table), ioi.png and .svg (figure); the
curves with their features in `bases/NAME/`. Interrupted and run again, it goes on where it stopped. The report says
what differs from the authors' settings; `--exact` takes theirs, which takes hours on a CPU. The same as
`saelens-n2g ioi`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "ioi", out="runs/ioi")
