"""Settings out of what a user types: options of the command line, recipes' JSON files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from saelens_n2g.comparison.config import BASES, RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.units import UnitRule
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.methods import DEFAULT, without_augmentation
from saelens_n2g.sites import Site
from saelens_n2g.training.config import TrainingConfig


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
    test_share: float = 0.25,
    architecture: str = "tied",
    options: Mapping[str, Any] | None = None,
    expansion: float = 4.0,
    alpha: float = 3e-3,
    lr: float = 3e-3,
    batch: int = 256,
    samples: int = 1_200_000,
    method: str = DEFAULT,
    augmenter: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    bos: str = "auto",
    revision: str | None = None,
    seed: int = 0,
    **more: Any,
) -> RunConfig:
    """Settings out of command-line options; a `unit` decides layer, site and basis. `more` are other fields of
    `TrainingConfig`, such as `wandb`. Raises `InputError`."""
    neurons = "mlp_post"
    if unit is not None:
        site, bases, _ = parse_unit(unit)
        layer, (neurons, stream) = site.layer, (site.kind, stream) if bases == "neurons" else (neurons, site.kind)
    config = RunConfig(
        subject=SubjectConfig(model=model, revision=revision, device=device, dtype=dtype, bos=bos),
        text=_text(corpus, tokens, width, test_share),
        layer=layer,
        neurons=neurons,  # type: ignore[arg-type]  # a kind, checked by Site
        stream=stream,  # type: ignore[arg-type]  # likewise
        bases=tuple(name.strip() for name in bases.split(",") if name.strip()),
        dictionary=None if dictionary is None else _located(str(dictionary)),
        training=TrainingConfig(
            architecture=architecture,
            options=options or {},
            expansion=expansion,
            alpha=alpha,
            lr=lr,
            batch=batch,
            samples=samples,
            seed=seed,
            **_known(more),
        ),
        rule=UnitRule(units=units, seed=seed),
        method=method,
        augmenter=augmenter,
        seed=seed,
    )
    return replace(config, options=without_augmentation(config.method_options)) if augmenter == "none" else config


def _known(more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of a training configuration, and nothing else."""
    if unknown := sorted(set(more) - {field.name for field in fields(TrainingConfig)}):
        raise InputError("settings of a run", "options of its command or fields of TrainingConfig", ", ".join(unknown))
    return more


def _text(corpus: str, tokens: int, width: int, test_share: float) -> TextConfig:
    """As much of the corpus is read as is wanted, if that is more than is read anyway."""
    read = max(TextConfig.read, tokens)
    return TextConfig(corpus=corpus, tokens=tokens, read=read, width=width, test_share=test_share)


def _located(dictionary: str) -> str:
    from saelens_n2g.bases.hub import locate_dictionary

    return str(locate_dictionary(dictionary))


def parse_unit(text: str) -> tuple[Site, str, int]:
    """`3.mlp_post/neurons/1214` -> site, basis, index. Raises `InputError`."""
    parts = text.split("/")
    if len(parts) != 3 or not parts[2].isdecimal() or parts[1] not in BASES:
        raise InputError(f"unit {text!r}", f"LAYER.KIND/BASIS/INDEX with a basis of {', '.join(BASES)}", repr(text))
    return Site.parse(parts[0]), parts[1], int(parts[2])


def choices(given: Sequence[str]) -> dict[str, Any]:
    """`["k=32", "aux_weight=0"]` -> values of an architecture's options, numbers as such. Raises `InputError`."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"option {text!r}", "NAME=VALUE", "another form")
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """A JSON value, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def values_of(text: str, kind: type) -> list[Any]:
    """Values with commas between. Raises `InputError`."""
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"values {text!r}", f"{kind.__name__} values with commas between", "another form") from None
