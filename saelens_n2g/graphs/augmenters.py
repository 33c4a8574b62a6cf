"""Augmenters: who proposes other tokens for a masked position.

`MaskedLanguageModel` is the paper's choice (BERT, Hugging Face fill-mask). `SubjectInfill` needs no second model:
the subject's own next-token probabilities from the left context propose, and each proposal is reweighted by how
well the subject then predicts the tokens on the right. `Spellings` proposes the same word with another case or
without its space and costs nothing. `Several` asks more than one. A graph's provenance names what was used.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.graphs.questions import Masked, Substitute, Tokens


@runtime_checkable
class LanguageModel(Protocol):
    """What infilling needs of a subject."""

    bos_id: int | None
    d_vocab: int

    @property
    def pad_id(self) -> int: ...
    def logits(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]: ...
    def string(self, token: int) -> str: ...


@runtime_checkable
class Writer(Protocol):
    """What spelling needs of a subject."""

    def encode(self, text: str) -> list[int]: ...
    def string(self, token: int) -> str: ...


@runtime_checkable
class Augmenter(Protocol):
    """Proposes tokens for masked positions (one of the four protocols, docs/decisions.md), many rows in one call."""

    @property
    def name(self) -> str:
        """What goes into the provenance of a graph."""
        ...

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """Per row, substitutes for the masked token, likeliest first, never the original."""
        ...


class SubjectInfill:
    """The subject fills the gap itself: p(c | left) p(right | left, c), normalised over the candidates."""

    def __init__(
        self,
        subject: LanguageModel,
        *,
        top: int = 5,
        candidates: int = 10,
        min_probability: float = 1e-3,
        max_right: int = 4,
        batch_tokens: int = 1024,
    ) -> None:
        """`top` substitutes per position out of `candidates` that the left context proposes, each with a posterior
        of at least `min_probability`; `max_right` tokens to the right are looked at.
        """
        self.subject, self.top, self.candidates = subject, top, candidates
        self.min_probability, self.max_right, self.batch_tokens = min_probability, max_right, batch_tokens

    @property
    def name(self) -> str:
        top = f"top {self.top} of {self.candidates}, p >= {self.min_probability:g}"
        return f"subject infill ({top}, {self.max_right} tokens to the right)"

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """See `Augmenter.substitutes`. Tokens that are no readable text are never proposed.

        A position with no token to its left gets no proposal, and nothing is run for it: after a BOS alone (or
        nothing) the subject could only name its context-free favourites.
        """
        lefts = list(dict.fromkeys(row.tokens[: row.position] for row in rows if row.position > 0))
        proposed = {(): [], **dict(zip(lefts, self._propose(lefts), strict=True))}
        jobs: list[tuple[int, int, float, Tokens, int]] = []
        for i, row in enumerate(rows):
            left, right = row.tokens[: row.position], row.tokens[row.position + 1 :][: self.max_right]
            for token, logp in proposed[left]:
                if token != row.tokens[row.position]:
                    jobs.append((i, token, logp, (*left, token, *right), len(right)))
        fit = self._right_fit([(text, n) for _, _, _, text, n in jobs])
        scored: list[list[tuple[float, int]]] = [[] for _ in rows]
        for (i, token, logp, _, _), extra in zip(jobs, fit, strict=True):
            scored[i].append((logp + extra, token))
        return [self._best(row.position, found) for row, found in zip(rows, scored, strict=True)]

    def _best(self, position: int, scored: list[tuple[float, int]]) -> list[Substitute]:
        if not scored:
            return []
        posterior = torch.softmax(torch.tensor([s for s, _ in scored], dtype=torch.float64), 0).tolist()
        ranked = sorted(zip(posterior, (t for _, t in scored), strict=True), key=lambda item: (-item[0], item[1]))
        return [
            Substitute(position, position + 1, (token,), p)
            for p, token in ranked[: self.top]
            if p >= self.min_probability
        ]

    def _propose(self, lefts: Sequence[Tokens]) -> list[list[tuple[int, float]]]:
        """Per left context the likeliest readable next tokens with their log-probabilities."""
        out: dict[Tokens, list[tuple[int, float]]] = {}
        for batch in self._batches(lefts):
            values, tokens = self._predictions(batch, 1)[:, -1].topk(min(4 * self.candidates, self.subject.d_vocab))
            for text, v, t in zip(batch, values.tolist(), tokens.tolist(), strict=True):
                readable = [(token, p) for token, p in zip(t, v, strict=True) if _readable(self.subject.string(token))]
                out[text] = readable[: self.candidates]
        return [out[text] for text in lefts]

    def _right_fit(self, texts: Sequence[tuple[Tokens, int]]) -> list[float]:
        """Log-probability of the last n tokens of each text, given what stands before them."""
        lengths: dict[Tokens, int] = {}  # one text may be asked for with several n
        for text, n in texts:
            lengths[text] = max(n, lengths.get(text, 0))
        tails: dict[Tokens, Tensor] = {}
        for batch in self._batches([text for text, n in lengths.items() if n > 0]):
            longest = max(lengths[text] for text in batch)
            logp = self._predictions(batch, longest + 1)
            for i, text in enumerate(batch):
                n = lengths[text]
                at = torch.arange(longest - n, longest)
                tails[text] = logp[i, at, torch.tensor(text[-n:])]
        return [float(tails[text][-n:].sum()) if n > 0 else 0.0 for text, n in texts]

    def _predictions(self, batch: Sequence[Tokens], last: int) -> Float[Tensor, "batch last vocab"]:
        """Log-probabilities of the next token after each of the `last` final tokens of every text.

        Texts are padded on the right; a text of fewer tokens than `last` repeats its first position in front.
        """
        bos = () if self.subject.bos_id is None else (self.subject.bos_id,)
        width = torch.tensor([len(bos) + len(text) for text in batch])
        ids = torch.full((len(batch), int(width.max())), self.subject.pad_id, dtype=torch.long)
        for i, text in enumerate(batch):
            ids[i, : width[i]] = torch.tensor((*bos, *text), dtype=torch.long)
        at = (width[:, None] - last + torch.arange(last)).clamp(min=0)
        return torch.log_softmax(self.subject.logits(ids).cpu()[torch.arange(len(batch))[:, None], at], dim=-1)

    def _batches(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Texts of similar length together."""
        batch: list[Tokens] = []
        for text in sorted(texts, key=lambda text: (len(text), text)):
            if batch and (len(batch) + 1) * (len(text) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(text)
        if batch:
            yield batch


class Spellings:
    """The masked token itself, spelt otherwise: lower, Title or UPPER case, with and without a space in front.

    The paper's helper, BERT uncased, knows neither case nor spacing: each of its words stands for all of these, and
    the authors' code treats "The", " The" and "the" as one token throughout. Here a spelling is a proposal like any
    other, and enters a graph only when the subject fires on it in the exemplar's context. Proposed are spellings
    that are one token, of tokens that are all letters; nothing is run.
    """

    name = "spellings (case and leading space)"

    def __init__(self, subject: Writer) -> None:
        self.subject = subject
        self._known: dict[int, list[Tokens]] = {}

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """See `Augmenter.substitutes`. The spellings of a token share its probability equally."""
        return [
            [Substitute(row.position, row.position + 1, new, 1.0 / len(found)) for new in found]
            for row, found in ((row, self._spellings(row.tokens[row.position])) for row in rows)
        ]

    def _spellings(self, token: int) -> list[Tokens]:
        if token not in self._known:
            text = self.subject.string(token)
            word = text.removeprefix(" ")
            forms = (word.lower(), word[:1].upper() + word[1:].lower(), word.upper()) if word.isalpha() else ()
            texts = dict.fromkeys(space + form for form in forms for space in (" ", ""))
            ids = (self._token(other) for other in texts if other != text)
            self._known[token] = [(i,) for i in ids if i is not None]
        return self._known[token]

    def _token(self, text: str) -> int | None:
        """The one token that spells exactly `text`; tokenizers of the SentencePiece kind add a space of their own."""
        tries = (self.subject.encode(written) for written in dict.fromkeys((text, text.removeprefix(" "))))
        return next((ids[0] for ids in tries if len(ids) == 1 and self.subject.string(ids[0]) == text), None)


class Several:
    """Several augmenters in turn; what two of them propose is proposed once."""

    def __init__(self, parts: Sequence[Augmenter]) -> None:
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """See `Augmenter.substitutes`. All of the first part's come first, each with the probability it was given."""
        found = [part.substitutes(rows) for part in self.parts]
        return [_distinct([s for proposals in per_row for s in proposals]) for per_row in zip(*found, strict=True)]


def _distinct(proposals: Sequence[Substitute]) -> list[Substitute]:
    """The first of those that put the same tokens in the same place."""
    seen: dict[tuple[int, int, Tokens], Substitute] = {}
    for proposal in proposals:
        seen.setdefault(proposal[:3], proposal)
    return list(seen.values())


def _readable(text: str) -> bool:
    return bool(text.strip()) and not any(c == "�" or unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in text)
