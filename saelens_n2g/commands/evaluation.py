"""What a dictionary is worth: in the model that it was made for, and on its activations."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from saelens_n2g.bases.foreign import checksums, load_dictionary
from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.bases.hub import locate_dictionary
from saelens_n2g.commands.settings import config_of
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError
from saelens_n2g.figures import save
from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.evaluation import BehaviourPreservation, behaviour, spread
from saelens_n2g.training.figures import density_figure
from saelens_n2g.training.metrics import Evaluation, density_values, evaluate, feature_density
from saelens_n2g.training.sweep import unseen_rows

FORMAT, VERSION = "saelens-n2g/evaluation", 1
DENSE, RARE = 0.1, 1e-4
"""Shares of activations above and below which features are counted as dense and rare."""


def evaluate_dictionary(
    *,
    dictionary: str,
    out: Path,
    reporter: Reporter,
    model: str | None = None,
    layer: int | None = None,
    stream: str | None = None,
    windows: int = 16,
    **options: Any,
) -> None:
    """Evaluate a dictionary on test documents, print a table, write `OUT/evaluation.json` and `OUT/density.png`.

    dictionary: a folder in any layout that is read, or `hf:OWNER/REPO`. model, layer, stream: None takes what the
    dictionary says of itself. windows: of text on which its reconstructions are spliced into the model. `options` are
    those of `config_of`; with those of a training run the test documents are the ones that it was not trained on.
    Raises `InputError`, and `ArtefactError` for a dictionary that is damaged.
    """
    if windows < 1:
        raise InputError("option windows", "an integer >= 1", str(windows))
    folder = locate_dictionary(dictionary)
    one = _float32(load_dictionary(folder))
    site, name = _site(one, layer, stream), model or one.metadata.get("model_name")
    if not name:
        raise InputError(f"model of dictionary {dictionary}", "--model, or metadata that names one", "neither")
    config = config_of(bases="sae", model=str(name), layer=site.layer, stream=site.kind, dictionary=folder, **options)
    workspace = Workspace(config, out, reporter)
    width = workspace.subject.width(site)
    if one.d_in != width:
        raise InputError(f"dictionary {dictionary}", f"d_in {width} ({site} of {name})", f"d_in {one.d_in}")
    test = workspace.windows.subset(workspace.split[1])
    with reporter.stage("in the model", "windows") as tick:
        found = behaviour(workspace.subject, one, site, spread(test, windows), report=tick)
    with reporter.stage("on activations"):
        known = evaluate(one, unseen_rows(workspace.subject, test, [site])[site])
    _write(out, workspace.provenance(), folder, dictionary, one, found, known)
    print(
        table(f"{dictionary}: {one.architecture}, d_in {one.d_in}, d_sae {one.d_sae}, {site} of {name}", found, known)
    )


def _float32(dictionary: Dictionary) -> Dictionary:
    """All tensors in float32: dictionaries from elsewhere may be stored in half precision."""
    wide: dict[str, Any] = {k: v.float() for k, v in vars(dictionary).items() if isinstance(v, Tensor)}
    return replace(dictionary, **wide)


def _site(dictionary: Dictionary, layer: int | None, stream: str | None) -> Site:
    """Where it belongs, by its metadata or by what was asked for; the two must not differ."""
    hook = dictionary.metadata.get("hook_name")
    known = None if hook is None else Site.parse(str(hook))
    if layer is None and known is None:
        raise InputError("site of the dictionary", "--layer, or metadata with a hook_name", "neither")
    kind = stream or (known.kind if known else "resid_post")
    asked = Site(known.layer if layer is None and known else int(layer or 0), kind)  # type: ignore[arg-type]  # checked by Site
    if known not in (None, asked):
        raise InputError("site of the dictionary", f"{known}, as it says itself", str(asked))
    return asked


def _write(
    out: Path,
    provenance: dict[str, Any],
    folder: Path,
    spec: str,
    dictionary: Dictionary,
    found: BehaviourPreservation,
    known: Evaluation,
) -> None:
    density = feature_density(known.log10_sparsity)
    about = {"given": spec, "architecture": dictionary.architecture, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}
    value = {
        "format": FORMAT,
        "version": VERSION,
        "site": found.site,
        "windows": found.windows,
        **found.as_json(),
        "activations": known.as_json(),
        "density": density_values(density),
        "provenance": {**provenance, "dictionary": {**about, "sha256": checksums(folder)}},
    }
    write_json(out / "evaluation.json", value)
    save(out, "density", partial(density_figure, {f"{dictionary.architecture} at {found.site}": density}))


def table(title: str, found: BehaviourPreservation, known: Evaluation) -> str:
    """The findings for a terminal."""
    rebuilt, rates = found.reconstruction, 10 ** known.log10_sparsity.double()
    lines = [title, f"in the model, {found.windows} windows, {found.tokens:,} tokens, nats per token:"]
    lines.append(f"  {'':16s}{'cross-entropy':>14s}{'KL':>10s}")
    rows = (("as it is", "without_sae"), ("reconstruction", "with_sae"), ("zeros", "with_ablation"))
    for label, name in (*rows, ("mean activation", "with_mean_ablation")):
        kl = getattr(found, f"kl_div_{name}", None)
        lines.append(f"  {label:16s}{getattr(found, f'ce_loss_{name}'):14.4f}{_said(kl, 10) if kl is not None else ''}")
    for label, name in (("score, zeros", "score"), ("score, mean", "score_mean_ablation")):
        ce, kl = getattr(found, f"ce_loss_{name}"), getattr(found, f"kl_div_{name}")
        lines.append(f"  {label:16s}{_said(ce, 14)}{_said(kl, 10)}")
    dense, rare = int((rates > DENSE).sum()), int((rates < RARE).sum())
    lines += [
        f"on {known.rows:,} activations:",
        f"  FVU {_said(known.fvu)}, typical rows {_said(known.fvu_typical)}; L0 {known.l0:.1f}",
        f"  shrinkage |x^|/|x| {_said(rebuilt.l2_ratio)}, about b_dec {_said(rebuilt.l2_ratio_centred)}",
        f"  features: {known.dead:,} of {known.dead + known.alive:,} dead, {rare:,} on less than {RARE:g} (dead ones "
        f"among them), {dense:,} on more than {DENSE:g} of them",
    ]
    return "\n".join(lines)


def _said(value: float | None, width: int = 0) -> str:
    return f"{'–' if value is None else f'{value:.4f}':>{width}s}"
