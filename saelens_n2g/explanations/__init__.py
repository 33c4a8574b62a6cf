"""Explanations: what predicts a unit's firing from token ids. Graphs live in `graphs`, tables of counts here."""

from saelens_n2g.explanations.base import Explanation as Explanation
from saelens_n2g.explanations.tables import BackoffTable as BackoffTable
from saelens_n2g.explanations.tables import CountedText as CountedText
from saelens_n2g.explanations.tables import TableConfig as TableConfig
from saelens_n2g.explanations.tables import TokenTable as TokenTable
