"""`python -m saelens_n2g.cli`: the command where its script is not on the path, and for torchrun."""

from saelens_n2g.cli import main

main()
