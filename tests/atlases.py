"""Run folders as the package leaves them, made by hand: a comparison of two bases, a study of two layers.

Graphs, exemplars and results go through the package's own writers; no model is run and PyTorch is not loaded.
"""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelens_n2g.comparison.results import EXPLAINERS, GRADED, METRICS, TEXTS, BasisResult, ComparisonResult, UnitResult
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.structure import structure
from saelens_n2g.graphs.structure import summarise as summarise_structures
from saelens_n2g.jobs.artefacts import publishing, write_json, write_text
from saelens_n2g.scoring import Confusion, summarise

STRINGS = {
    0: " the", 1: "The", 2: " of", 3: " in", 4: "\n", 5: " ", 6: " York", 7: " New", 8: "a,b", 9: '"', 10: "<script>",
    11: " Ärger", 12: ":", 13: " or",
}  # fmt: skip
SUBJECT = {
    "model": "toy",
    "n_layers": 4,
    "d_model": 8,
    "bos_id": 0,
    "revision": None,
    "device": "cpu",
    "dtype": "float32",
}


def provenance(seed: int = 0) -> dict[str, Any]:
    config = {"seed": seed, "training": {"alpha": 1e-3}, "dictionary": None, "dictionaries": {}, "run": {"seed": seed}}
    return {"subject": SUBJECT, "corpus": {"fingerprint": "abc"}, "config": config, "versions": {}, "threads": 1}


def some_graph(unit: str, seed: int, shared: dict[str, Any]) -> Graph:
    """A graph of a few paths, with a class, an exception and context."""
    draw = random.Random(f"{unit} {seed}")
    graph = Graph(
        unit, 1.0 + draw.randrange(9) / 4, provenance={**shared, "method": "hand", "drawn": draw.randrange(9)}
    )
    members = graph.add_class(draw.sample(range(14), 3))
    for _ in range(draw.randrange(1, 6)):
        first = draw.choice([members, draw.randrange(14)])
        before = [elements.IGNORE, draw.randrange(14)] if draw.random() < 0.3 else [draw.randrange(14)]
        path = [first, *(before if draw.random() < 0.6 else [])]
        graph.add([(e, draw.randrange(1, 9) / 8) for e in path], draw.choice([0.0, 0.5, 0.75, 1.0]))
    graph.name_tokens(STRINGS.__getitem__)
    return graph


def scores(seed: int, names: tuple[str, ...] = EXPLAINERS) -> dict[str, Any]:
    draw = random.Random(seed)
    metrics = (*METRICS, *GRADED)
    return {e: {t: {m: draw.choice([None, draw.randrange(9) / 8]) for m in metrics} for t in TEXTS} for e in names}


def counts(names: tuple[str, ...] = EXPLAINERS) -> dict[str, Any]:
    return {e: dict.fromkeys(TEXTS, Confusion(1, 2, 3, 4)) for e in names}


def exemplar_file(unit: str, maximum: float, seed: int) -> dict[str, Any]:
    def one(window: int) -> dict[str, Any]:
        draw = random.Random(f"{unit} {seed} {window}")
        ids = [draw.randrange(14) for _ in range(6)]
        activations = [round(draw.random() * maximum, 5) for _ in ids]
        tokens = [STRINGS[token] for token in ids]
        return {"window": window, "document": f"d{window}", "ids": ids, "tokens": tokens, "activations": activations}

    sets = {name: [one(at + i) for i in range(3)] for name, at in (("fit", 0), ("test", 10), ("random", 20))}
    head = {"format": "saelens-n2g/exemplars", "version": 1, "unit": unit, "max_activation": maximum}
    return {**head, "duplicates_left_out": 0, **sets, "provenance": provenance(seed)}


def logits_file(unit: str, seed: int) -> dict[str, Any]:
    """Effects of a unit on the next token."""
    draw = random.Random(f"{unit} {seed} logits")
    values = [round(draw.random(), 3) for _ in range(20)]

    def side(sign: int, some: list[float]) -> list[dict[str, Any]]:
        tokens = [draw.randrange(14) for _ in some]
        return [
            {"id": token, "token": STRINGS[token], "logit": sign * value}
            for token, value in zip(tokens, sorted(some, reverse=True), strict=True)
        ]

    moments = {"deviation": 0.25, "skew": draw.choice([None, 0.5]), "kurtosis": draw.choice([None, 3.5])}
    head = {"format": "saelens-n2g/logits", "version": 1, "unit": unit, "vocabulary": 14, "positions": 6}
    return {**head, "raised": side(1, values[:10]), "lowered": side(-1, values[10:]), **moments, "provenance": {}}


def make_comparison(folder: Path, *, units: int = 5, seed: int = 0, layer: int = 1, first: int = 0) -> Path:
    """A finished comparison of neurons and a dictionary, indices from `first` on."""
    shared = provenance(seed)
    with publishing(folder / "report", {"key": "made by hand"}) as work:
        bases = []
        for name, kind in (("neurons", "mlp_post"), ("sae", "resid_post")):
            found = [_unit(work, f"{layer}.{kind}/{name}/{i}", seed, shared) for i in range(first, first + units)]
            bases.append(_basis(name, f"{layer}.{kind}", tuple(found)))
        result = ComparisonResult(tuple(bases), {"window": 6}, {"d_sae": 64}, shared)
        result.save(work / "results.json")
    return folder


