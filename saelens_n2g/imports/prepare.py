"""Prepare: published units aligned and compared with the model, before anything is fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from saelens_n2g.bases.base import Basis
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.imports.agreement import Agreement, agreement
from saelens_n2g.imports.align import Aligner
from saelens_n2g.imports.choice import COUNTS, Chosen, choose
from saelens_n2g.imports.gather import Gathered
from saelens_n2g.imports.published import PublishedUnit
from saelens_n2g.imports.space import Space

SHARE = 0.5
"""Of the units that are compared with the model so many must agree, else the import is refused."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A unit that can be explained."""

    published: PublishedUnit
    chosen: Chosen
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class Prepared:
    """The units of one layer."""

    basis: Basis
    source: str
    units: dict[int, Ready]
    """Ascending by index."""
    failures: dict[str, str]
    counts: dict[str, int]
    """Of texts, by `choice.COUNTS`, over the units that are ready."""

    def name(self, index: int) -> str:
        """`LAYER.KIND/BASIS/INDEX`."""
        return f"{self.basis.site}/{self.basis.name}/{index}"


def prepare(space: Space, found: Gathered) -> list[Prepared]:
    """Every layer's units aligned and compared with the model."""
    run = space.config
    if space.imported.basis == "sae" and (other := {at.layer for at in found.units} - {run.layer}):
        raise InputError(f"layer of units of a dictionary of layer {run.layer}", str(run.layer), f"{sorted(other)[:5]}")
    aligner = Aligner(space.subject, space.subject.bos_id)
    layers: list[Prepared] = []
    with space.reporter.stage("compare with the model", "units") as tick:
        for layer in sorted({at.layer for at in found.units}):
            units = {at.unit: unit for at, unit in found.units.items() if at.layer == layer}
            layers.append(_layer(space, layer, units, aligner, tick))
    return layers


def _layer(
    space: Space, layer: int, units: Mapping[int, PublishedUnit], aligner: Aligner, tick: Callable[[int, int], None]
) -> Prepared:
    basis = space.basis(replace(space.config, layer=layer).site(space.imported.basis))
    sources = sorted({unit.source for unit in units.values()})
    out = Prepared(basis, sources[0], {}, {}, dict.fromkeys(COUNTS, 0))
    if max(units) >= basis.n_features:
        where, n = units[max(units)].where, basis.n_features
        raise InputError(f"index of a unit at {basis.site}, {where}", f"0 to {n - 1}", str(max(units)))
    choosing = partial(
        choose,
        top=space.config.exemplars,
        test_share=space.imported.test_share,
        seed=space.config.seed,
        room=space.subject.n_ctx - (space.subject.bos_id is not None),
    )
    compared = []
    for done, (index, unit) in enumerate(units.items()):
        try:
            chosen = choosing(out.name(index), unit, aligner)
        except UnitError as error:
            out.failures[out.name(index)] = str(error)
            continue
        one = agreement(space.subject, basis, index, (*chosen.exemplars.fit, *chosen.exemplars.test))
        compared.append((index, one))
        if one.good or space.imported.unchecked:
            out.units[index] = Ready(unit, chosen, one)
            for name, n in chosen.counts.items():
                out.counts[name] += n
        else:
            error_ = UnitError(f"exemplars of unit {out.name(index)}", "what the model does there", one.in_words())
            out.failures[out.name(index)] = str(error_)
        tick(done + 1, len(units))
    _refuse(out, compared, unchecked=space.imported.unchecked)
    return out


def _refuse(found: Prepared, compared: Sequence[tuple[int, Agreement]], *, unchecked: bool) -> None:
    """Raises `InputError` where most units do not do in the model what was published of them."""
    good = sum(one.good for _, one in compared)
    if unchecked or not compared or good >= SHARE * len(compared):
        return
    index, worst = min(compared, key=lambda pair: pair[1].correlation if pair[1].correlation is not None else -2.0)
    raise InputError(
        f"exemplars at {found.basis.site}",
        "activations as the model has them (another layer, site, dictionary or BOS? --unchecked takes them)",
        f"agreement on {good} of {len(compared)} units; worst {found.name(index)}: {worst.in_words()}",
    )
