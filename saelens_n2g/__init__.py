"""Explain units of language models as token graphs that predict where they fire, and score the prediction.

Importing the package is cheap: the names below are loaded when first used.

    from saelens_n2g import Subject, Site
    subject = Subject.load("embedded")
"""

import importlib
from importlib.metadata import version
from typing import Any

__version__ = version("saelens-n2g")

_EXPORTS = {
    "Site": "saelens_n2g.sites",
    "Graph": "saelens_n2g.graphs.graph",
    "N2GError": "saelens_n2g.errors",
    "Subject": "saelens_n2g.subject",
}
__all__ = ["Graph", "N2GError", "Site", "Subject", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
