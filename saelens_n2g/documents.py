"""Document: the unit of text that is never split between fitting and testing."""

from typing import NamedTuple


class Document(NamedTuple):
    """One text and the name it goes by. Documents with the same id count as one when documents are split."""

    id: str
    text: str
