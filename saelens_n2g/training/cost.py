"""Cost: what a training run or a sweep will take, before it begins: time, memory, disk.

    meter = Meter(subject, fit, sites)
    passes = passes_of(meter, fit, test, sites, configs, memory=16e9)   # sites that are trained together
    print(cost_of_sweep(meter, fit, test, sites, configs).text())

Steps, tokens and bytes are counted, those of the subject by going through the stream's own order. Times are measured
on the first windows of the text: a forward pass, steps of every kind of dictionary on the activations of that pass,
an evaluation of them. A step of an L1 dictionary is dearest at the start, where most features are active; where
compressed rows can be used it gets several times cheaper later (docs/lab-notes.md), so its time is an upper bound.

Left out: loading the model, reading text, checkpoints, figures, the principal components of a sweep, and the passes of
four windows through the whole model at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.blocks import WINDOWS_PER_BLOCK
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.meter import FLOAT, Kind, Meter, block_tokens
from saelens_n2g.training.shuffling import Shuffler
from saelens_n2g.training.sweep import TEST_ROWS, buffer_rows, unseen_windows


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training takes from its start to its end. Times are estimates, all else is counted."""

    dictionaries: int
    sites: tuple[str, ...]
    passes: int
    """How often the subject is run over the text, apart from epochs."""
    samples: int
    """Activations that each dictionary learns from."""
    steps: int
    """Of each dictionary."""
    forward_tokens: int
    """Positions that the subject is run on, BOS and padding included."""
    forward_seconds: float
    step_seconds: float
    """Of all dictionaries."""
    evaluation_seconds: float
    at_most: bool
    """Whether steps may become several times cheaper than measured."""
    memory_bytes: int
    """Dictionaries and activations, at the most demanding time; the subject itself is not in it."""
    temporary_bytes: int
    """On disk while it runs: checkpoints, a cache of activations."""
    saved_bytes: int
    """On disk afterwards."""

    @property
    def seconds(self) -> float:
        """In all."""
        return self.forward_seconds + self.step_seconds + self.evaluation_seconds

    def __add__(self, other: "Cost") -> "Cost":
        """One after the other, with as many steps each."""
        assert (self.samples, self.steps) == (other.samples, other.steps)
        return Cost(
            dictionaries=self.dictionaries + other.dictionaries,
            sites=self.sites + other.sites,
            passes=self.passes + other.passes,
            samples=self.samples,
            steps=self.steps,
            forward_tokens=self.forward_tokens + other.forward_tokens,
            forward_seconds=self.forward_seconds + other.forward_seconds,
            step_seconds=self.step_seconds + other.step_seconds,
            evaluation_seconds=self.evaluation_seconds + other.evaluation_seconds,
            at_most=self.at_most or other.at_most,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            temporary_bytes=max(self.temporary_bytes, other.temporary_bytes),
            saved_bytes=self.saved_bytes + other.saved_bytes,
        )

    def as_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return {**asdict(self), "sites": list(self.sites), "seconds": self.seconds}

    def text(self) -> str:
        """Three lines for a terminal, four where steps may become cheaper."""
        bound = "at most " if self.at_most else "about "
        passes = f" in {self.passes} passes" if self.passes > 1 else ""
        dictionaries = "1 dictionary" if self.dictionaries == 1 else f"{self.dictionaries} dictionaries"
        lines = [
            f"estimate: {dictionaries}, {_listed(self.sites)}{passes}, {self.samples:,} activations each"
            f" ({self.steps:,} steps)",
            f"  time: forward passes about {duration(self.forward_seconds)} ({self.forward_tokens:,} tokens), steps "
            f"{bound}{duration(self.step_seconds)}, evaluation about {duration(self.evaluation_seconds)}; "
            f"in all {bound}{duration(self.seconds)}",
        ]
        if self.at_most:
            lines.append("  steps were timed with most features active; they get several times cheaper once few are")
        lines.append(
            f"  memory: about {size(self.memory_bytes)} beside the model; disk: {size(self.saved_bytes)}, and "
            f"{size(self.temporary_bytes)} more while it runs"
        )
        return "\n".join(lines)


def cost_of_sweep(
    meter: Meter,
    fit: Windows,
    test: Windows,
    sites: Sequence[Site],
    configs: Mapping[str, TrainingConfig],
    *,
    cached: bool = False,
) -> Cost:
    """What `training.sweep.sweep` takes to train every configuration at every site in one pass.

    The meter must have measured all of the sites. cached: whether activations are harvested first and
    kept on disk while it runs. Raises `InputError` for a text of less than a batch.
    """
    first = next(iter(configs.values()))
    held = [(meter.kind(site, config), config) for site in sites for config in configs.values()]
    tokens = (sum(block_tokens(fit)) if cached else tokens_read(fit, first)) + sum(block_tokens(unseen_windows(test)))
    cache = FLOAT * fit.n_tokens * sum(meter.rows[site].shape[1] for site in sites) if cached else 0
    unseen = unseen_windows(test).n_tokens
    return Cost(
        dictionaries=len(held),
        sites=tuple(map(str, sites)),
        passes=1,
        samples=first.steps() * first.batch,
        steps=first.steps(),
        forward_tokens=tokens,
        forward_seconds=tokens * meter.forward(sites),
        step_seconds=sum(kind.seconds * config.steps() for kind, config in held),
        evaluation_seconds=unseen * sum(kind.evaluation_seconds for kind, _ in held),
        at_most=any(kind.dense for kind, _ in held),
        memory_bytes=sum(_memory(meter, fit, test, site, configs) for site in sites),
        temporary_bytes=cache + _checkpoints(held),
        saved_bytes=sum(kind.saved_bytes for kind, _ in held),
    )


