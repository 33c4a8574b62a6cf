"""The `saelens-n2g` command. Exit codes: 0 done, 1 unexpected, 2 bad input, 3 damaged artefact, 4 unit without graph,
130 interrupted.

Imports here are light, so that `--help` answers at once; each command loads what it needs.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from saelens_n2g.errors import InputError, N2GError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal."""
METHOD = "refined"
"""`graphs.methods.DEFAULT`, said again because importing that file would load numpy."""
USAGE_ERROR: Any = typer.BadParameter.__base__
"""The parser's own error for wrong options. Typer brings its parser along and exports only the leaves of the tree."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Explain units of language models as token graphs that predict where they fire, and score the prediction.",
)

Model = Annotated[str, typer.Option(help="`embedded`, a folder in Hugging Face format, or a hub name.")]
Corpus = Annotated[str, typer.Option(help="`embedded`, `embedded:python`, `hf:NAME`, a .txt or .jsonl file, a folder.")]
Tokens = Annotated[int, typer.Option(help="Tokens to use, windows drawn from the whole corpus.")]
Width = Annotated[int, typer.Option(help="Tokens per window, BOS included.")]
Layer = Annotated[int, typer.Option(help="Block whose neurons and residual stream are used.")]
Seed = Annotated[int, typer.Option(help="For everything that is drawn at random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Dtype = Annotated[str, typer.Option(help="Precision of the model: float32, bfloat16, float16.")]
Bos = Annotated[str, typer.Option(help="auto (the tokenizer's), none, or an id.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
AugmenterName = Annotated[
    str,
    typer.Option(
        help="For method paper, the only one that augments: auto (BERT if it is on this machine, else "
        "spellings+subject), spellings, subject, A+B for both, none, or a fill-mask model such as bert-base-uncased."
    ),
]
MethodName = Annotated[str, typer.Option("--method", help="How graphs are fitted: paper, suffix, refined.")]
Wandb = Annotated[str, typer.Option(help="auto, online, offline or disabled.")]
Dictionary = Annotated[
    str | None,
    typer.Option(help="Trained dictionary: a folder (SAELens, sparsify, dictionary_learning) or hf:OWNER/REPO/PATH."),
]
Architecture = Annotated[
    str, typer.Option(help="tied, relu, topk, batchtopk, matryoshka, jumprelu or gated; for sweep several with commas.")
]
Choice = Annotated[
    list[str] | None,
    typer.Option("--option", help="Setting of the architecture as NAME=VALUE, e.g. k=32; may be repeated."),
]
Stream = Annotated[str, typer.Option(help="Site kind: resid_pre, resid_mid, resid_post, mlp_out, attn_out.")]
Batch = Annotated[int, typer.Option(help="Activations per step.")]
Unit = Annotated[str, typer.Option(help="LAYER.KIND/BASIS/INDEX, e.g. 3.mlp_post/neurons/1214.")]
Out = Annotated[Path, typer.Option(help="Folder for everything the run makes.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Remarks and results only.")]


def _example(*lines: str) -> str:
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  saelens-n2g {line}" for line in lines)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001  # read in main
) -> None:
    if version:
        from saelens_n2g import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog=_example("demo", "demo --out runs/other --layer 5 --units 40"))
def demo(
    out: Out = Path("runs/demo"),
    layer: Layer = 1,
    units: Annotated[int, typer.Option(help="Units to explain per basis.")] = 32,
    tokens: Tokens = 400_000,
    samples: Annotated[int, typer.Option(help="Activations the dictionary is trained on.")] = 1_200_000,
    method: MethodName = METHOD,
    augmenter: AugmenterName = "auto",
    wandb: Wandb = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The main job on the embedded model and text: train a dictionary, explain neurons, features and baselines,
    compare them in one table. Interrupted, it goes on where it stopped."""
    _compare(
        out,
        quiet,
        layer=layer,
        units=units,
        tokens=tokens,
        samples=samples,
        method=method,
        augmenter=augmenter,
        wandb=wandb,
        seed=seed,
    )


@app.command(
    epilog=_example(
        "compare --model EleutherAI/pythia-70m-deduped --corpus hf:NeelNanda/pile-10k --layer 2 --out runs/pythia",
        "compare --model ./my-model --corpus notes.txt --layer 0 --bases neurons,random --out runs/mine",
    )
)
def compare(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layer: Layer = 1,
    bases: Annotated[
        str, typer.Option(help="Comma-separated: neurons, sae, random, pca, ica.")
    ] = "neurons,sae,random,pca,ica",
    dictionary: Dictionary = None,
    units: Annotated[int, typer.Option(help="Units to explain per basis.")] = 32,
    tokens: Tokens = 400_000,
    width: Width = 128,
    samples: Annotated[int, typer.Option(help="Activations the dictionary is trained on.")] = 1_200_000,
    method: MethodName = METHOD,
    augmenter: AugmenterName = "auto",
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Compare bases of one layer of any model on any text: same protocol for all, one table, one page."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet")}
    _compare(out, quiet, **options)


