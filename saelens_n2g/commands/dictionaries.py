"""Dictionaries: trained by themselves, or many in one pass."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import config_of, value_of, values_of
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.progress import Reporter, Silent


def train(config: RunConfig, out: Path, reporter: Reporter, *, estimate: bool = False) -> None:
    """Train a dictionary, or go on with one, and print what it does to test activations.

    What it will cost is said first, unless the dictionary is there; with `estimate` that is all that happens. Under
    torchrun all processes train it together, and the first of them speaks.
    """
    from saelens_n2g.bases.formats import load_saelens
    from saelens_n2g.booting import find_device
    from saelens_n2g.comparison.run import train_dictionary
    from saelens_n2g.comparison.sweeping import cost_of_training
    from saelens_n2g.comparison.workspace import Workspace
    from saelens_n2g.training.parallel import group_from_environment

    with group_from_environment(find_device(config.subject.device).type) as group:
        workspace = Workspace(config, out, reporter if group.is_writer else Silent())
        with group.writer_first():
            if estimate or not workspace.finished("dictionary"):
                workspace.reporter.note(cost_of_training(workspace).text())
        if estimate:
            return
        folder = train_dictionary(workspace, group)
        group.barrier()  # no process reads activations any more
        if not group.is_writer:
            return
        workspace.discard_activations()
    dictionary = load_saelens(folder)
    test = dictionary.metadata["evaluation"]["test"]
    print(f"{folder}: d_in {dictionary.d_in}, d_sae {dictionary.d_sae}")
    print(f"on test documents: fvu {test['fvu']:.4f}, l0 {test['l0']:.1f}, dead {test['dead']} of {dictionary.d_sae}")
    if found := dictionary.metadata["evaluation"].get("behaviour"):  # none in folders of earlier versions
        score = found["model_performance_preservation"]["ce_loss_score"]
        kl, n = found["model_behavior_preservation"]["kl_div_with_sae"], found["token_stats"]
        said = "–" if score is None else f"{score:.4f}"
        print(
            f"in the model, {n['total_tokens_eval_reconstruction']:,} tokens: "
            f"cross-entropy score {said} (1: unnoticed, 0: as zeros), KL {kl:.4f}"
        )


def train_with(*, out: Path, reporter: Reporter, estimate: bool = False, **options: Any) -> None:
    """`train` with the options of `config_of`."""
    train(config_of(bases="sae", **options), out, reporter, estimate=estimate)


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
    memory: float | None = None,
    estimate: bool = False,
    **options: Any,
) -> None:
    """Train dictionaries of all combinations in one pass over the subject. `options` are those of `config_of`.

    `choices` are options of the architectures as NAME=VALUE,VALUE. Without `samples` every token of the fit text is
    seen once. `memory`: gigabytes; layers that do not fit into them together are trained one after the other. What it
    will cost is said first; with `estimate` that is all that happens. Raises `InputError`.
    """
    from saelens_n2g.booting import find_device
    from saelens_n2g.comparison.sweeping import run_sweep
    from saelens_n2g.training.parallel import group_from_environment

    numbers, every = (
        values_of(layers, int),
        {"architecture": values_of(architecture, str), "alpha": values_of(alphas, float)},
    )
    every |= {"expansion": values_of(expansions, float), "seed": values_of(seeds, int)}
    for text in choices:
        name, _, values = text.partition("=")
        every[name] = [value_of(value) for value in values.split(",")]
    config = config_of(bases="sae", layer=numbers[0] if numbers else 0, **options)
    varied = {name: values for name, values in every.items() if len(values) != 1}
    base = replace(config.training, **{k: v[0] for k, v in every.items() if len(v) == 1 and k not in _names(choices)})
    varied |= {name: every[name] for name in _names(choices)}
    limit = None if memory is None else memory * 1e9
    with group_from_environment(find_device(config.subject.device).type) as group:
        teller = reporter if group.is_writer else Silent()
        run = partial(run_sweep, config, base, varied, numbers, samples, out, teller)
        table = run(memory=limit, estimate=estimate, group=group)
        if group.is_writer and not estimate:
            print(table)


def _names(choices: Sequence[str]) -> list[str]:
    return [text.partition("=")[0] for text in choices]
