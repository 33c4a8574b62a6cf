"""A causal language model of the Hugging Face kind in this process: embedded, a folder, or a name of the hub.

    client = client_of(ClientConfig(kind="huggingface", model="embedded"))

The tokenizer is loaded at once, the model when it is first asked, so that answers that are kept need no model. On a CPU
the same request gives the same bits, whatever was asked before. Log probabilities are those of the model itself, before
temperature and `top_p`. A log probability needs the sum over the whole vocabulary, so the head is run for all tokens,
but only at the places that are wanted. One request runs at a time.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from saelens_n2g.booting import find_device, quiet, resolve, unknown
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.local import Local
from saelens_n2g.clients.registry import register
from saelens_n2g.clients.running import Reader
from saelens_n2g.clients.spelling import Speller
from saelens_n2g.clients.vocabulary import Pretrained
from saelens_n2g.errors import InputError
from saelens_n2g.subject import Tokenizer


@register("huggingface")
def build_huggingface(config: ClientConfig) -> "HuggingFaceClient":
    """Builder of the registry. Raises `InputError` if there is no such model or device."""
    return HuggingFaceClient(config)


class HuggingFaceClient(Local):
    """See the module."""

    name = "huggingface"

    def __init__(self, config: ClientConfig) -> None:
        self.config, self.model = config, config.model
        self.device = find_device(config.device)
        self.place = resolve(config.model)
        with quiet():
            self.words = Pretrained(Tokenizer.load(config.model, revision=config.revision))
            self.settings = self._loaded("AutoConfig")
        self.speller = Speller(self.words)
        self.n_ctx = getattr(self.settings.get_text_config(), "max_position_embeddings", None)
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

    # --- the model --------------------------------------------------------------------------------------------

    def _ready(self) -> tuple[Reader, Collection[int]]:
        if self._reader is None:
            # Some classes draw weights before they read them; the caller's random numbers must not depend on it.
            with quiet(), torch.random.fork_rng(devices=[]):
                model, info = self._loaded(
                    "AutoModelForCausalLM", dtype=getattr(torch, self.config.dtype), output_loading_info=True
                )
            if missing := sorted(info["missing_keys"]):  # transformers would fill them with random numbers
                found = f"{len(missing)} without weights, such as {missing[0]}"
                raise InputError(f"model {self.model!r}", "a weight for every parameter", found)
            ends = model.generation_config.eos_token_id
            listed = [*(ends if isinstance(ends, list) else [ends]), self.words.end]
            self._ends = frozenset(int(end) for end in listed if end is not None)
            self._reader = Reader(model.eval().to(self.device))
        return self._reader, self._ends

    def _loaded(self, kind: str, **options: Any) -> Any:
        import transformers
        from safetensors import SafetensorError

        try:
            return getattr(transformers, kind).from_pretrained(self.place, revision=self.config.revision, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise unknown(self.model, error) from error
