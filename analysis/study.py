"""Are features easier to explain than neurons? Bases side by side over layers, matched, with controls.

    python analysis/study.py --small                                    # minutes, to try it out
    python analysis/study.py                                            # embedded model, six layers, runs/study
    python analysis/study.py --layers 1,4 --dictionaries tied-R2,topk-R2 --units 24 --out runs/two
    python analysis/study.py --dictionaries 'mine=runs/sae-{layer}/dictionary/sae' --layers 1,3

Neurons, dictionaries, PCA, ICA and random directions, each unit also scored with the graph of another one; graph F1 on
two texts, the interpretability score of Cunningham et al. 2023, the protocol of Gao et al. 2024 (section 4.3). Writes
`report/` in the run folder: results.json (data with provenance), study.md (tables, what may be concluded), index.html
(every unit), figures as PNG and SVG. Interrupted and run again, it goes on where it stopped.
The same as `saelens-n2g study`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "study", out="runs/study")
