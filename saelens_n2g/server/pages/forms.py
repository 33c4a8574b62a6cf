"""Forms: what the pages for a text have in common: which model, which bases, and what went wrong."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.problems import Problem
from saelens_n2g.server.queries import integers, known, questions
from saelens_n2g.store.reader import Store
from saelens_n2g.store.tokenizer import SERVICE

Answer = TypeVar("Answer")


def chosen(entries: Sequence[Entry], model: str | None) -> Entry | None:
    """The model that is asked for, else the first; None in an empty store. Raises `Problem` (404)."""
    if model is not None:
        known([model], [entry.model.name for entry in entries], "model")
    return next((entry for entry in entries if model in (None, entry.model.name)), None)


def bases_of(entry: Entry, said: str | None) -> list[str]:
    """The bases that are asked for, once each; all where none are. Raises `Problem` (404)."""
    there = [basis.name for basis in entry.bases]
    if said is None:
        return there
    wanted = set(known([one for one in said.split(",") if one], there, "basis"))
    return [name for name in there if name in wanted]


def layers_of(entry: Entry, said: str | None) -> list[int]:
    """The same of layers. Raises `Problem` (400, 404)."""
    there = sorted({layer for _, layer in entry.layers})
    wanted = there if said is None else set(known(integers("layers", said.strip(",")), there, "layer"))
    return [number for number in there if number in wanted]


def form(entries: Sequence[Entry], entry: Entry | None) -> dict[str, Any]:
    """What there is to choose from."""
    return {
        "models": [one.model.name for one in entries],
        "model": None if entry is None else entry.model.name,
        "bases": [] if entry is None else [(basis.name, basis.title) for basis in entry.bases],
        "layers": [] if entry is None else [(number, None) for number in sorted({layer for _, layer in entry.layers})],
    }


def reads_text(store: Store, entry: Entry) -> bool:
    """Whether the store has the model's tokenizer."""
    return store.model_body(entry.model.id, SERVICE) is not None


def tried(answer: Callable[[], Answer], problem: Problem | None) -> tuple[Answer | None, Problem | None]:
    """What is answered, or why that is not possible, if nothing was wrong before."""
    if problem is None:
        try:
            with questions():
                return answer(), None
        except Problem as error:
            problem = error
    return None, problem
