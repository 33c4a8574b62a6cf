"""What the commands of the command line do. Each composes the package; `cli.py` only reads options."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from saelens_n2g.comparison.config import BASES, RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.units import UnitRule
from saelens_n2g.errors import ArtefactError, InputError, N2GError, UnitError
from saelens_n2g.graphs.methods import DEFAULT, without_augmentation
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.config import TrainingConfig

if TYPE_CHECKING:
    from saelens_n2g.bases.base import Basis
    from saelens_n2g.comparison.selection import Unit
    from saelens_n2g.comparison.workspace import Workspace


def config_of(
    *,
    model: str = "embedded",
    corpus: str = "embedded",
    layer: int = 1,
    unit: str | None = None,
    bases: str = ",".join(BASES),
    stream: str = "resid_post",
    dictionary: str | Path | None = None,
    units: int = 32,
    tokens: int = 400_000,
    width: int = 128,
    architecture: str = "tied",
    options: Mapping[str, Any] | None = None,
    expansion: float = 4.0,
    alpha: float = 3e-3,
    lr: float = 3e-3,
    batch: int = 256,
    samples: int = 1_200_000,
    method: str = DEFAULT,
    augmenter: str = "auto",
    wandb: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    bos: str = "auto",
    revision: str | None = None,
    seed: int = 0,
) -> RunConfig:
    """Settings out of command-line options; a `unit` decides layer, site and basis. Raises `InputError`."""
    neurons = "mlp_post"
    if unit is not None:
        site, bases, _ = parse_unit(unit)
        layer = site.layer
        neurons, stream = (site.kind, stream) if bases == "neurons" else (neurons, site.kind)
    training = TrainingConfig(
        architecture=architecture,
        options=options or {},
        expansion=expansion,
        alpha=alpha,
        lr=lr,
        batch=batch,
        samples=samples,
        seed=seed,
        wandb=wandb,  # type: ignore[arg-type]  # checked by TrainingConfig
    )
    config = RunConfig(
        subject=SubjectConfig(model=model, revision=revision, device=device, dtype=dtype, bos=bos),
        text=TextConfig(corpus=corpus, tokens=tokens, width=width),
        layer=layer,
        neurons=neurons,  # type: ignore[arg-type]  # a kind, checked by Site
        stream=stream,  # type: ignore[arg-type]  # likewise
        bases=tuple(name.strip() for name in bases.split(",") if name.strip()),
        dictionary=None if dictionary is None else _located(str(dictionary)),
        training=training,
        rule=UnitRule(units=units, seed=seed),
        method=method,
        augmenter=augmenter,
        seed=seed,
    )
    return replace(config, options=without_augmentation(config.method_options)) if augmenter == "none" else config


def _located(dictionary: str) -> str:
    from saelens_n2g.bases.hub import locate_dictionary

    return str(locate_dictionary(dictionary))


def parse_unit(text: str) -> tuple[Site, str, int]:
    """`3.mlp_post/neurons/1214` -> site, basis, index. Raises `InputError`."""
    parts = text.split("/")
    if len(parts) != 3 or not parts[2].isdecimal() or parts[1] not in BASES:
        raise InputError(f"unit {text!r}", f"LAYER.KIND/BASIS/INDEX with a basis of {', '.join(BASES)}", repr(text))
    return Site.parse(parts[0]), parts[1], int(parts[2])


def compare(config: RunConfig, out: Path, reporter: Reporter) -> None:
    """Run or finish a comparison and print its table."""
    from saelens_n2g.comparison.run import REPORT
    from saelens_n2g.comparison.run import compare as run
    from saelens_n2g.comparison.table import terminal_table

    result = run(config, out, reporter)
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(terminal_table(result, console.width))
    if result.dictionary:
        known = {
            k: v for k, v in sorted(result.dictionary.items()) if isinstance(v, int | float) and not isinstance(v, bool)
        }
        console.print("dictionary: " + ", ".join(f"{k} {v:.4g}" for k, v in known.items()), highlight=False)
    console.print(f"report: {out / REPORT / 'index.html'}", highlight=False, soft_wrap=True)


def layers(
    *,
    out: Path,
    layers: str,
    basis: str = "neurons",
    methods: Sequence[str] = ("paper", "suffix", "refined"),
    dictionary: str | None = None,
    **options: Any,
) -> Path:
    """Explain units of several layers, or finish doing so; the path of the table. `options` are those of `config_of`.

    `layers` are numbers with commas between. Raises `InputError`.
    """
    from saelens_n2g.comparison.layers import REPORT, LayersConfig, run_layers

    numbers = [part.strip() for part in layers.split(",")]
    if not all(part.isdecimal() for part in numbers):
        raise InputError("option layers", "numbers with commas between, such as 0,1,2", repr(layers))
    run = replace(config_of(**options), options=None, dictionary=dictionary)
    chosen = tuple(int(part) for part in numbers)
    run_layers(LayersConfig(run=run, layers=chosen, basis=basis, methods=tuple(methods)), out, Reporter())
    return out / REPORT / "layers.md"


def train(config: RunConfig, out: Path, reporter: Reporter) -> None:
    """Train a dictionary, or go on with one, and print what it does to test activations."""
    from saelens_n2g.bases.formats import load_saelens
    from saelens_n2g.comparison.run import train_dictionary
    from saelens_n2g.comparison.workspace import Workspace

    workspace = Workspace(config, out, reporter)
    folder = train_dictionary(workspace)
    workspace.discard_activations()
    dictionary = load_saelens(folder)
    test = dictionary.metadata["evaluation"]["test"]
    print(f"{folder}: d_in {dictionary.d_in}, d_sae {dictionary.d_sae}")
    print(f"on test documents: fvu {test['fvu']:.4f}, l0 {test['l0']:.1f}, dead {test['dead']} of {dictionary.d_sae}")


def choices(given: Sequence[str]) -> dict[str, Any]:
    """`["k=32", "aux_weight=0"]` -> values of an architecture's options, numbers as such. Raises `InputError`."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"option {text!r}", "NAME=VALUE", "another form")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _list(text: str, kind: type) -> list[Any]:
    """Values with commas between. Raises `InputError`."""
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"values {text!r}", f"{kind.__name__} values with commas between", "another form") from None


