"""The study of bases side by side, out of what a user types."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import config_of, values_of
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.refined import RefinedOptions
from saelens_n2g.progress import Reporter
from saelens_n2g.study.config import TRAINING, StudyConfig, variant
from saelens_n2g.training.config import TrainingConfig

FULL: dict[str, Any] = {
    "layers": "0,1,2,3,6,12",
    "dictionaries": "tied-R2,tied-R4,topk-R4",
    "units": 16,
    "tokens": 150_000,
    "samples": 300_000,
}
"""What is asked where nothing is said."""
SMALL: dict[str, Any] = {
    "layers": "0,1,3",
    "dictionaries": "tied-R2,topk-R2",
    "units": 6,
    "tokens": 40_000,
    "samples": 50_000,
}
"""The same to try it out: minutes, and too few units to conclude anything."""

LIGHT = RefinedOptions(examples=24, fronts=2, front=6, neighbours=20, proposals=120, rounds=1)
"""The method `refined` where hundreds of units are fitted: fewer questions to the model than its defaults."""


def config_for(
    *,
    small: bool = False,
    layers: str | None = None,
    dictionaries: str | None = None,
    units: int | None = None,
    tokens: int | None = None,
    samples: int | None = None,
    bases: str = "neurons,pca,ica,random",
    width: int = 129,
    fragment: int = 64,
    alpha: float = TRAINING.alpha,
    k: int = 32,
    batch: int = TRAINING.batch,
    thorough: bool = False,
    seed: int = 0,
    **options: Any,
) -> StudyConfig:
    """Settings of a study; what is None is that of `FULL` or, with `small`, of `SMALL`. `options` are other ones of
    `config_of`.

    `dictionaries`: names such as tied-R4 with commas between, each to be trained; NAME=FOLDER takes a dictionary that
    is there, `{layer}` standing for the layer. `k` is for architectures that have one. `thorough` fits
    `refined` with its defaults instead of `LIGHT`. Raises `InputError`.
    """
    given = {"layers": layers, "dictionaries": dictionaries, "units": units, "tokens": tokens, "samples": samples}
    asked = {**(SMALL if small else FULL), **{name: value for name, value in given.items() if value is not None}}
    run = config_of(units=asked["units"], tokens=asked["tokens"], width=width, seed=seed, **options)
    if run.method == "refined" and not thorough:
        run = replace(run, options=LIGHT)
    training = replace(TRAINING, alpha=alpha, batch=batch, samples=asked["samples"], seed=seed)
    return StudyConfig(
        run=run,
        layers=tuple(values_of(asked["layers"], int)),
        dictionaries=dict(_dictionary(text.strip(), training, k) for text in asked["dictionaries"].split(",") if text),
        bases=tuple(name.strip() for name in bases.split(",") if name.strip()),
        fragment=fragment,
    )


def _dictionary(text: str, training: TrainingConfig, k: int) -> tuple[str, TrainingConfig | str]:
    """`tied-R4`, or `NAME=FOLDER`."""
    from saelens_n2g.training.architectures.registry import find_architecture

    name, given, folder = text.partition("=")
    if given:
        if not folder:
            raise InputError(f"dictionary {name!r}", "NAME=FOLDER", repr(text))
        return name, folder
    config = variant(name, training)
    kind = find_architecture(config.architecture)
    return name, replace(config, options={"k": k}) if kind.sparsity == "k" else config


def study(*, out: Path, reporter: Reporter | None = None, **options: Any) -> Path:
    """Run or finish a study; the path of its page. `options` are those of `config_for`. Raises `InputError`."""
    from saelens_n2g.study.run import REPORT, run_study

    run_study(config_for(**options), out, reporter or Reporter())
    return out / REPORT / "index.html"