def several_epochs(fit: Windows, config: TrainingConfig) -> bool:
    """Whether training goes through the text more than once: activations are then worth keeping."""
    return config.steps() > fit.n_tokens // config.batch


def cost_of_run(meter: Meter, windows: Windows, fit_tokens: int, site: Site, config: TrainingConfig) -> Cost:
    """What one dictionary takes that is trained from a cache: `windows` are all run once and kept, `fit_tokens` of
    their tokens are learnt from and the others are evaluated on."""
    kind, tokens = meter.kind(site, config), sum(block_tokens(windows))
    row = FLOAT * meter.rows[site].shape[1]
    return Cost(
        dictionaries=1,
        sites=(str(site),),
        passes=1,
        samples=config.steps() * config.batch,
        steps=config.steps(),
        forward_tokens=tokens,
        forward_seconds=tokens * meter.forward([site]),
        step_seconds=kind.seconds * config.steps(),
        evaluation_seconds=kind.evaluation_seconds * windows.n_tokens,
        at_most=kind.dense,
        # All rows, copied once into those of the fit text and those of the test text; and their order.
        memory_bytes=2 * row * windows.n_tokens + 8 * fit_tokens + kind.held_bytes,
        temporary_bytes=row * windows.n_tokens + _checkpoints([(kind, config)]),
        saved_bytes=kind.saved_bytes,
    )


def passes_of(
    meter: Meter,
    fit: Windows,
    test: Windows,
    sites: Sequence[Site],
    configs: Mapping[str, TrainingConfig],
    *,
    memory: float | None = None,
) -> list[list[Site]]:
    """The sites in order, in as few groups as `memory` bytes allow for each; all in one where there is no limit.

    Raises `InputError` if the dictionaries of one site need more.
    """
    if memory is None:
        return [list(sites)]
    groups: list[list[Site]] = []
    left = 0.0
    for site in sites:
        needed = _memory(meter, fit, test, site, configs)
        if needed > memory:
            expected = f"at least {size(needed)}, for {len(configs)} dictionaries at {site}"
            raise InputError("option memory", expected, size(memory))
        if not groups or needed > left:
            groups.append([])
            left = memory
        groups[-1].append(site)
        left -= needed
    return groups


def _memory(meter: Meter, fit: Windows, test: Windows, site: Site, configs: Mapping[str, TrainingConfig]) -> int:
    """Bytes that one site of a sweep needs: its part of the shuffling buffer, rows for principal components, rows for
    the evaluation, and the dictionaries."""
    batch = next(iter(configs.values())).batch
    rows = min(buffer_rows(fit, batch), fit.n_tokens) + min(TEST_ROWS, fit.n_tokens) + unseen_windows(test).n_tokens
    held = sum(meter.kind(site, config).held_bytes for config in configs.values())
    return FLOAT * meter.rows[site].shape[1] * rows + held


def _checkpoints(held: Sequence[tuple[Kind, TrainingConfig]]) -> int:
    """Bytes of checkpoints: each one's newest, and for one at a time the one before."""
    sizes = [kind.checkpoint_bytes for kind, config in held if config.checkpoint_every]
    return sum(sizes) + max(sizes, default=0)


class _Lengths:
    """Blocks of rows without width: what a stream's order needs to know. Keeps which were read."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def size(self, block: int) -> int:
        """Rows of a block."""
        return self._sizes[block]

    def block(self, block: int) -> dict[str, Tensor]:
        """The rows: shape (rows, 0)."""
        self.read.append(block)
        return {"": torch.empty(self._sizes[block], 0)}


def tokens_read(windows: Windows, config: TrainingConfig) -> int:
    """Positions that the subject is run on for all steps of a sweep over `windows`: all blocks in every whole epoch,
    and in the last one those that its steps need. Raises `InputError` for a text of less than a batch."""
    tokens, rows = block_tokens(windows), windows.lengths - int(windows.bos_id is not None)
    source = _Lengths(
        [int(rows[at : at + WINDOWS_PER_BLOCK].sum()) for at in range(0, len(windows), WINDOWS_PER_BLOCK)]
    )
    shuffler = Shuffler[str](source, config.batch, buffer_rows(windows, config.batch), config.seed)
    epochs, rest = divmod(config.steps(), windows.n_tokens // config.batch)
    if rest:
        per_epoch, stride = windows.n_tokens // config.batch, shuffler.quarter // config.batch
        begin = epochs * per_epoch
        for step in [*range(begin, begin + rest, stride), begin + rest - 1]:
            shuffler.places(step)
    return epochs * sum(tokens) + sum(tokens[block] for block in source.read)


def _listed(sites: Sequence[str]) -> str:
    return sites[0] if len(sites) == 1 else f"{len(sites)} sites"


def duration(seconds: float) -> str:
    """A time in at most two units: `0.4 s`, `12 s`, `3 min`, `1 h 20 min`, `39 days 4 h`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} days {hours} h"


def size(count: float) -> str:
    """Bytes in decimal units: `960 kB`, `2.1 GB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"
