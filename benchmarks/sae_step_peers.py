"""The steps of other implementations, for `benchmarks/sae_step.py`; runs in an environment that has them.

Reads commands from its standard input: `NAME STEPS` makes that many steps of one implementation on the batch in the
file named on the command line and answers with their CPU seconds as JSON; an empty line ends it. Each entry is the
implementation's own step with its bookkeeping, without logging. What is imported beside it and not used is put aside.
"""

import json
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

Step = Callable[[torch.Tensor], Any]


def saelens_trainer(architecture: str, d: int, n: int, batch: int, **options: Any) -> Step:
    """SAELens' trainer with a training SAE of the architecture."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    kind, config = get_sae_training_class(architecture)
    sae = kind(config(d_in=d, d_sae=n, **options))
    settings = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=batch, lr=1e-5, lr_end=1e-6)
    return SAETrainer(settings, sae, iter(())).step  # type: ignore[arg-type]


def dictionary_learning_trainer(d: int, n: int, *, k: int | None = None) -> Step:
    """dictionary_learning's StandardTrainer, or TopKTrainer with a `k`."""
    for name in ("nnsight", "umap", "circuitsvis", "circuitsvis.activations", "zstandard"):
        stub = ModuleType(name)
        stub.LanguageModel = stub.text_neuron_activations = object  # type: ignore[attr-defined]
        sys.modules.setdefault(name, stub)
    common = {"steps": 10**6, "activation_dim": d, "dict_size": n, "layer": 0, "lm_name": "none", "device": "cpu"}
    if k is None:
        from dictionary_learning.trainers.standard import StandardTrainer

        trainer = StandardTrainer(**common, lr=1e-5)
    else:
        from dictionary_learning.trainers.top_k import TopKTrainer

        trainer = TopKTrainer(**common, k=k, lr=1e-5)
    count = iter(range(10**6))
    return lambda batch: trainer.update(next(count) + 1, batch)


def sparsify_step(d: int, n: int, k: int) -> Step:
    """sparsify's coder, optimiser and order of calls; its Trainer needs a language model."""
    from sparsify import SparseCoder, SparseCoderConfig
    from sparsify.sign_sgd import SignSGD

    coder = SparseCoder(d, SparseCoderConfig(num_latents=n, k=k))
    optimiser = SignSGD(coder.parameters(), lr=1e-7)

    def step(batch: torch.Tensor) -> None:
        if coder.cfg.normalize_decoder:
            coder.set_decoder_norm_to_unit_norm()
        out = coder(batch)
        (out.fvu + out.auxk_loss).backward()
        if coder.cfg.normalize_decoder:
            coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()

    return step


def main() -> None:
    """Answer commands until there are no more."""
    path, n = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]))
    batch: torch.Tensor = torch.load(path, weights_only=True)
    rows, d = batch.shape
    makers: dict[str, Callable[[], Step]] = {
        "SAELens standard": lambda: saelens_trainer("standard", d, n, rows, l1_coefficient=1e-3),
        "SAELens topk": lambda: saelens_trainer("topk", d, n, rows, k=32),
        "dictionary_learning Standard": lambda: dictionary_learning_trainer(d, n),
        "dictionary_learning TopK": lambda: dictionary_learning_trainer(d, n, k=32),
        "sparsify topk": lambda: sparsify_step(d, n, 32),
    }
    steps: dict[str, Step] = {}
    print(json.dumps(list(makers)), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        name, _, count = line.rpartition(" ")
        if name not in steps:
            steps[name] = makers[name]()
            steps[name](batch)
        start = time.process_time()
        for _ in range(int(count)):
            steps[name](batch)
        print(json.dumps(time.process_time() - start), flush=True)


if __name__ == "__main__":
    main()
