"""What an interpretation found goes to the units that a store has: sentences beside graphs, in the body `explanation`.

    if is_interpretation(folder):
        tell(folder, writer)            # after the runs whose units it is about

An interpretation brings no units of its own. It is told anew each time, which costs nothing where nothing has changed:
a unit that was collected again since has lost its sentences.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import COMMIT, read_json, require, sha256_of
from saelens_n2g.store.records import SourceFacts
from saelens_n2g.store.services import index_of
from saelens_n2g.store.writer import Writer

FORMAT = "saelens-n2g/interpretation"
BATCH = 128
"""Units that are written together."""
SERVICE = "explanation"
Place = tuple[str, int, int]
"""Basis, layer, index."""


class Told(NamedTuple):
    """What `tell` did."""

    models: tuple[str, ...]
    new: int
    """Units whose body changed."""
    known: int
    """Units that had all of it."""


def is_interpretation(folder: Path) -> bool:
    """Whether a folder is that of an interpretation. Raises `ArtefactError` for results that are damaged."""
    path = folder / "report" / "results.json"
    if not path.is_file():
        return False
    value = read_json(path)
    return isinstance(value, dict) and value.get("format") == FORMAT


def tell(folder: Path, writer: Writer, *, model: str | None = None, rename: Mapping[str, str] | None = None) -> Told:
    """Add what an interpretation found to the units in the store. model, rename: as for the runs it is about.

    Raises `InputError` where a unit is not in the store, `ArtefactError` for an unfinished or damaged folder; then
    nothing is written.
    """
    from saelens_n2g.autointerp.results import Interpretation

    report = folder / "report"
    require(report, "report")
    found = Interpretation.load(report / "results.json")
    entries = _entries(found)
    names = {run: _model(found, run, model) for run in dict.fromkeys(run for run, _ in entries)}
    known = {name: _places(writer, name) for name in dict.fromkeys(names.values())}
    by_number: dict[int, list[dict[str, Any]]] = {}
    missing = []
    for (run, unit), several in entries.items():
        number = known[names[run]].get(_place(unit, rename or {}))
        if number is None:
            missing.append(unit)
        else:
            by_number.setdefault(number, []).extend(several)  # two runs may have one neuron: the later one counts
    if missing:
        found_there = (
            f"{len(missing)} of {len(entries)} missing, such as {missing[0]}; collect {', '.join(names)} first"
        )
        raise InputError(f"interpretation {folder}", "units that are in the store", found_there)
    changed = _write(writer, folder, found.provenance, by_number)
    return Told(tuple(known), changed, len(by_number) - changed)


def _model(found: Any, run: str, given: str | None) -> str:
    """The model's name in the store. Raises `ArtefactError` where the interpretation does not say it."""
    about = found.provenance["runs"].get(run, {}).get("subject") or {}
    name = given or about.get("model")
    if not isinstance(name, str):
        raise ArtefactError(f"interpretation of {run}", "the name of its model", repr(name))
    return name


def _places(writer: Writer, model: str) -> dict[Place, int]:
    return {(basis, layer, index): number for number, basis, layer, index in writer.units_of(model)}


def _place(unit: str, rename: Mapping[str, str]) -> Place:
    """Where `LAYER.KIND/BASIS/INDEX` is."""
    site, basis, _ = unit.split("/")
    return rename.get(basis, basis), int(site.partition(".")[0]), index_of(unit)


def _entries(found: Any) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(run, unit) -> its entries of `explanations`: one for each way, and for each sentence that nobody read."""
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    said = {(name, one.run, one.unit): one for name, several in found.sentences.items() for one in several}
    for way, several in found.outcomes.items():
        verdict = found.validity(way).verdict
        for one in several:
            sentence = said.get((way.explainer, one.run, one.unit))
            entry = _entry(way.explainer or way.simulator, sentence, one.status, one.reason)
            entry["simulator"] = None if way.explainer is None else way.simulator
            entry["simulated"] = None if one.judged is None else _scores(one, verdict)
            entries.setdefault((one.run, one.unit), []).append(entry)
    read = {way.explainer for way in found.outcomes}
    for (name, run, unit), one in said.items():
        if name not in read:
            entry = {**_entry(name, one, one.status, one.reason), "simulator": None, "simulated": None}
            entries.setdefault((run, unit), []).append(entry)
    for way, asked in found.asked.items():
        verdict = found.asked_validity(way).verdict
        for answered in asked:
            for entry in entries[answered.run, answered.unit]:
                if entry["explainer"] == way.explainer:
                    entry.setdefault("told", {})[way.simulator] = _told(answered, verdict)
    return entries


def _told(one: Any, validity: str) -> dict[str, Any]:
    """What a scorer found of a unit's sentence and of its controls, as JSON values."""
    value = one.as_json()
    controls = {name: found for name, found in value["controls"].items() if not isinstance(found, str)}
    kept = {name: value[name] for name in ("status", "reason", "answers")}
    return {**kept, "controls": controls, "validity": validity}


