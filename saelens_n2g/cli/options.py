"""Options that several commands share, each said once, and what every command does with its own.

    @app.command(epilog=example("fit --unit 3.mlp_post/neurons/1214 --out runs/unit"))
    @shared("dictionary", *RUN, tokens=60_000)
    def fit(unit: Unit, out: Out, *, reporter: Any, **options: Any) -> None: ...

Imports are light, so that `--help` answers at once; each command loads what it needs.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

METHOD = "refined"
"""`graphs.methods.DEFAULT`, said again because importing that file would load numpy."""

Layer = Annotated[int, typer.Option(help="Block whose neurons and residual stream are used.")]
Out = Annotated[Path, typer.Option(help="Folder for everything the run makes.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Remarks and results only.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Unit = Annotated[str, typer.Option(help="LAYER.KIND/BASIS/INDEX, e.g. 3.mlp_post/neurons/1214.")]

SHARED: dict[str, tuple[Any, Any]] = {
    "model": (
        Annotated[str, typer.Option(help="`embedded`, a folder in Hugging Face format, or a hub name.")],
        "embedded",
    ),
    "corpus": (
        Annotated[str, typer.Option(help="`embedded`, `embedded:python`, `hf:NAME`, a .txt or .jsonl file, a folder.")],
        "embedded",
    ),
    "layer": (Layer, 1),
    "dictionary": (
        Annotated[
            str | None,
            typer.Option(
                help="Trained dictionary: a folder (SAELens, sparsify, dictionary_learning) or hf:OWNER/REPO/PATH."
            ),
        ],
        None,
    ),
    "units": (Annotated[int, typer.Option(help="Units to explain per basis.")], 32),
    "samples": (Annotated[int, typer.Option(help="Activations the dictionary is trained on.")], 1_200_000),
    "method": (
        Annotated[str, typer.Option("--method", help="How graphs are fitted: paper, suffix, refined.")],
        METHOD,
    ),
    "augmenter": (
        Annotated[
            str,
            typer.Option(
                help="For method paper, the only one that augments: auto (BERT if it is on this machine, else "
                "spellings+subject), spellings, subject, A+B for both, none, or a fill-mask model such as "
                "bert-base-uncased."
            ),
        ],
        "auto",
    ),
    "stream": (
        Annotated[str, typer.Option(help="Site kind: resid_pre, resid_mid, resid_post, mlp_out, attn_out.")],
        "resid_post",
    ),
    "architecture": (
        Annotated[
            str,
            typer.Option(
                help="tied, relu, topk, batchtopk, matryoshka, jumprelu or gated; for sweep several with commas."
            ),
        ],
        "tied",
    ),
    "option": (
        Annotated[
            list[str] | None,
            typer.Option("--option", help="Setting of the architecture as NAME=VALUE, e.g. k=32; may be repeated."),
        ],
        None,
    ),
    "alpha": (
        Annotated[float, typer.Option(help="L1 weight beside a squared error averaged over dimensions.")],
        3e-3,
    ),
    "lr": (Annotated[float, typer.Option(help="Adam's learning rate.")], 3e-3),
    "batch": (Annotated[int, typer.Option(help="Activations per step.")], 256),
    "clip": (
        Annotated[
            float,
            typer.Option(help="Shorten activations in training to so many median distances from the mean; 0 never."),
        ],
        0.0,
    ),
    "precision": (
        Annotated[str, typer.Option(help="Matrix products of training: highest, high, medium, bfloat16.")],
        "highest",
    ),
    "wandb": (Annotated[str, typer.Option(help="auto, online, offline or disabled.")], "auto"),
    "tokens": (Annotated[int, typer.Option(help="Tokens to use, windows drawn from the whole corpus.")], 400_000),
    "width": (Annotated[int, typer.Option(help="Tokens per window, BOS included.")], 128),
    "device": (Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")], "auto"),
    "dtype": (Annotated[str, typer.Option(help="Precision of the model: float32, bfloat16, float16.")], "float32"),
    "bos": (Annotated[str, typer.Option(help="auto (the tokenizer's), none, or an id.")], "auto"),
    "revision": (Revision, None),
    "seed": (Annotated[int, typer.Option(help="For everything that is drawn at random.")], 0),
    "client": (
        Annotated[str | None, typer.Option(help="Language model that is asked: http, huggingface, llamacpp, replay.")],
        None,
    ),
    "client_model": (
        Annotated[
            str | None,
            typer.Option(help="Its name: embedded, a folder or a hub name for huggingface, a .gguf file for llamacpp."),
        ],
        None,
    ),
    "base_url": (Annotated[str | None, typer.Option(help="Address of a server with OpenAI's interface.")], None),
    "key_env": (Annotated[str | None, typer.Option(help="Environment variable that has the server's key.")], None),
    "cache": (
        Annotated[str | None, typer.Option(help="Folder of its answers; interpret keeps them in OUT/answers.")],
        None,
    ),
    "client_option": (
        Annotated[
            list[str] | None,
            typer.Option(help="KEY=VALUE, a further setting of the client (docs/clients.md); may be repeated."),
        ],
        None,
    ),
    "estimate": (Annotated[bool, typer.Option("--estimate", help="Say what it will cost, and stop.")], False),
}
"""Declaration and usual default of every option that more than one command has."""
RUN = ("model", "corpus", "tokens", "width", "device", "dtype", "bos", "revision", "seed")
"""What decides the model and the text, and chance."""
ASKED = ("client", "client_model", "base_url", "key_env", "cache", "client_option")
"""Which language model is asked, and how."""
TRAINING = ("stream", "architecture", "option", "lr", "batch", "clip", "precision", "wandb")
"""How dictionaries are trained."""


def shared(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of these names behind its own, and `--quiet`, which becomes its `reporter`.

    Parameters in front of the `*` of the command are its own options, also where a shared one has that name. The others
    reach it by keyword: by name behind the `*`, or in `**options`. `defaults` take the place of the usual ones; with
    None the option may be left out.
    """
    assert defaults.keys() <= set(names), f"defaults of other options: {defaults.keys() - set(names)}"

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
        wanted = {name: (SHARED[name][0], defaults.get(name, SHARED[name][1])) for name in names}
        wanted["quiet"] = (Quiet, False)
        mine = {one.name for one in own}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default) in wanted.items()
            if name not in mine
        ]

        @functools.wraps(command)
        def run(*, quiet: bool, **given: Any) -> None:
            from saelens_n2g.progress import Reporter

            command(reporter=Reporter(quiet=quiet), **given)

        run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]  # what the parser reads
        return run

    return decorate


def example(*lines: str) -> str:
    """Lines below a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  saelens-n2g {line}" for line in lines)


def config_from(**options: Any) -> Any:
    """The settings of a run. Raises `InputError`."""
    from saelens_n2g.commands.settings import config_of

    return config_of(**options)
