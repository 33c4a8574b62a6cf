"""One unit: its exemplars, its graph."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from saelens_n2g.commands.settings import parse_unit
from saelens_n2g.commands.text import coloured, number
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.errors import InputError, N2GError, UnitError
from saelens_n2g.progress import Reporter

if TYPE_CHECKING:
    from saelens_n2g.bases.base import Basis
    from saelens_n2g.comparison.selection import Unit
    from saelens_n2g.comparison.workspace import Workspace


def exemplars(config: RunConfig, unit: str, out: Path, top: int, reporter: Reporter) -> None:
    """Print the strongest windows of a unit and write all its exemplars as JSON."""
    from saelens_n2g.comparison.explain import exemplars_as_json
    from saelens_n2g.jobs.artefacts import write_json

    workspace, _, found = one_unit(config, unit, out, reporter)
    value = exemplars_as_json(workspace, found)
    path = out / "exemplars" / f"{unit.replace('/', '_')}.json"
    write_json(path, value)
    workspace.discard_activations()
    console = Console()
    scale = found.statistics.max_activation
    console.print(f"{unit}: maximum {scale:.4g}, fires on {found.statistics.fit_firing} tokens of the fit text\n")
    for which in ("fit", "test"):
        for one in value[which][:top]:
            console.print(Text(f"{which}  {max(one['activations']) / scale:.2f}  {one['document']}", style="bold"))
            text = coloured(one["tokens"], np.array(one["activations"]) / scale)
            console.print(text, end="\n\n", soft_wrap=True)
    console.print(f"written: {path}", highlight=False, soft_wrap=True)


def fit(config: RunConfig, unit: str, out: Path, reporter: Reporter) -> None:
    """Fit the graph of one unit, write it, print it with its scores. Raises `UnitError` where there is none."""
    from saelens_n2g.comparison.explain import Explained, publish, score
    from saelens_n2g.comparison.fitting import Fitter

    workspace, basis, found = one_unit(config, unit, out, reporter)
    with reporter.stage(f"fit {unit}", "units"):
        graph = Fitter(workspace, basis).fit([found])[found.index]
    if isinstance(graph, N2GError):
        raise graph
    scores = score(workspace, found, graph)
    result = publish(workspace, Explained(found, graph, scores), out)
    workspace.discard_activations()
    print(result.text)
    for explainer, one in scores.items():
        values = [f"{text} F1 {number(metrics['f1'])}" for text, metrics in one.metrics.items()]
        print(f"{explainer:22s} {', '.join(values)}")
    print(f"written: {out / result.graph_file} (and .svg, .dot)")


def one_unit(
    config: RunConfig, unit: str, out: Path, reporter: Reporter, within: "Workspace | None" = None
) -> "tuple[Workspace, Basis, Unit]":
    """Workspace, basis and the unit with its exemplars. Raises `UnitError` if it never fires in the fit text.

    within: a workspace on the same text, whose model and activations are used.
    """
    from saelens_n2g.comparison.selection import build, unit_of
    from saelens_n2g.comparison.units import statistics
    from saelens_n2g.comparison.workspace import Workspace

    site, name, index = parse_unit(unit)
    workspace = Workspace(config, out, reporter) if within is None else within.under(config)
    workspace.subject.check(site)
    if name == "sae" and config.dictionary is None:
        raise InputError(f"unit {unit}", "--dictionary, the folder of the trained dictionary it belongs to", "none")
    if name == "neurons":
        width = workspace.subject.width(site)
        if index >= width:
            raise InputError(f"index of unit {unit}", f"0 to {width - 1}", str(index))
        rows = workspace.harvest({site: [index]}).rows(site)
        basis, values = build(workspace, name), np.maximum(rows[:, 0], 0.0)
    else:
        import torch

        basis = build(workspace, name)
        if index >= basis.n_features:
            raise InputError(f"index of unit {unit}", f"0 to {basis.n_features - 1}", str(index))
        values = basis.encode_features(workspace.stream, torch.tensor([index]))[:, 0].numpy()
    found = statistics(values, workspace.fit_tokens, config.rule.threshold)
    if not found.max_activation > 0.0:
        raise UnitError(f"unit {unit}", "an activation above 0 in the fit text", "none (dead there)")
    return workspace, basis, unit_of(workspace, basis, index, found, values)
