"""A dry run: what an interpretation would ask and cost, without asking anything.

    plan = plan_interpretation([Path("runs/demo")], config, Path("runs/words"), Price(0.15, 0.60))
    print(plan.to_text())

The run's own code goes over the units with a client that makes answers up (`asking.Asker`), so that what is finished,
and answers that are kept, cost nothing. Only the length of sentences that are not written yet is a guess.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from saelens_n2g.autointerp.asking import PROMPTS, Asker
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.run import ANSWERS, groups_of
from saelens_n2g.autointerp.subjects import Subjects
from saelens_n2g.autointerp.work import Work
from saelens_n2g.clients.base import Capabilities, Client
from saelens_n2g.clients.cache import FILE, Cached
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.estimating import Estimate, Keeping, Price
from saelens_n2g.clients.registry import client_of
from saelens_n2g.errors import InputError
from saelens_n2g.markdown import grid


class Plan(NamedTuple):
    """What would be asked."""

    parts: Mapping[str, Estimate]
    """Explainer, simulator or scorer -> what it would ask."""
    total: Estimate
    """Of all of it; what several ask alike is asked once."""
    units: int

    def to_text(self) -> str:
        """A table and a line, for people."""
        head = ("Who asks", "Requests", "Kept, or repeats", "Tokens in", "Out, expected", "Out, at most", "Cost")
        body = [
            [name, *(f"{n:,.0f}" for n in one[:5]), "" if one.cost is None else f"{one.cost:.4g}"]
            for name, one in self.parts.items()
        ]
        table = f"{grid(head, body)}\n\n" if body else ""
        return f"{table}{self.units} units, nothing asked. {self.total.to_text()}\n"


def plan_interpretation(
    runs: Sequence[Path],
    config: InterpretConfig,
    folder: Path,
    price: Price | None = None,
    client: Client | None = None,
) -> Plan:
    """What `run_interpretation` would ask. Writes nothing in `folder`. Raises as it does."""
    with tempfile.TemporaryDirectory() as spare:
        asker = _asker(config, folder, client, Path(spare))
        groups = groups_of(runs, config)
        work = Work(config, folder, asker, Subjects(runs))
        for group in groups:
            work.group([found.load(config.reading) for found in group], lambda: None)
        return Plan(asker.plan(price), asker.total(price), sum(map(len, groups)))


def _asker(config: InterpretConfig, folder: Path, client: Client | None, spare: Path) -> Asker:
    """One that asks nothing, with the answers that a run would find."""
    if client is not None:
        return Asker(client if isinstance(client, Keeping) else Cached(client, spare), dry=True)
    if config.client is None:
        raise InputError("dry run", "a client whose requests are counted (--client)", "none")
    kept = Path(config.client.cache or folder / ANSWERS)
    settings = replace(config.client, cache=str(kept if (kept / FILE).is_file() else spare))
    return Asker(client_of(settings, builders=PROMPTS), dry=True, able=_assumed(settings))


def _assumed(config: ClientConfig) -> Capabilities | None:
    """What a server can do, where that is found out by asking it: everything that is hoped for."""
    if config.kind != "http" or config.prompt_logprobs != "auto":
        return None
    completion = config.endpoints != "chat"
    return Capabilities(
        config.endpoints != "completions", completion, completion, True, True, False, config.json_output
    )
