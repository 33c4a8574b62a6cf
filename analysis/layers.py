"""Precision, recall and F1 by layer (Foote et al. 2023, table 1), several methods side by side on the same units.

    python analysis/layers.py                                           # embedded model, layers 0 to 5, runs/layers
    python analysis/layers.py --layers 0,5,10,15,20,25 --units 20 --methods suffix
    python analysis/layers.py --basis sae --dictionary 'runs/sae-{layer}/dictionary/sae' --layers 1,3 --out runs/sae
    python analysis/layers.py --model gpt2 --corpus hf:NeelNanda/pile-10k --layers 0,1,2 --out runs/gpt2

Writes `report/` in the run folder: layers.json (data with provenance), layers.md (tables), layers.png and .svg
(figure); and `layers/NN-BASIS/METHOD/graphs/`. Interrupted and run again, it goes on where it stopped; a further method
leaves what is finished as it is. Tables of counts stand beside the methods; failures are counted. The same as
`saelens-n2g layers`.
"""

from saelens_n2g.cli.scripts import analysis

if __name__ == "__main__":
    analysis(__doc__, "layers", out="runs/layers")
