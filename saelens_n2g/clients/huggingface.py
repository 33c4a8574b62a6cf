"""A causal language model of the Hugging Face kind in this process: embedded, a folder, or a name of the hub.

    client = client_of(ClientConfig(kind="huggingface", model="embedded"))

The tokenizer is loaded at once, the model when it is first asked, so that answers that are kept need no model. On a CPU
the same request gives the same bits, whatever was asked before. Log probabilities are those of the model itself, before
temperature and `top_p`. A log probability needs the sum over the whole vocabulary, so the head is run for all tokens,
but only at the places that are wanted. One request runs at a time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saelens_n2g.booting import find_device, quiet, resolve, unknown
from saelens_n2g.clients.base import Capabilities, Got, one_by_one, unsupported
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Answer, Failure, Generated, PromptSlot, Reply, Request, TokenLogprob, Usage
from saelens_n2g.clients.places import Missing
from saelens_n2g.clients.registry import register
from saelens_n2g.clients.running import Continuation, Reader, Sampler, continued
from saelens_n2g.clients.spelling import Refused, Speller
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Tick
from saelens_n2g.subject import Tokenizer


@register("huggingface")
def build_huggingface(config: ClientConfig) -> "HuggingFaceClient":
    """Builder of the registry. Raises `InputError` if there is no such model or device."""
    return HuggingFaceClient(config)


class HuggingFaceClient:
    """See the module."""

    name = "huggingface"

    def __init__(self, config: ClientConfig) -> None:
        self.config, self.model = config, config.model
        self.device = find_device(config.device)
        self.place = resolve(config.model)
        with quiet():
            self.speller = Speller(Tokenizer.load(config.model, revision=config.revision))
            self.settings = self._loaded("AutoConfig")
        text = self.settings.get_text_config()
        self.n_ctx: int | None = getattr(text, "max_position_embeddings", None)
        self._reader: Reader | None = None
        self._ends: frozenset[int] = frozenset()

    @property
    def identity(self) -> dict[str, Any]:
        """See `Client.identity`. Local files count by name, size and time of change."""
        folder = Path(self.place)
        files = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
        embedded = self.model == "embedded"  # the folder's name says what is in it
        return {
            "client": self.name,
            "model": self.model,
            "revision": self.config.revision,
            "commit": getattr(self.settings, "_commit_hash", None),
            "files": [folder.name] if embedded else [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files],
            "dtype": self.config.dtype,
            "device": self.device.type,
        }

    def capabilities(self) -> Capabilities:
        """See `Client.capabilities`: everything but answers in JSON, and chats if the tokenizer has a template."""
        return Capabilities(
            chat=self.speller.templated,
            completion=True,
            tokens=True,
            logprobs=True,
            prompt_logprobs=True,
            seed=True,
            json=False,
        )

    def count(self, request: Request) -> int:
        """Exact. Raises `InputError` for a request that the tokenizer does not take."""
        if (failure := unsupported(request, self.capabilities())) is not None:
            raise InputError("request", "one that this model takes", failure.detail)
        try:
            return len(self.speller.ids(request))
        except Refused as error:
            raise InputError("request", "one that this model takes", str(error)) from error

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
        reader = self._ready()
        read = reader.read(ids, split, wanted)
        row = {index: read.logits[i] for i, index in enumerate(wanted)}
        found = tuple(
            self._slot(position, ids[place], row[place - 1], request, candidates)
            for position, place in zip(_positions(request), places, strict=True)
        )
        if request.max_tokens == 0:
            return Answer("", "stop", Usage(len(ids), 0, read.reused), self.model, (), found)
        seed = f"{request.seed or 0}/{request.draw}"
        sampler = Sampler(request.temperature, request.top_p, seed)
        said = continued(
            reader,
            read,
            request.max_tokens,
            sampler,
            self._ends,
            request.stop,
            self.speller.decode,
            keep=request.logprobs is not None,
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
        self, position: int, actual: int, logits: torch.Tensor, request: Request, candidates: list[int]
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

    # --- the model --------------------------------------------------------------------------------------------

    def _ready(self) -> Reader:
        if self._reader is None:
            # Weights are drawn before they are read; the caller's random numbers must not depend on it.
            with quiet(), torch.random.fork_rng(devices=[]):
                model, info = self._loaded(
                    "AutoModelForCausalLM", dtype=getattr(torch, self.config.dtype), output_loading_info=True
                )
            if missing := sorted(info["missing_keys"]):  # transformers would fill them with random numbers
                found = f"{len(missing)} without weights, such as {missing[0]}"
                raise InputError(f"model {self.model!r}", "a weight for every parameter", found)
            ends = model.generation_config.eos_token_id
            own = self.speller.inner.eos_token_id
            listed = [*(ends if isinstance(ends, list) else [ends]), own]
            self._ends = frozenset(int(end) for end in listed if end is not None)
            self._reader = Reader(model.eval().to(self.device))
        return self._reader

    def _loaded(self, kind: str, **options: Any) -> Any:
        import transformers
        from safetensors import SafetensorError

        try:
            return getattr(transformers, kind).from_pretrained(self.place, revision=self.config.revision, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise unknown(self.model, error) from error


def _positions(request: Request) -> tuple[int, ...]:
    return () if request.prompt_logprobs is None else request.prompt_logprobs.positions