def _entry(explainer: str, sentence: Any, status: str, reason: str) -> dict[str, Any]:
    """`scores` and `counts` stay empty: they are of other texts."""
    text = None if sentence is None else sentence.text
    return {"explainer": explainer, "text": text, "status": status, "reason": reason, "scores": {}, "counts": {}}


def _scores(one: Any, validity: str) -> dict[str, Any]:
    """The scores of a unit under a way, and of its controls, as JSON values."""
    controls = {name: _values(c.sets) for name, c in one.controls.items() if not isinstance(c, str)}
    judged = one.judged
    return {
        "sets": _values(judged.sets),
        "controls": {**controls, "shuffled": _values(judged.shuffled)},
        "detection": judged.detection._asdict(),
        "fuzzing": judged.fuzzing._asdict(),
        "validity": validity,
    }


def _values(sets: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    return {name: dict(one.values) for name, one in sets.items()}


def _write(
    writer: Writer, folder: Path, provenance: Mapping[str, Any], entries: Mapping[int, list[dict[str, Any]]]
) -> int:
    """Merge entries into bodies, a batch at a time; how many bodies changed."""
    changed = 0
    checksum, total = sha256_of(folder / "report" / COMMIT), len(entries)
    facts = SourceFacts(
        checksum=checksum, name=folder.name, kind="interpretation", total=total, provenance=dict(provenance)
    )
    with writer.batch():
        source = writer.source(facts)
    for several in _batches(sorted(entries)):
        with writer.batch():
            for number in several:
                told = [{**entry, "source": source.id} for entry in entries[number]]
                changed += writer.replace(number, SERVICE, merged(writer.body(number, SERVICE).json(), told))
    with writer.batch():
        writer.progress(source, total)
    return changed


def _batches(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH))


def merged(body: Mapping[str, Any], told: list[dict[str, Any]]) -> dict[str, Any]:
    """A body `explanation` with entries of an interpretation in it, in place of those by the same names.

    What a graph is worth by itself goes to the graph's own entry. `explanation` and `score` become those of the best
    sentence by correlation on strong and random excerpts, of the ways that are valid; without any they stay the
    graph's.
    """
    new = {_name(entry): entry for entry in told}
    entries = []
    for entry in body["explanations"]:
        if "source" not in entry and _name(entry) in new:  # the run's own: its text and scores stay
            own = new.pop(_name(entry))
            entry = {**entry, "simulated": own["simulated"], "simulated_source": own["source"]}
        if _name(entry) not in new:
            entries.append(entry)
    entries += new.values()
    graph = next((entry for entry in entries if entry["explainer"] == "graph"), None)
    text = body["explanation"] if graph is None else graph["text"]
    score = body["score"] if graph is None else (graph["scores"].get("random") or {}).get("correlation")
    best = max(filter(_said, entries), key=_worth, default=None)
    if best is not None:
        text, score = best["text"], _worth(best)
    return {"explanation": text, "score": score, "explanations": entries}


def _name(entry: Mapping[str, Any]) -> tuple[str, str | None]:
    return entry["explainer"], entry.get("simulator")


def _said(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a sentence with a score that may be believed."""
    simulated = entry.get("simulated")
    if not (entry.get("simulator") and entry["text"] and simulated and simulated["validity"] == "valid"):
        return False
    return simulated["sets"]["top_and_random"]["correlation"] is not None


def _worth(entry: Mapping[str, Any]) -> float:
    return float(entry["simulated"]["sets"]["top_and_random"]["correlation"])