@app.command(
    epilog=_example("train --out runs/sae", "train --model gpt2 --corpus hf:NeelNanda/pile-10k --layer 6 --out runs/g")
)
def train(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layer: Layer = 1,
    stream: Stream = "resid_post",
    architecture: Architecture = "tied",
    option: Choice = None,
    expansion: Annotated[float, typer.Option(help="Features per dimension of the activations (R).")] = 4.0,
    alpha: Annotated[float, typer.Option(help="L1 weight beside a squared error averaged over dimensions.")] = 3e-3,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    batch: Batch = 256,
    samples: Annotated[int, typer.Option(help="Activations to train on, epoch after epoch.")] = 1_200_000,
    tokens: Tokens = 400_000,
    width: Width = 128,
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train a sparse autoencoder on one site and save it as a SAELens folder, `OUT/dictionary/sae`."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet", "option")}
    from saelens_n2g import commands

    config = _config(bases="sae", options=commands.choices(option or []), **options)
    commands.train(config, out, _reporter(quiet))


@app.command(
    epilog=_example(
        "sweep --layers 4 --alphas 3e-4,1e-3,3e-3 --expansions 4,8 --out runs/sweep",
        "sweep --layers 1,3 --architecture topk,batchtopk --option k=16,32,64 --out runs/topk",
    )
)
def sweep(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layers: Annotated[str, typer.Option(help="Layers, with commas between.")] = "1",
    stream: Stream = "resid_post",
    architecture: Architecture = "tied",
    option: Choice = None,
    alphas: Annotated[str, typer.Option(help="Sparsity weights, with commas between.")] = "1e-3,3e-3,6e-3",
    expansions: Annotated[str, typer.Option(help="Features per dimension (R), with commas between.")] = "4",
    seeds: Annotated[str, typer.Option(help="Seeds of the first weights, with commas between.")] = "0",
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    batch: Batch = 256,
    samples: Annotated[int | None, typer.Option(help="Activations to train on; default: all, once.")] = None,
    tokens: Tokens = 400_000,
    width: Width = 128,
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train many dictionaries in one pass over the model, and draw what sparsity costs."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet", "option")}
    from saelens_n2g import commands

    commands.sweep(out=out, reporter=_reporter(quiet), choices=option or [], **options)


@app.command(epilog=_example("push runs/sae/dictionary/sae OWNER/NAME"))
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a dictionary (SAELens format).")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    path: Annotated[str, typer.Option(help="Folder in the repository.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Put a dictionary on the Hugging Face hub, with a model card."""
    from saelens_n2g.bases.hub import push_to_hub

    typer.echo(push_to_hub(folder, repo, private=private, path_in_repo=path))


@app.command(epilog=_example("exemplars --unit 3.mlp_post/neurons/1214 --out runs/unit"))
def exemplars(
    unit: Unit,
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    dictionary: Dictionary = None,
    top: Annotated[int, typer.Option(help="Windows to print.")] = 10,
    tokens: Tokens = 400_000,
    width: Width = 128,
    device: Device = "auto",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The windows of the corpus on which one unit is most active, coloured by activation."""
    from saelens_n2g import commands

    config = _config(unit=unit, **_shared(locals()))
    commands.exemplars(config, unit, out, top, _reporter(quiet))


@app.command(
    epilog=_example(
        "fit --unit 3.mlp_post/neurons/1214 --out runs/unit",
        "fit --unit 3.resid_post/sae/17 --dictionary runs/demo/dictionary/sae --out runs/feature",
    )
)
def fit(
    unit: Unit,
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    dictionary: Dictionary = None,
    method: MethodName = METHOD,
    augmenter: AugmenterName = "auto",
    tokens: Tokens = 400_000,
    width: Width = 128,
    device: Device = "auto",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit the N2G graph of one unit, print it and its scores, write it as JSON, SVG and DOT."""
    from saelens_n2g import commands

    config = _config(unit=unit, method=method, augmenter=augmenter, **_shared(locals()))
    commands.fit(config, unit, out, _reporter(quiet))


@app.command(
    epilog=_example(
        'predict runs/unit/graphs/3.mlp_post_neurons_1214.json --text "They moved to New York in May."',
        "predict graph.json --file notes.txt --json",
    )
)
def predict(
    graph: Annotated[Path, typer.Argument(help="A graph's JSON file.")],
    text: Annotated[str | None, typer.Option(help="The text.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file, `-` for standard input.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose tokenizer; the graph's own model if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Tokens and predictions as JSON.")] = False,
) -> None:
    """Where a graph predicts its unit to fire on a text; tokens coloured in the terminal. Runs no model."""
    from saelens_n2g import commands

    commands.predict(graph, text, file, model, as_json=json)


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    """The options of a one-unit command that go into its settings as they are."""
    names = ("model", "corpus", "dictionary", "tokens", "width", "device", "bos", "revision", "seed")
    return {name: values[name] for name in names}


def _config(**options: Any) -> Any:
    from saelens_n2g.commands import config_of

    return config_of(**options)


def _reporter(quiet: bool) -> Any:
    from saelens_n2g.progress import Reporter

    return Reporter(quiet=quiet)


def _compare(out: Path, quiet: bool, **options: Any) -> None:
    from saelens_n2g import commands

    commands.compare(_config(**options), out, _reporter(quiet))


def main() -> None:
    """Entry point: errors that a user can mend are one line on stderr."""
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    err = Console(stderr=True, soft_wrap=True)
    try:
        status = app(arguments, standalone_mode=False)
    except N2GError as error:
        if debug:
            raise
        err.print(f"error: {' '.join(str(error).splitlines())}", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(InputError.exit_code)
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split()) or "no message"
        err.print(f"unexpected {type(error).__name__}: {reason} (add --debug for the traceback)", markup=False)
        sys.exit(1)
    if status == INTERRUPTED:  # Typer turns Ctrl-C into this status
        err.print("interrupted: run the same command again to go on", markup=False, highlight=False)
    sys.exit(status if isinstance(status, int) else 0)
