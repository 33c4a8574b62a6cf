"""A causal language model read and continued: shared beginnings once, logits only where they are wanted, own sampling.

What comes out for some ids is a function of them and of how they are split, never of what was read before: a prefix is
always run by itself, and a copy of its keys and values is what the rest is run behind. (Caches are changed in place by
the model, and a split elsewhere would differ in the last bits.)
"""

import copy
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.errors import InputError

KEPT = 2
"""Prefixes whose keys and values are held."""


class Read(NamedTuple):
    """What a model made of some ids."""

    logits: Float[Tensor, "wanted d_vocab"]
    """In float32, one row for each wanted index: what is expected after that token."""
    cache: Any
    """Keys and values of all the ids; the caller's own."""
    reused: int
    """Ids that did not have to be run."""


@runtime_checkable
class Reads(Protocol):
    """A model that can be read and continued."""

    def read(self, ids: Sequence[int], split: int, wanted: Sequence[int]) -> Read:
        """Run `ids`, the first `split` of them as a prefix that others share.

        `wanted`: indices in rising order, none within the prefix but its last token's successor; `split < len(ids)`.
        """
        ...

    def run(self, ids: Sequence[int], cache: Any, wanted: Sequence[int]) -> Float[Tensor, "wanted d_vocab"]:
        """Logits after the wanted ones of `ids`, which come behind what `cache` holds and are added to it."""
        ...


@runtime_checkable
class Chooser(Protocol):
    """Who chooses the tokens of an answer, one after another."""

    def choose(self, logits: Float[Tensor, "d_vocab"]) -> int:
        """A token id; `logits` stay as they are."""
        ...


class Reader:
    """Runs a Hugging Face causal language model, one row at a time. Raises `InputError` for one without attention."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.prefixes: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        takes = inspect.signature(model.forward).parameters
        if "past_key_values" not in takes:
            kind = type(model).__name__
            raise InputError(f"model of class {kind}", "one that takes keys and values from before", "another kind")
        self.keeps = "logits_to_keep" in takes

    def read(self, ids: Sequence[int], split: int, wanted: Sequence[int]) -> Read:
        """See `Reads.read`."""
        assert 0 <= split <= wanted[0] < len(ids)
        known = split > 0 and tuple(ids[:split]) in self.prefixes
        cache = copy.deepcopy(self._prefix(tuple(ids[:split]))) if split else self._empty()
        logits = self.run(ids[split:], cache, [index - split for index in wanted])
        return Read(logits, cache, split if known else 0)

    @torch.inference_mode()
    def run(self, ids: Sequence[int], cache: Any, wanted: Sequence[int]) -> Float[Tensor, "wanted d_vocab"]:
        """See `Reads.run`."""
        rows = torch.tensor([list(ids)], device=self.device)
        at = torch.tensor(list(wanted), device=self.device)
        if self.keeps:
            out = self.model(rows, past_key_values=cache, use_cache=True, logits_to_keep=at).logits[0]
        else:
            out = self.model(rows, past_key_values=cache, use_cache=True).logits[0, at]
        logits: Tensor = out.float()
        return logits

    def _empty(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _prefix(self, ids: tuple[int, ...]) -> Any:
        if ids not in self.prefixes:
            cache = self._empty()
            self.run(ids, cache, [len(ids) - 1])
            self.prefixes[ids] = cache
            while len(self.prefixes) > KEPT:
                self.prefixes.popitem(last=False)
        self.prefixes.move_to_end(ids)
        return self.prefixes[ids]


class Sampler:
    """Chooses tokens: the likeliest at temperature 0, else drawn on the CPU in float64, the same on every machine whose
    logits are the same."""

    def __init__(self, temperature: float, top_p: float, seed: str) -> None:
        self.temperature, self.top_p = temperature, top_p
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
        self.draws = torch.Generator().manual_seed(number)

    def choose(self, logits: Float[Tensor, "d_vocab"]) -> int:
        """A token id."""
        if self.temperature == 0.0:
            return int(logits.argmax())
        shares = torch.softmax(logits.double().cpu() / self.temperature, 0)
        shares, order = shares.sort(descending=True, stable=True)
        summed = shares.cumsum(0)
        # The smallest set of the likeliest tokens that have `top_p` together.
        size = min(int((summed < self.top_p * summed[-1]).sum()) + 1, len(shares))
        drawn = torch.rand((), generator=self.draws, dtype=torch.float64) * summed[size - 1]
        return int(order[min(int((summed[:size] <= drawn).sum()), size - 1)])


class Continuation(NamedTuple):
    """Generated ids, the text they make and why they end."""

    ids: tuple[int, ...]
    """Without the one that ends the answer."""
    logits: tuple[Float[Tensor, "d_vocab"], ...]
    """From which each of `ids` was chosen; empty if they are not kept."""
    text: str
    generated: int
    """Tokens in all, the last one included."""
    stopped: bool
    """By the model or a stop text; else by the limit."""


def continued(
    reader: Reads,
    read: Read,
    limit: int,
    chooser: Chooser,
    ends: Collection[int],
    stop: Sequence[str],
    decode: Callable[[Sequence[int]], str],
    keep: bool,
) -> Continuation:
    """At most `limit` tokens after what was read; the last row of `read.logits` is that of its last token.

    `keep`: whether logits are wanted, which take `limit` times the vocabulary's room."""
    ids: list[int] = []
    rows: list[Tensor] = []
    logits = read.logits[-1]
    for generated in range(1, limit + 1):
        token = chooser.choose(logits)
        if token in ends:
            return Continuation(tuple(ids), tuple(rows), decode(ids), generated, True)
        ids.append(token)
        rows += [logits] if keep else []
        text = decode(ids)
        found = [text.find(s) for s in stop if s in text]
        if found:
            text = text[: min(found)]
            kept = sum(len(decode(ids[:i])) < len(text) for i in range(len(ids)))
            return Continuation(tuple(ids[:kept]), tuple(rows[:kept]), text, generated, True)
        if generated < limit:
            logits = reader.run([token], read.cache, [0])[0]
    return Continuation(tuple(ids), tuple(rows), decode(ids), limit, False)
