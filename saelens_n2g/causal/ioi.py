"""Indirect object identification (IOI), with counterfactuals: prompts after Wang et al. 2022 (arXiv 2211.00593), used
on dictionaries by Cunningham et al. 2023, section 4.

    task = ioi_task(subject.encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=50, seed=0)
    held = ioi_task(..., prompts=50, seed=[0, 1], apart_from=task.prompts)          # others of the same kind
    performance(subject, task, held)        # does the model do it at all?

"When Mary and John went to the park, John gave a book to" asks for Mary, the indirect object. The counterfactual is the
same text with a third name in her place, and asks for that one. Only names that are one token after a space are used,
so the two texts of a prompt differ in one token. Templates and names are our own.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.errors import InputError

ORDERS = ("ABBA", "BABA")
"""A: the indirect object, B: the subject. The first two letters are the order in which they are introduced."""
OPENINGS = (
    "After {0} and {1} left the {place},",
    "When {0} and {1} arrived at the {place},",
    "While {0} and {1} were walking through the {place},",
    "Yesterday {0} and {1} met at the {place}, and",
    "Last night {0} and {1} had dinner near the {place}, and later",
    "Because {0} and {1} were the only guests at the {place},",
    "The moment {0} and {1} reached the {place},",
    "Everybody knew {0} and {1} from the {place}. In the end",
    "On Friday {0} and {1} worked late at the {place}, so",
    "Once {0} and {1} had found the {place},",
    "As soon as {0} and {1} sat down in the {place},",
    "In the story {0} and {1} travel to the {place}, where",
    "Two friends, {0} and {1}, waited outside the {place}. Then",
    "Although {0} and {1} hardly knew the {place},",
    "For years {0} and {1} had dreamt of the {place}. Today",
)
ACTIONS = (
    "{2} gave a {thing} to",
    "{2} handed the {thing} to",
    "{2} offered a {thing} to",
    "{2} passed the {thing} to",
    "{2} decided to give the {thing} to",
)
PLACES = ("park", "school", "station", "garden", "library", "market", "office", "museum", "river", "hospital")
THINGS = ("book", "drink", "ring", "letter", "key", "basket", "picture", "map", "ball", "coat")
NAMES = (
    "Mary", "John", "Anna", "Peter", "Laura", "David", "Emma", "Paul", "Sarah", "James", "Alice", "Robert", "Jane",
    "Mark", "Lucy", "Thomas", "Kate", "Daniel", "Helen", "George", "Maria", "Henry", "Julia", "Simon", "Clara",
    "Martin", "Susan", "Jack", "Rachel", "Michael",
)  # fmt: skip


class IoiPrompt(NamedTuple):
    """One prompt and its counterfactual."""

    text: str
    counterfactual: str
    order: str
    """ABBA or BABA."""
    indirect_object: int
    """Token that the text asks for."""
    subject: int
    """Token of the name that occurs twice."""
    other: int
    """Token that the counterfactual asks for."""


@dataclass(frozen=True, eq=False)
class IoiTask:
    """Prompts as token ids, padded on the right, where a causal model does not look from the tokens before."""

    prompts: tuple[IoiPrompt, ...]
    ids: Int[Tensor, "prompts pos"]
    """BOS included where the model has one."""
    counterfactual_ids: Int[Tensor, "prompts pos"]
    last: Int[Tensor, "prompts"]
    """Position of the last token of each prompt, where the name is asked for."""

    def mask(self) -> Tensor:
        """(prompts, pos) bool: what is no padding."""
        return torch.arange(self.ids.shape[1]) <= self.last[:, None]

    def at_last(self, logits: Float[Tensor, "prompts pos vocab"]) -> Float[Tensor, "prompts vocab"]:
        """Logits of the token that is asked for."""
        return logits[torch.arange(len(logits)), self.last.to(logits.device)]


def single_tokens(encode: Callable[[str], Sequence[int]], names: Sequence[str]) -> dict[str, int]:
    """Names that are one token after a space, with it."""
    found = {name: encode(f" {name}") for name in names}
    return {name: int(ids[0]) for name, ids in found.items() if len(ids) == 1}


def ioi_task(
    encode: Callable[[str], Sequence[int]],
    *,
    bos_id: int | None,
    pad_id: int,
    prompts: int = 50,
    seed: int | Sequence[int] = 0,
    names: Sequence[str] = NAMES,
    apart_from: Sequence[IoiPrompt] = (),
) -> IoiTask:
    """Draw prompts: both orders in turn, templates, names, places and things at random.

    encode: text to token ids, nothing added. apart_from: prompts whose texts are drawn again where they come. Raises
    `InputError` if fewer than three names are one token, or if a prompt and its counterfactual do not differ in exactly
    one token.
    """
    tokens = single_tokens(encode, names)
    if len(tokens) < 3:
        raise InputError("names for the IOI task", "three or more that are one token", f"{len(tokens)} of {len(names)}")
    if prompts < 1:
        raise InputError("prompts of the IOI task", "one or more", str(prompts))
    rng = np.random.default_rng(seed)
    taken = {text for prompt in apart_from for text in (prompt.text, prompt.counterfactual)}
    drawn: list[IoiPrompt] = []
    while len(drawn) < prompts:
        one = _prompt(rng, ORDERS[len(drawn) % 2], tokens)
        if not {one.text, one.counterfactual} & taken:
            drawn.append(one)
    start = [] if bos_id is None else [bos_id]
    rows = [[*start, *encode(p.text)] for p in drawn]
    others = [[*start, *encode(p.counterfactual)] for p in drawn]
    for prompt, row, other in zip(drawn, rows, others, strict=True):
        apart = sum(a != b for a, b in zip(row, other, strict=False))
        if len(row) != len(other) or apart != 1:
            raise InputError(f"prompt {prompt.text!r}", "one token other than in its counterfactual", f"{apart}")
    last = torch.tensor([len(row) - 1 for row in rows])
    return IoiTask(tuple(drawn), _padded(rows, pad_id), _padded(others, pad_id), last)


def _prompt(rng: np.random.Generator, order: str, tokens: dict[str, int]) -> IoiPrompt:
    known = list(tokens)
    a, b, c = (known[i] for i in rng.choice(len(known), 3, replace=False))
    template = f"{OPENINGS[rng.integers(len(OPENINGS))]} {ACTIONS[rng.integers(len(ACTIONS))]}"
    words = {"place": PLACES[rng.integers(len(PLACES))], "thing": THINGS[rng.integers(len(THINGS))]}

    def text(io: str) -> str:
        first, second = (io, b) if order == "ABBA" else (b, io)
        return template.format(first, second, b, **words)

    return IoiPrompt(text(a), text(c), order, tokens[a], tokens[b], tokens[c])


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> Int[Tensor, "rows pos"]:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])


# --- does the model do it? ------------------------------------------------------------------------------------


@runtime_checkable
class LogitsModel(Protocol):
    """What `performance` needs of a subject."""

    def logits(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]: ...


@dataclass(frozen=True)
class Performance:
    """How well a model does the task, over prompts and counterfactuals alike: both are plain IOI texts."""

    texts: int
    preferred: float
    """Share of texts where the indirect object has a larger logit than the subject; 0.5 is chance."""
    top: float
    """Share of texts where the indirect object is the model's first choice of all tokens."""
    logit_difference: float
    """Mean of logit(indirect object) - logit(subject)."""
    probability: float
    """Mean probability of the indirect object."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def performance(model: LogitsModel, *tasks: IoiTask) -> Performance:
    """Run all texts of the tasks."""
    found: list[tuple[bool, bool, float, float]] = []
    sides = [
        (task, ids, asked)
        for task in tasks
        for ids, asked in ((task.ids, "indirect_object"), (task.counterfactual_ids, "other"))
    ]
    for task, ids, asked in sides:
        logits = task.at_last(model.logits(ids)).double().cpu()
        for row, prompt in zip(logits, task.prompts, strict=True):
            io, subject = float(row[getattr(prompt, asked)]), float(row[prompt.subject])
            first = int(row.argmax()) == getattr(prompt, asked)
            found.append((io > subject, first, io - subject, float(np.exp(io - float(row.logsumexp(0))))))
    means = np.mean(np.array(found, dtype=float), axis=0)
    return Performance(len(found), *map(float, means))
