"""Options that several commands share, and what every command does with its own.

Imports are light, so that `--help` answers at once; each command loads what it needs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

METHOD = "refined"
"""`graphs.methods.DEFAULT`, said again because importing that file would load numpy."""

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
Estimate = Annotated[bool, typer.Option("--estimate", help="Say what it will cost, and stop.")]
Clip = Annotated[
    float,
    typer.Option(help="Shorten activations in training to so many median distances from the mean; 0 never."),
]
Precision = Annotated[str, typer.Option(help="Matrix products of training: highest, high, medium, bfloat16.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Remarks and results only.")]


def example(*lines: str) -> str:
    """Lines below a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  saelens-n2g {line}" for line in lines)


def config_from(**options: Any) -> Any:
    """The settings of a run. Raises `InputError`."""
    from saelens_n2g.commands.settings import config_of

    return config_of(**options)


def reporter_of(quiet: bool) -> Any:
    """What shows progress."""
    from saelens_n2g.progress import Reporter

    return Reporter(quiet=quiet)
