"""Selection: the units of a basis that are explained, with what they do on the whole text, a group at a time.

Activations come in blocks of candidates, and only those of one group of eligible units are kept, so memory does not
grow with the number of units.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from saelens_n2g.activations import on_grid
from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.registry import BasisInputs, basis_kind
from saelens_n2g.comparison.scores import Observed
from saelens_n2g.comparison.units import UnitChoice, UnitStatistics
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.exemplars import ExemplarSet, choose_exemplars

CHUNK = 32_768
"""Tokens encoded at once."""
CANDIDATES = 64
"""Candidates whose activations are computed at once."""
GROUP_VALUES = 2**27
"""Activations of one group of units at most, which are kept as float32: 512 MB. A single unit is a group at least."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit to explain, with what it does on the whole text."""

    index: int
    name: str
    statistics: UnitStatistics
    activations: Float[np.ndarray, "window pos"]
    exemplars: ExemplarSet

    def observed(self, threshold: float) -> Observed:
        """What explanations of it are scored against."""
        return Observed(self.activations, self.statistics.max_activation, self.exemplars, threshold)


def build(workspace: Workspace, name: str) -> Basis:
    """The basis called `name` over the run's activations."""
    config, site = workspace.config, workspace.config.site(name)
    if name == "neurons":
        return basis_kind(name).build(BasisInputs(site, workspace.subject.width(site)))
    stream = workspace.stream
    rows = stream[torch.from_numpy(workspace.fit_tokens)] if name in ("pca", "ica", "random") else None
    folder = Path(config.dictionary) if config.dictionary else workspace.folder / "dictionary" / "sae"
    inputs = BasisInputs(site, stream.shape[1], activations=rows, seed=config.seed, folder=folder)
    basis = basis_kind(name).build(inputs)
    trained_on = facts_of(basis).get("identity", {}).get("model_name")
    if trained_on not in (None, config.subject.model):  # names differ without the models differing, so only a remark
        workspace.reporter.note(f"dictionary {folder}: trained on {trained_on}, used on {config.subject.model}")
    return basis


def values_of(workspace: Workspace, basis: Basis, indices: Sequence[int]) -> Float[np.ndarray, "token k"]:
    """Activations of the units `indices` on every scored token of the text."""
    wanted = torch.tensor(list(indices), dtype=torch.long)
    if basis.name == "neurons":
        kept = {column: i for i, column in enumerate(workspace.neuron_columns(basis.n_features))}
        picked: np.ndarray = workspace.neurons[:, [kept[int(i)] for i in indices]]
        return picked.clip(min=0.0)
    parts = [basis.encode_features(chunk, wanted) for chunk in workspace.stream.split(CHUNK)]
    out: np.ndarray = torch.cat(parts).numpy()
    return out


def columns_of(workspace: Workspace, basis: Basis, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Per unit of `indices`, in order, its activations (token,) on every scored token; computed in blocks."""
    for start in range(0, len(indices), CANDIDATES):
        values = values_of(workspace, basis, indices[start : start + CANDIDATES])
        for at in range(values.shape[1]):
            yield np.ascontiguousarray(values[:, at])


def unit_groups(workspace: Workspace, basis: Basis, choice: UnitChoice) -> Iterator[list[Unit]]:
    """The units that are explained, in groups that fit in memory; `choice` counts where the others went."""
    candidates = [int(i) for i in workspace.config.rule.candidates(basis.n_features)]
    size = max(1, GROUP_VALUES // workspace.windows.tokens.size)
    found = choice.eligible(columns_of(workspace, basis, candidates))
    while group := [
        unit_of(workspace, basis, candidates[position], figures, values)
        for position, figures, values in itertools.islice(found, size)
    ]:
        yield group


def unit_of(workspace: Workspace, basis: Basis, index: int, found: UnitStatistics, values: np.ndarray) -> Unit:
    """A unit with its exemplars; `values` are its activations on every scored token."""
    grid = on_grid(values[:, None], workspace.windows)[..., 0]
    fit_rows, test_rows = workspace.split
    config = workspace.config
    chosen = choose_exemplars(
        workspace.windows, grid, fit_rows, test_rows, top=config.exemplars, random=config.exemplars, seed=config.seed
    )
    return Unit(index, unit_name(basis, index), found, grid, chosen)


def unit_name(basis: Basis, index: int) -> str:
    """`SITE/BASIS/INDEX`."""
    return f"{basis.site}/{basis.name}/{index}"


def facts_of(basis: Basis) -> dict[str, Any]:
    """How a basis was made, as JSON values; of a dictionary's own record, which lies beside it, the identity."""
    facts = dict(getattr(basis, "facts", {}))
    metadata = facts.pop("metadata", None)
    if metadata is not None:
        facts["identity"] = {k: metadata.get(k) for k in ("l0", "training_samples", "hook_name", "model_name")}
    return facts
