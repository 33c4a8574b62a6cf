"""What are sentences worth beside graphs and tables of counts? Explained, simulated, scored, with controls.

    python analysis/interpret.py runs/demo                                      # no model: seconds to a minute
    python analysis/interpret.py runs/study --units 8 --calibration linear --out runs/words-study
    python analysis/interpret.py runs/demo --explainers templated,templated-table --simulators graph,quoted

After Bills et al. 2023, with their score and others that pass sanity checks, on held-out documents; every way of
explaining is held against a neutral explanation, another unit's and shuffled activations. Writes `report/` in the run
folder: results.json (data with provenance), interpret.md (tables), index.html (every unit with its sentences).
Interrupted and run again, it goes on where it stopped. The same as `saelens-n2g interpret`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "interpret", out="runs/words")