def _unit(work: Path, name: str, seed: int, shared: dict[str, Any]) -> UnitResult:
    graph, stem = some_graph(name, seed, shared), name.replace("/", "_")
    write_json(work / "graphs" / f"{stem}.json", graph.to_dict())
    write_text(work / "graphs" / f"{stem}.svg", graph.to_svg())
    write_text(work / "graphs" / f"{stem}.dot", graph.to_dot())
    write_json(work / "exemplars" / f"{stem}.json", exemplar_file(name, graph.max_activation, seed))
    if not name.endswith("/neurons/1"):  # as in runs of before
        write_json(work / "logits" / f"{stem}.json", logits_file(name, seed))
    index = int(name.rpartition("/")[2])
    return UnitResult(
        index=index,
        name=name,
        max_activation=graph.max_activation,
        fit_firing=10 + index,
        test_firing=3,
        density=0.01 * (index + 1),
        active=0.1,
        nodes=graph.n_nodes,
        paths=graph.n_paths,
        context_paths=graph.n_context_paths,
        structure=structure(graph),
        graph_file=f"graphs/{stem}.json",
        svg_file=f"graphs/{stem}.svg",
        text=graph.to_text(),
        scores=scores(index + seed),
        counts=counts(),
        exemplars=(),
    )


def _basis(name: str, site: str, units: tuple[UnitResult, ...]) -> BasisResult:
    nothing = summarise([], seed=0)
    summary = {e: {t: dict.fromkeys((*METRICS, *GRADED), nothing) for t in TEXTS} for e in EXPLAINERS}
    return BasisResult(
        name=name,
        title=name.title(),
        site=site,
        signs="rectified",
        n_features=64,
        counts={"examined": len(units), "explained": len(units)},
        failures={},
        summary=summary,
        micro=summary,
        share_f1_half={e: dict.fromkeys(TEXTS, nothing) for e in EXPLAINERS},
        graph_nodes=nothing,
        graph_paths=nothing,
        structure=summarise_structures(unit.structure for unit in units),
        facts={"augmenter": None},
        units=units,
    )


def make_study(folder: Path, *, seed: int = 0, layers: tuple[int, ...] = (0, 2), exemplars: bool = True) -> Path:
    """A finished study of neurons and a dictionary; the last unit of every cell has no graph.

    exemplars: whether they are kept, as studies of before did not.
    """
    from saelens_n2g.study.records import Cell
    from saelens_n2g.study.results import StudyResult

    shared, cells = provenance(seed), []
    names = {"neurons": "mlp_post", "tied-R2": "resid_post"}
    for layer in layers:
        for name, kind in names.items():
            place = folder / "layers" / f"{layer:02d}" / name
            with publishing(place, {"key": "made by hand"}) as work:
                cell = _cell(layer, name, kind, seed, shared, work, exemplars)
                write_json(work / "cell.json", asdict(cell))
            assert isinstance(cell, Cell)
            cells.append(cell)
    protocol = {"names": list(names), "layers": list(layers), "bootstrap_seed": 0, "caliper": 0.25}
    protocol |= {"exemplar_caliper": 4}
    with publishing(folder / "report", {"key": "made by hand"}) as work:
        described = {"tied-R2": {str(layer): {"d_sae": 64} for layer in layers}}
        StudyResult(tuple(cells), protocol, described, shared).save(work / "results.json")
    return folder


def _cell(layer: int, name: str, kind: str, seed: int, shared: dict[str, Any], work: Path, exemplars: bool) -> Any:
    from saelens_n2g.study.records import Cell, UnitRecord

    units = []
    for index in (3, 8, 21):
        unit, failed = f"{layer}.{kind}/{name}/{index}", index == 21
        graph = some_graph(unit, seed, shared)
        if not failed:
            write_json(work / "graphs" / f"{unit.replace('/', '_')}.json", graph.to_dict())
        if exemplars:
            write_json(work / "exemplars" / f"{unit.replace('/', '_')}.json", exemplar_file(unit, 2.0, seed))
        if name != "neurons":
            write_json(work / "logits" / f"{unit.replace('/', '_')}.json", logits_file(unit, seed))
        units.append(
            UnitRecord(
                name=unit,
                index=index,
                max_activation=2.0,
                density=0.01,
                active=0.1,
                massive=0.0,
                spread=None,
                fit_firing=12,
                test_firing=4,
                exemplars=5,
                nodes=None if failed else graph.n_nodes,
                paths=None if failed else graph.n_paths,
                failure="unit: expected a graph, found none" if failed else None,
                twin=None,
                shuffled_from=None,
                text="(never fires)" if failed else graph.to_text(),
                scores=scores(index),
                counts=counts(),
                fragments={},
                nonzero=None,
            )
        )
    more = {"twins": None, "massive_tokens": 0.0, "massive_square": 0.0, "facts": {"costs": {"calls": layer}}}
    more["facts"]["logits"] = {"vocabulary": 14, "positions": 6, "missing": MISSING if name == "neurons" else None}
    head = {"layer": layer, "basis": name, "title": name, "site": f"{layer}.{kind}", "n_features": 64}
    return Cell(**head, signs="rectified", counts={"examined": 3}, **more, units=tuple(units))


MISSING = (
    "direct effects at MLP of layer 0: expected a block that adds its outputs to the stream as they are, found not"
)
"""Why units of the study's neurons have no effects."""
SPECIAL = "<s>"
"""A special token of the tokenizer below, as text."""


def tokenizer_json(folder: Path) -> Path:
    """A tokenizer of the graphs above, as a tokenizer.json: `STRINGS`, letters, and what is neither (SentencePiece's
    unigram model without its underlines)."""
    from tokenizers import Tokenizer, models

    letters = [chr(code) for code in range(33, 127) if chr(code) not in STRINGS.values()]
    pieces = [*STRINGS.values(), "<unk>", *letters]
    built = Tokenizer(models.Unigram([(piece, -float(len(piece) == 1)) for piece in pieces], unk_id=len(STRINGS)))
    built.add_special_tokens([SPECIAL])
    built.enable_truncation(3)
    built.enable_padding(length=5)
    built.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
