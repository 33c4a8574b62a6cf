"""What clients with a model in this process share: a request in, token ids to the model, an answer out.

A client brings a speller, and a reader when it is first asked, so that answers that are kept need no model. Log
probabilities are those of the model itself, before temperature, `top_p` and grammar. One request runs at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.clients.base import Capabilities, Got, Untaken, one_by_one, unsupported
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Answer, Failure, Generated, PromptSlot, Reply, Request, TokenLogprob, Usage
from saelens_n2g.clients.places import Missing
from saelens_n2g.clients.running import Chooser, Continuation, Reads, Sampler, continued
from saelens_n2g.clients.spelling import Refused, Speller
from saelens_n2g.progress import Tick


class Local(ABC):
    """A client whose model runs in this process."""

    config: ClientConfig
    model: str
    speller: Speller
    n_ctx: int | None
    """Tokens of a prompt and its answer together; None where the model says nothing of it."""
    json = False
    """Whether answers can be held to a schema."""

    @abstractmethod
    def _ready(self) -> tuple[Reads, Collection[int]]:
        """The model, loaded, and the tokens that end an answer. Raises `InputError` if it cannot be loaded."""

    def _chooser(self, request: Request) -> Chooser:
        """Who chooses the tokens of the answer. Raises `Missing` where it cannot be as the request wishes."""
        return Sampler(request.temperature, request.top_p, f"{request.seed or 0}/{request.draw}")

    def capabilities(self) -> Capabilities:
        """See `Client.capabilities`: everything, but chats only with a template, and JSON as the class says."""
        return Capabilities(
            chat=self.speller.templated,
            completion=True,
            tokens=True,
            logprobs=True,
            prompt_logprobs=True,
            seed=True,
            json=self.json,
        )

    def count(self, request: Request) -> int:
        """Exact. Raises `Untaken` for a request that the tokenizer does not take."""
        if (failure := unsupported(request, self.capabilities())) is not None:
            raise Untaken("request", "one that this model takes", failure.detail)
        try:
            return len(self.speller.ids(request))
        except Refused as error:
            raise Untaken("request", "one that this model takes", str(error)) from error

    def one_token(self, text: str) -> bool | None:
        """See `Client.one_token`."""
        return self.speller.candidate(text) is not None

    def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        if (failure := unsupported(request, self.capabilities())) is not None:
            return failure
        try:
            return self._answer(request)
        except Missing as error:
            return Failure("unsupported", str(error), False)
        except Refused as error:
            return Failure("rejected", str(error), False)
        except torch.cuda.OutOfMemoryError:
            return Failure("rejected", "the GPU has no memory for it", False)

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """See `Client.ask_many`; one after another."""
        return one_by_one(self.ask, requests, tick, got)

    # --- one request ------------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Reply:
        ids = self.speller.ids(request)
        if not ids:
            raise Refused("a prompt without tokens")
        if self.n_ctx is not None and len(ids) + request.max_tokens > self.n_ctx:
            raise Refused(f"{len(ids)} tokens and {request.max_tokens} more do not fit into {self.n_ctx}")
        places = self.speller.places(request, ids)
        candidates = self._candidates(request)
        wanted = sorted({place - 1 for place in places} | ({len(ids) - 1} if request.max_tokens else set()))
        split = min(self.speller.prefix(request, ids), wanted[0])
        chooser = self._chooser(request)
        reader, ends = self._ready()
        read = reader.read(ids, split, wanted)
        row = {index: read.logits[i] for i, index in enumerate(wanted)}
        found = tuple(
            self._slot(position, ids[place], row[place - 1], request, candidates)
            for position, place in zip(_positions(request), places, strict=True)
        )
        if request.max_tokens == 0:
            return Answer("", "stop", Usage(len(ids), 0, read.reused), self.model, (), found)
        keep = request.logprobs is not None
        said = continued(
            reader, read, request.max_tokens, chooser, ends, request.stop, self.speller.words.said, keep=keep
        )
        if not said.text.strip():
            return Failure("empty", "an answer without text", False)
        return Answer(
            text=said.text,
            finish="stop" if said.stopped else "length",
            usage=Usage(len(ids), said.generated, read.reused),
            model=self.model,
            logprobs=self._generated(said, request.logprobs),
            prompt_logprobs=found,
        )

    def _candidates(self, request: Request) -> list[int]:
        if request.prompt_logprobs is None:
            return []
        ids = {text: self.speller.candidate(text) for text in request.prompt_logprobs.candidates}
        for text, token in ids.items():
            if token is None:
                raise Missing(f"{text!r} is not one token of this model")
        return [token for token in ids.values() if token is not None]

    def _slot(
        self, position: int, actual: int, logits: Float[Tensor, "d_vocab"], request: Request, candidates: list[int]
    ) -> PromptSlot:
        wish = request.prompt_logprobs
        assert wish is not None
        logprobs = torch.log_softmax(logits, 0)[[actual, *candidates]].tolist()
        known = tuple(map(TokenLogprob, dict.fromkeys(wish.candidates), logprobs[1:]))
        return PromptSlot(position, TokenLogprob(self.speller.words.string(actual), logprobs[0]), known, None)

    def _generated(self, said: Continuation, top: int | None) -> tuple[Generated, ...]:
        if top is None:
            return ()
        out = []
        for token, logits in zip(said.ids, said.logits, strict=True):
            logprobs = torch.log_softmax(logits, 0)
            best = torch.topk(logprobs, min(top, len(logprobs)))
            listed = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            alike = tuple(TokenLogprob(self.speller.words.string(i), p) for i, p in listed)
            out.append(Generated(self.speller.words.string(token), float(logprobs[token]), alike))
        return tuple(out)


def _positions(request: Request) -> tuple[int, ...]:
    return () if request.prompt_logprobs is None else request.prompt_logprobs.positions
