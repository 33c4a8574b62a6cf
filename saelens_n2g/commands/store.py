"""The store from the command line: collect runs into it, search it, run its graphs over text, look for damage."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Reporter


def collect(
    runs: Sequence[Path],
    store: Path,
    reporter: Reporter,
    *,
    model: str | None = None,
    rename: Sequence[str] = (),
    again: bool = False,
    similar: bool = True,
    tokenizer: str | None = None,
) -> list[str]:
    """Import finished comparisons, studies and imports, and what interpretations say of their units; a line for each.
    Then similar units are found, unless told not to, graphs are compiled and the model's tokenizer is stored, so that
    text can be pasted.

    rename: `NAME=OTHER` for bases. tokenizer: a `tokenizer.json` or a model; None for that of the model itself, where
    it can be loaded, `NO_TOKENIZER` for none. Raises `InputError` and `ArtefactError` as `saelens_n2g.store.collect`.
    """
    from saelens_n2g.store.collect import collect as import_run
    from saelens_n2g.store.collect import connect
    from saelens_n2g.store.programs import compile_graphs
    from saelens_n2g.store.words import is_interpretation, tell
    from saelens_n2g.store.writer import Writer

    names = dict(_renamed(one) for one in rename)
    said: list[str] = []
    models: list[str] = []
    with Writer(store) as writer:
        for run in sorted(runs, key=is_interpretation):  # they are about units of the others
            if is_interpretation(run):
                told = tell(run, writer, model=model, rename=names)
                models += told.models
                said.append(f"{run}: {told.new} units told, {told.known} had it")
                continue
            with reporter.stage(f"collect {run}", "units") as tick:
                found = import_run(run, writer, model=model, rename=names, again=again, tick=tick)
            models += found.models
            known = f", {found.known} were there" if found.known else ""
            said.append(f"{run}: {found.new} units collected{known}")
        for name in dict.fromkeys(models if similar else []):
            with reporter.stage(f"similar units of {name}", "units") as tick:
                connect(writer, name, tick=tick)
        for name in dict.fromkeys(models):
            with reporter.stage(f"compile graphs of {name}", "units") as tick:
                compile_graphs(writer, name, tick=tick)
            said += _tokenizer(writer, name, tokenizer)
    return [*said, f"store: {store}"]


NO_TOKENIZER = "none"
"""Stands for no tokenizer."""
SHOWN = 120
"""Letters of a library's reason."""


def _tokenizer(writer: Any, model: str, name: str | None) -> list[str]:
    """Store the tokenizer of a model; a line if none can be had. Raises `InputError` for one that was asked for."""
    from saelens_n2g.store.tokenizer import keep_tokenizer

    if name == NO_TOKENIZER:
        return []
    try:
        keep_tokenizer(writer, model, name)
    except InputError as error:
        if name is not None:
            raise
        reason = f"{error.thing}: {error.found[:SHOWN]}"
        return [f"{model}: no text can be matched until --tokenizer says which tokenizer it has ({reason})"]
    return []


def _renamed(option: str) -> tuple[str, str]:
    name, sign, other = option.partition("=")
    if not (name and sign and other):
        raise InputError("option rename", "NAME=OTHER, such as sae=sae-R4", repr(option))
    return name, other


def search(
    query: str,
    store: Path,
    *,
    model: str | None = None,
    sort: str = "strength",
    limit: int = 20,
    offset: int = 0,
    as_json: bool = False,
) -> list[str]:
    """Units that name tokens as the query says, a line each, and how many there are; or all of it as JSON.

    Raises `InputError` for a query that cannot be read.
    """
    from saelens_n2g.graphs.labels import one_line
    from saelens_n2g.store.reader import Store

    with Store.open(store) as opened:
        found = opened.search(query, model=model, sort=sort, limit=limit, offset=offset)
        if as_json:
            rows = [
                {**_address(hit.unit), "strength": hit.strength, "f1": hit.unit.figures["f1"]} for hit in found.hits
            ]
            return [json.dumps({"total": found.total, "units": rows}, ensure_ascii=False)]
        lines = []
        for hit in found.hits:
            unit, said = hit.unit, opened.body(hit.unit.id, "explanation")
            text = "" if said is None else said.json()["explanation"].partition("\n")[0]
            f1 = unit.figures["f1"]
            score = "F1  -  " if f1 is None else f"F1 {f1:.2f}"
            place = f"{unit.model} {unit.basis}/{unit.layer}/{unit.index}"
            lines.append(one_line(f"{hit.strength:.2f}  {score}  {place}  {text}"))
    shown = f", {offset + 1} to {offset + len(found.hits)} shown" if len(found.hits) < found.total else ""
    return [*lines, f"{found.total} units{shown if found.hits else ''}"]


def _address(unit: Any) -> dict[str, Any]:
    return {"model": unit.model, "basis": unit.basis, "layer": unit.layer, "neuron": unit.index}


def match(
    text: str,
    store: Path,
    *,
    model: str | None = None,
    bases: Sequence[str] = (),
    layers: Sequence[int] = (),
    sort: str = "activation",
    limit: int = 20,
    offset: int = 0,
    as_json: bool = False,
) -> list[str]:
    """Units whose graphs say that they fire in a text, a line each with the path that says most, and how many there
    are; or all of it as JSON. bases, layers: none for all.

    Raises `InputError` for text that cannot be matched, and where there are several models and none is named.
    """
    from saelens_n2g.graphs.labels import one_line
    from saelens_n2g.store.match import Matcher
    from saelens_n2g.store.reader import Store

    with Store.open(store) as opened:
        if model is None:
            names = [one.name for one in opened.models()]
            if len(names) != 1:
                raise InputError("option model", f"one of {', '.join(names) or '(none)'}", "none")
            (model,) = names
        found = Matcher(opened).match(
            model, text, bases=bases or None, layers=layers or None, sort=sort, limit=limit, offset=offset
        )
    if as_json:
        return [json.dumps(found.to_dict(), ensure_ascii=False)]
    lines = []
    for firing in found.firings:
        unit, best = firing.unit, max(firing.matches, key=lambda one: one.activation)
        assert best.path is not None
        place = f"{unit.model} {unit.basis}/{unit.layer}/{unit.index}"
        path = "".join(element.text for element in best.path[:-1]) + f"[{best.path[-1].text}]"
        more = f" and at {firing.fires - 1} more" if firing.fires > 1 else ""
        lines.append(one_line(f"{firing.activation:.2f}  {place}  {path}  at {best.position}{more}"))
    if found.skipped:
        layers_there = ", ".join(f"{one.basis} at {one.layer}" for one in found.skipped)
        lines.append(one_line(f"not compiled, so not run: {layers_there}; `saelens-n2g collect` compiles them"))
    shown = f", {offset + 1} to {offset + len(found.firings)} shown" if len(found.firings) < found.total else ""
    fire = f"{found.total} of {found.graphs} units fire in {len(found.text.ids)} tokens"
    return [*lines, f"{fire}{shown if found.firings else ''}"]


def verify(store: Path) -> str:
    """One line that says that all is well. Raises `ArtefactError` with what is not."""
    from saelens_n2g.store.reader import Store

    with Store.open(store) as opened:
        findings = opened.verify()
        if findings:
            more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
            raise ArtefactError(f"store {store}", "a store without damage", "; ".join(findings[:3]) + more)
        units = sum(layer.units for layer in opened.layers())
    return f"{store}: {units} units, no damage"
