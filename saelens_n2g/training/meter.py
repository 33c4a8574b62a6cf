"""Meter: how long a subject and a kind of dictionary take, and what they hold, measured on a text's first windows."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.activations import ActivationModel
from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.corpus import Windows
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.sites import Site
from saelens_n2g.training.blocks import WINDOWS_PER_BLOCK, SubjectBlocks
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.metrics import evaluate
from saelens_n2g.training.rows import ArrayRows, Moments
from saelens_n2g.training.run import Run, matmul_precision
from saelens_n2g.training.sparse import DENSEST, has_kernels

Clock = Callable[[], float]
STEPS = 2
"""Steps that are timed, after one that is not."""
FLOAT = 4
"""Bytes of a number in float32, which activations are kept in."""


class Kind(NamedTuple):
    """What one dictionary of a kind costs."""

    seconds: float
    """Of a step, as measured on weights that have learnt nothing yet."""
    evaluation_seconds: float
    """Of an evaluation, per activation."""
    dense: bool
    """Whether steps were measured dense and may become sparse, and so cheaper."""
    held_bytes: int
    """Weights, gradients, Adam's moments, buffers and counters, kept from step to step."""
    checkpoint_bytes: int
    saved_bytes: int
    """Of the finished dictionary's tensors."""


class Meter:
    """Measures a subject on the first windows of a text, and dictionaries on the activations found there; every kind
    of dictionary once. Raises `InputError` as the subject and `Run` do."""

    def __init__(
        self, subject: ActivationModel, windows: Windows, sites: Sequence[Site], *, clock: Clock = time.perf_counter
    ) -> None:
        self._subject, self._windows, self._clock = subject, windows, clock
        self.rows: dict[Site, Tensor] = SubjectBlocks(subject, windows, sites).block(0)
        self._kinds: dict[str, Kind] = {}

    def forward(self, sites: Sequence[Site]) -> float:
        """Seconds per position of a pass to the deepest of the sites; the first block, run before, is the warm-up."""
        blocks, lengths = SubjectBlocks(self._subject, self._windows, sites), block_tokens(self._windows)
        place = min(1, len(blocks) - 1)
        start = self._clock()
        blocks.block(place)
        return (self._clock() - start) / lengths[place]

    def kind(self, site: Site, config: TrainingConfig) -> Kind:
        """What a dictionary of these settings costs at a site: two steps of a whole batch after a first one."""
        rows = self.rows[site]
        named = [config.architecture, dict(config.options), rows.shape[1], config.d_sae(rows.shape[1]), config.batch]
        key = fingerprint([*named, config.device, config.precision])
        if key not in self._kinds:
            self._kinds[key] = self._measured(rows.float(), config)
        return self._kinds[key]

    def _measured(self, rows: Float[Tensor, "rows d"], config: TrainingConfig) -> Kind:
        moments = Moments()
        moments.add(rows)
        run = Run(config, moments.statistics())
        batch = rows[torch.arange(config.batch) % len(rows)]
        with matmul_precision(config.precision):
            metrics = run.step(batch)
            seconds = self._timed(lambda: [run.step(batch) for _ in range(STEPS)], run.device) / STEPS
            dictionary, sample = run.dictionary(), ArrayRows(rows)
            evaluation = self._timed(lambda: evaluate(dictionary, sample), "cpu") / len(rows)
        width = dictionary.d_sae
        return Kind(
            seconds=seconds,
            evaluation_seconds=evaluation,
            dense=has_kernels(torch.device(run.device)) and metrics.l0.item() > DENSEST * width,
            held_bytes=held_bytes(run),
            checkpoint_bytes=sum(tensor.nbytes for tensor in run.state().values()),
            saved_bytes=_saved_bytes(dictionary),
        )

    def _timed(self, action: Callable[[], Any], device: str | torch.device) -> float:
        _settle(device)
        start = self._clock()
        action()
        _settle(device)
        return self._clock() - start


def _settle(device: str | torch.device) -> None:
    """Wait for what a GPU was asked to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def held_bytes(run: Run) -> int:
    """Bytes of all tensors that a run keeps between steps, every storage once."""
    found: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
            if value.is_leaf and value.grad is not None:
                visit(value.grad)
        elif isinstance(value, Mapping):
            for part in value.values():
                visit(part)
        elif isinstance(value, list | tuple):
            for part in value:
                visit(part)
        elif isinstance(value, torch.optim.Optimizer):
            visit(list(value.state.values()))

    visit(list(vars(run.objective).values()))
    visit(run.state())
    return sum(found.values())


def _saved_bytes(dictionary: Dictionary) -> int:
    """Of the tensors, with a firing rate for each feature."""
    return FLOAT * dictionary.d_sae + sum(v.nbytes for v in vars(dictionary).values() if isinstance(v, Tensor))


def block_tokens(windows: Windows, per_block: int = WINDOWS_PER_BLOCK) -> list[int]:
    """Positions that the subject is run on for each block of windows, which are padded to the longest among them."""
    return [
        len(part) * int(part.max())
        for part in (windows.lengths[at : at + per_block] for at in range(0, len(windows), per_block))
    ]
