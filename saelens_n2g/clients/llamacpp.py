"""A language model in this process by llama.cpp: a GGUF file, or the one that the embedded model was made of.

    client = client_of(ClientConfig(kind="llamacpp", model="models/qwen3-8b-q4_k_m.gguf"))
    client = client_of(ClientConfig(kind="llamacpp", model="embedded"))

Needs the package `llama-cpp-python`. The vocabulary is loaded at once, the weights when the model is first asked. With
the same number of threads on a CPU the same request gives the same bits, whatever was asked before. Answers follow
`Request.json_schema` wherever a grammar can be made of it, unless they are cut off; other schemas are a failure.
"""

import importlib.metadata
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.grammar import grammar_of
from saelens_n2g.clients.llama import Grammar, LlamaReader, LlamaVocabulary, Model, library
from saelens_n2g.clients.local import Local
from saelens_n2g.clients.messages import Request
from saelens_n2g.clients.registry import register
from saelens_n2g.clients.running import Chooser, Sampler
from saelens_n2g.clients.spelling import Speller
from saelens_n2g.errors import InputError


@register("llamacpp")
def build_llamacpp(config: ClientConfig) -> "LlamaCppClient":
    """Builder of the registry. Raises `InputError` if there is no such file or device, or no llama.cpp."""
    return LlamaCppClient(config)


class LlamaCppClient(Local):
    """See the module."""

    name = "llamacpp"
    json = True

    def __init__(self, config: ClientConfig) -> None:
        self.config, self.model = config, config.model
        self.path = _file(config.model)
        self.gpu = _gpu(config.device)
        self.words = LlamaVocabulary(Model(self.path, weights=False))
        self.speller = Speller(self.words)
        self.room = self.n_ctx = min(config.context, self.words.model.n_ctx or config.context)
        self.threads = config.threads or torch.get_num_threads()
        self._reader: LlamaReader | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """See `Client.identity`. A file counts by name, size and time of change."""
        status = self.path.stat()
        embedded = self.model == "embedded"  # the wheel's version says what is in it
        return {
            "client": self.name,
            "model": self.model,
            "files": [[self.path.name, status.st_size, None if embedded else status.st_mtime_ns]],
            "library": importlib.metadata.version("llama-cpp-python"),
            "threads": self.threads,  # in long texts the last bits differ
            "device": "cpu" if self.gpu is None else "cuda",
        }

    def _chooser(self, request: Request) -> Chooser:
        chooser = super()._chooser(request)
        if not request.json_schema or request.max_tokens == 0:
            return chooser
        assert isinstance(chooser, Sampler)
        return Grammar(chooser, grammar_of(request.json_schema), self.words)

    def _ready(self) -> tuple[LlamaReader, Collection[int]]:
        if self._reader is None:
            model = Model(self.path, weights=True, gpu=self.gpu)
            self._reader = LlamaReader(model, self.room, self.threads)
        return self._reader, self.words.ends


def _file(name: str) -> Path:
    """The file of a model. Raises `InputError` if there is none."""
    if name == "embedded":
        from saelens_n2g.embedded import model_file

        return model_file()
    path = Path(name)
    if not path.is_file():
        raise InputError(f"model {name!r}", "`embedded` or a .gguf file", "a folder" if path.is_dir() else "no file")
    return path


def _gpu(device: str) -> int | None:
    """What `Model` is told of GPUs. Raises `InputError` for a device that llama.cpp does not have here."""
    kind, _, number = device.partition(":")
    if device == "cpu" or (device == "auto" and not library().llama_supports_gpu_offload()):
        return None
    if device == "auto":
        return -1
    if kind != "cuda" or not (number.isdigit() or device == "cuda"):
        raise InputError("device", "auto, cpu or cuda[:N]", repr(device))
    if not library().llama_supports_gpu_offload():
        raise InputError("device", "auto or cpu (this llama.cpp was built without GPUs)", repr(device))
    return int(number) if number else -1
