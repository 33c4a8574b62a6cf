"""Bases: activations at a site -> non-negative features. The imports enter the built-in bases in the registry."""

import saelens_n2g.bases.directions
import saelens_n2g.bases.neurons
import saelens_n2g.bases.sae  # noqa: F401