def sweep(
    *,
    out: Path,
    reporter: Reporter,
    layers: str = "1",
    architecture: str = "tied",
    alphas: str = "1e-3,3e-3,6e-3",
    expansions: str = "4",
    seeds: str = "0",
    choices: Sequence[str] = (),
    samples: int | None = None,
    **options: Any,
) -> None:
    """Train dictionaries of all combinations in one pass over the subject. `options` are those of `config_of`.

    `choices` are options of the architectures as NAME=VALUE,VALUE. Without `samples` every token of the fit text is
    seen once. Raises `InputError`.
    """
    from saelens_n2g.comparison.sweeping import run_sweep

    numbers, every = _list(layers, int), {"architecture": _list(architecture, str), "alpha": _list(alphas, float)}
    every |= {"expansion": _list(expansions, float), "seed": _list(seeds, int)}
    for text in choices:
        name, _, values = text.partition("=")
        every[name] = [_value(value) for value in values.split(",")]
    config = config_of(bases="sae", layer=numbers[0] if numbers else 0, **options)
    varied = {name: values for name, values in every.items() if len(values) != 1}
    base = replace(config.training, **{k: v[0] for k, v in every.items() if len(v) == 1 and k not in _names(choices)})
    varied |= {name: every[name] for name in _names(choices)}
    print(run_sweep(config, base, varied, numbers, samples, out, reporter))


def _names(choices: Sequence[str]) -> list[str]:
    return [text.partition("=")[0] for text in choices]


def exemplars(config: RunConfig, unit: str, out: Path, top: int, reporter: Reporter) -> None:
    """Print the strongest windows of a unit and write all its exemplars as JSON."""
    from saelens_n2g.comparison.explain import exemplars_as_json
    from saelens_n2g.jobs.artefacts import write_json

    workspace, _, found = _one_unit(config, unit, out, reporter)
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

    workspace, basis, found = _one_unit(config, unit, out, reporter)
    with reporter.stage(f"fit {unit}", "units"):
        graph = Fitter(workspace, basis).fit([found])[found.index]
    if isinstance(graph, N2GError):
        raise graph
    scores = score(workspace, found, graph)
    result = publish(workspace, Explained(found, graph, scores), out)
    workspace.discard_activations()
    print(result.text)
    for explainer, one in scores.items():
        values = [f"{text} F1 {_number(metrics['f1'])}" for text, metrics in one.metrics.items()]
        print(f"{explainer:22s} {', '.join(values)}")
    print(f"written: {out / result.graph_file} (and .svg, .dot)")


def _one_unit(config: RunConfig, unit: str, out: Path, reporter: Reporter) -> "tuple[Workspace, Basis, Unit]":
    """Workspace, basis and the unit with its exemplars. Raises `UnitError` if it never fires in the fit text."""
    from saelens_n2g.comparison.selection import build, unit_of
    from saelens_n2g.comparison.units import statistics
    from saelens_n2g.comparison.workspace import Workspace

    site, name, index = parse_unit(unit)
    workspace = Workspace(config, out, reporter)
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


def predict(path: Path, text: str | None, file: Path | None, model: str | None, *, as_json: bool) -> None:
    """Predict with a stored graph; only the tokenizer of its model is loaded."""
    from saelens_n2g.graphs.graph import Graph
    from saelens_n2g.jobs.artefacts import read_json
    from saelens_n2g.subject import Tokenizer

    try:
        graph = Graph.from_dict(read_json(path))
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error.thing}", error.expected, error.found) from error
    content = _text(text, file)
    about = graph.provenance.get("subject", {})
    tokenizer = Tokenizer.load(model or about.get("model", "embedded"), revision=about.get("revision"))
    ids = tokenizer.encode(content)
    if not ids:
        raise InputError("text", "at least one token", "an empty text")
    predicted = graph.predict(ids)
    tokens = [tokenizer.string(t) for t in ids]
    if as_json:
        value = {"unit": graph.unit, "ids": ids, "tokens": tokens, "predicted": [round(float(p), 4) for p in predicted]}
        print(json.dumps(value, ensure_ascii=False))
        return
    console = Console()
    console.print(coloured(tokens, predicted), soft_wrap=True)
    fires = int((predicted >= 0.5).sum())
    console.print(f"{graph.unit} fires on {fires} of {len(ids)} tokens", highlight=False)
    if not console.is_terminal:
        for token, value in zip(tokens, predicted, strict=True):
            if value > 0:
                print(f"{value:.2f}\t{token!r}")  # rich would make spaces of the tab


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise InputError("predict", "either --text or --file", "both" if text is not None else "neither")
    if text is not None:
        return text
    assert file is not None
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"file {file}", "a text file in UTF-8", str(error)) from error


def coloured(tokens: list[str], values: np.ndarray) -> Text:
    """Tokens on a red ground as strong as their value in [0, 1]; plain where it is 0."""
    text = Text()
    for token, value in zip(tokens, values, strict=True):
        strength = min(max(float(value), 0.0), 1.0)
        shade = 235 - round(190 * strength)
        style = f"black on rgb(255,{shade},{shade})" if strength >= 0.05 else ""
        text.append(token.replace("\n", "⏎\n"), style=style)
    return text


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
