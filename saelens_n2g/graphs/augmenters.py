"""Augmenters: who proposes other tokens for a masked position.

`MaskedLanguageModel` is the paper's choice (BERT, Hugging Face fill-mask). `SubjectInfill` needs no second model:
the subject's own next-token probabilities from the left context propose, and each proposal is reweighted by how
well the subject then predicts the tokens on the right. A graph's provenance names the one that was used.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.questions import Masked, Substitute, Tokens


class LanguageModel(Protocol):
    """What infilling needs of a subject."""

    bos_id: int | None

    @property
    def pad_id(self) -> int: ...
    def logits(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]: ...
    def string(self, token: int) -> str: ...


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
        return f"subject infill (top {self.top} of {self.candidates}, p >= {self.min_probability:g})"

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """See `Augmenter.substitutes`. Tokens that are no readable text are never proposed."""
        lefts = list(dict.fromkeys(row.tokens[: row.position] for row in rows))
        proposed = dict(zip(lefts, self._propose(lefts), strict=True))
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
            logp = torch.log_softmax(self._logits(batch)[:, -1], dim=-1)
            values, tokens = logp.topk(min(4 * self.candidates, logp.shape[-1]))
            for text, v, t in zip(batch, values.tolist(), tokens.tolist(), strict=True):
                readable = [(token, p) for token, p in zip(t, v, strict=True) if _readable(self.subject.string(token))]
                out[text] = readable[: self.candidates]
        return [out[text] for text in lefts]

    def _right_fit(self, texts: Sequence[tuple[Tokens, int]]) -> list[float]:
        """Log-probability of the last n tokens of each text, given what stands before them."""
        out: dict[tuple[Tokens, int], float] = {}
        needed = list(dict.fromkeys(item for item in texts if item[1] > 0))
        for n in sorted({n for _, n in needed}):
            for batch in self._batches([text for text, m in needed if m == n]):
                logp = torch.log_softmax(self._logits(batch)[:, -n - 1 : -1], dim=-1)
                right = torch.tensor([text[-n:] for text in batch])
                fit = logp.gather(-1, right[..., None]).sum((-2, -1))
                out.update(((text, n), value) for text, value in zip(batch, fit.tolist(), strict=True))
        return [out.get(item, 0.0) for item in texts]

    def _width(self, text: Tokens) -> int:
        return len(text) + (self.subject.bos_id is not None)

    def _logits(self, batch: Sequence[Tokens]) -> Float[Tensor, "batch pos vocab"]:
        """Of texts of one length; a softmax over the few positions that are needed is left to the caller."""
        bos = () if self.subject.bos_id is None else (self.subject.bos_id,)
        return self.subject.logits(torch.tensor([(*bos, *text) for text in batch], dtype=torch.long)).cpu()

    def _batches(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Texts of equal length together, so that nothing is padded; empty rows need a BOS to stand on."""
        by_length: dict[int, list[Tokens]] = {}
        for text in texts:
            if self._width(text) > 0:
                by_length.setdefault(len(text), []).append(text)
        for length, group in sorted(by_length.items()):
            size = max(1, self.batch_tokens // (length + 1))
            for start in range(0, len(group), size):
                yield group[start : start + size]


def _readable(text: str) -> bool:
    return bool(text.strip()) and not any(c == "�" or unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in text)
