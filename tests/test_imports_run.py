"""Published exemplars on their whole road: aligned, checked against the model, fitted, scored, stored, served again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published import (
    LAYER,
    neuronpedia_feature,
    neuronpedia_lines,
    neuroscope,
    openai_record,
    strongest,
    windows,
    write_delphi,
    write_json_lines,
)
from tiny import HIDDEN, MLP, WIDTH, PlainModel

from saelens_n2g import cli
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.causal.effects import direct_effects, final_streams
from saelens_n2g.commands.imports import import_files
from saelens_n2g.comparison.config import RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.fitting import mask_id
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.evidence import Evidence
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import find_method
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.imports import agreement, explain, run
from saelens_n2g.imports.config import ImportConfig
from saelens_n2g.imports.results import EXPLAINERS, ImportedUnit
from saelens_n2g.imports.run import import_units
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.progress import Reporter
from saelens_n2g.scoring import FiringScores, confusion, firing
from saelens_n2g.sites import Site
from saelens_n2g.store.collect import collect
from saelens_n2g.store.reader import Store
from saelens_n2g.store.runs import parts
from saelens_n2g.store.writer import Writer
from saelens_n2g.subject import Subject

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("one_thread")]
UNITS = (3, 5, 8)
SITE = Site(LAYER, "mlp_post")
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def model(tiny_model) -> PlainModel:
    return PlainModel(tiny_model)


@pytest.fixture(scope="module")
def found(model):
    return windows(model)


@pytest.fixture(scope="module")
def subject(tiny_model) -> Subject:
    return Subject.load(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def config(tiny_model) -> ImportConfig:
    settings = RunConfig(
        subject=SubjectConfig(model=str(tiny_model), device="cpu"),
        text=TextConfig(corpus="none", width=2),
        layer=LAYER,
        bases=("neurons",),
        exemplars=6,
        method="suffix",
    )
    return ImportConfig(run=settings)


@pytest.fixture(scope="module")
def scope_file(found, tmp_path_factory) -> Path:
    """Neuroscope's JSON of some neurons."""
    path = tmp_path_factory.mktemp("published") / "scope.jsonl"
    return write_json_lines(path, [neuroscope(strongest(found, unit), unit) for unit in UNITS])


@pytest.fixture(scope="module")
def imported(scope_file, config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "run"
    import_units([scope_file], config, folder, QUIET)
    return folder


def graphs_in(folder: Path) -> dict[str, dict]:
    """Graphs without their provenance."""
    out = {}
    for path in sorted((folder / "report" / "graphs").glob("*.json")):
        out[path.name] = {k: v for k, v in read_json(path).items() if k != "provenance"}
    return out


def results(folder: Path) -> dict:
    return read_json(folder / "report" / "results.json")


def exemplars_of(folder: Path, unit: int) -> dict[str, list[Exemplar]]:
    value = read_json(folder / "report" / "exemplars" / f"{LAYER}.mlp_post_neurons_{unit}.json")
    return {
        side: [Exemplar(tuple(e["ids"]), np.array(e["activations"], dtype=np.float32)) for e in value[side]]
        for side in ("fit", "test")
    }


# --- what comes out -----------------------------------------------------------------------------------------------


def test_the_graph_is_that_of_the_windows_themselves(imported, found, subject):
    """Fitted here from the model's own activations on the fit windows, without any file in between."""
    method, fits = find_method("suffix"), {}
    ends = {t for t in range(subject.d_vocab) if any(mark in subject.string(t) for mark in ".!?\n")}
    context = FitContext(mask_id(subject, "auto"), ends.__contains__, subject.string, provenance={})
    for unit in UNITS:
        truth = {tuple(w.ids): np.maximum(w.neurons[:, unit], 0) for w in found}
        shown = exemplars_of(imported, unit)["fit"]
        fit = [Exemplar(e.tokens, truth[e.tokens]) for e in shown]
        assert len(fit) == 6
        for e, true in zip(shown, fit, strict=True):
            np.testing.assert_allclose(e.activations, true.activations, atol=1e-5)
        evidence = Evidence(max(float(e.activations.max()) for e in fit), fit)
        fits[unit] = method.fit(f"{SITE}/neurons/{unit}", evidence, context)
    graphs = Oracle(subject, NeuronBasis(SITE, MLP)).run(fits)
    for unit, graph in graphs.items():
        assert isinstance(graph, Graph)
        expected = {k: v for k, v in json.loads(json.dumps(graph.to_dict())).items() if k != "provenance"}
        assert graphs_in(imported)[f"{LAYER}.mlp_post_neurons_{unit}.json"] == expected


def test_logit_effects_are_taken_about_the_published_fit_texts(imported, subject):
    """There need be no other text; BOS goes before each, as it does everywhere."""
    rows = [[0, *e.tokens] for unit in UNITS for e in exemplars_of(imported, unit)["fit"]]
    tokens, lengths = np.ones((len(rows), max(map(len, rows))), dtype=np.int32), [len(row) for row in rows]
    for at, row in zip(tokens, rows, strict=True):
        at[: len(row)] = row
    lengths_of = np.array(lengths, dtype=np.int32)
    windows = Windows(tokens, lengths_of, np.zeros_like(lengths_of), ("x",), subject.bos_id, "x")
    streams = final_streams(subject, windows)
    for unit, effect in zip(UNITS, direct_effects(subject, NeuronBasis(SITE, MLP), UNITS, streams), strict=True):
        stored = read_json(imported / "report" / "logits" / f"{LAYER}.mlp_post_neurons_{unit}.json")
        for side, pairs in (("raised", effect.raised), ("lowered", effect.lowered)):
            assert [one["id"] for one in stored[side]] == [token for token, _ in pairs]
            assert [one["logit"] for one in stored[side]] == pytest.approx([value for _, value in pairs], rel=1e-4)
        assert stored["positions"] == len(streams)


def test_windows_are_split_and_scores_are_those_of_the_held_out_ones(imported):
    for unit in results(imported)["bases"][0]["units"]:
        sides = exemplars_of(imported, unit["index"])
        assert [len(side) for side in sides.values()] == [6, 6]
        assert not {e.tokens for e in sides["fit"]} & {e.tokens for e in sides["test"]}
        graph = Graph.from_dict(read_json(imported / "report" / unit["graph_file"]))
        actual = np.concatenate([e.activations for e in sides["test"]]) / unit["max_activation"]
        predicted = np.concatenate([graph.predict(e.tokens) for e in sides["test"]])
        counts = confusion(firing(actual, 0.5), firing(predicted, 0.5))
        assert unit["counts"]["graph"]["held_out"] == list(counts)
        assert unit["scores"]["graph"]["held_out"]["f1"] == FiringScores.from_confusion(counts).f1
        assert set(unit["scores"]) == set(EXPLAINERS)
        assert set(unit["scores"]["graph"]) == {"held_out"}
        assert unit["density"] is None


def test_the_model_agrees_with_what_it_did(imported):
    for unit in results(imported)["bases"][0]["units"]:
        found = unit["agreement"]
        assert found["texts"] == agreement.SAMPLE
        assert found["correlation"] == pytest.approx(1.0, abs=1e-5)
        assert found["scale"] == pytest.approx(1.0, abs=1e-4)
        assert found["largest_difference"] < 1e-4
        assert found["model_max"] == pytest.approx(unit["published_max"], rel=1e-4)


def test_files_and_texts_are_accounted_for(imported, scope_file):
    value = results(imported)
    (basis,) = value["bases"]
    (file,) = value["files"]
    assert (file["name"], file["format"], file["records"]) == (scope_file.name, "neuroscope", len(UNITS))
    n = basis["counts"]
    assert n["examined"] == n["explained"] == len(UNITS)
    assert n["texts"] == file["texts"] == n["exact"]
    assert n["texts"] == sum(n[k] for k in ("too_long", "silent", "duplicates", "beyond", "fit", "test"))
    assert value["provenance"]["corpus"]["files"][0]["sha256"] == file["sha256"]
    assert value["provenance"]["config"]["text"] is None
    assert ImportedUnit.from_json(basis["units"][0]).name == f"{SITE}/neurons/{UNITS[0]}"


def test_every_format_gives_the_same_graphs(found, imported, config, tmp_path):
    """The split knows the texts alone. delphi's cache is rounded, and holds all windows."""
    tops = {unit: strongest(found, unit) for unit in UNITS}
    lines = [line for unit in UNITS for line in neuronpedia_lines(tops[unit], unit)]
    made = [
        write_json_lines(tmp_path / "batch-0.jsonl.gz", lines[::-1]),
        write_json_lines(tmp_path / "features", [[neuronpedia_feature(tops[unit], unit) for unit in UNITS]]),
        write_json_lines(tmp_path / "records", [openai_record(tops[unit], unit) for unit in UNITS]),
    ]
    for path in made:
        import_units([path], config, tmp_path / f"run-{path.name}", QUIET)
        assert graphs_in(tmp_path / f"run-{path.name}") == graphs_in(imported), path
    cache = write_delphi(tmp_path / "cache", found, UNITS)
    import_units([cache.parent], config, tmp_path / "run-cache", QUIET)
    assert graphs_in(tmp_path / "run-cache").keys() == graphs_in(imported).keys()
    assert results(tmp_path / "run-cache")["bases"][0]["source"] == f"model.layers.{LAYER}.mlp"


def test_the_same_import_gives_the_same_bytes(scope_file, imported, config, tmp_path):
    import_units([scope_file], config, tmp_path / "again", QUIET)
    for path in sorted((imported / "report").rglob("*")):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "again" / "report" / path.relative_to(imported / "report")).read_bytes()
            )


def test_all_methods_can_be_used(scope_file, config, tmp_path):
    for method in ("paper", "refined"):
        one = replace(config, run=replace(config.run, method=method, augmenter="subject"), units=1)
        import_units([scope_file], one, tmp_path / method, QUIET)
        assert len(graphs_in(tmp_path / method)) == 1


# --- a text of one's own ------------------------------------------------------------------------------------------


def test_graphs_are_scored_on_a_text_too(scope_file, imported, config, tiny_corpus, model, tmp_path):
    text = TextConfig(corpus=str(tiny_corpus), tokens=1500, width=WIDTH)
    import_units([scope_file], replace(config, scored=True, run=replace(config.run, text=text)), tmp_path, QUIET)
    assert graphs_in(tmp_path) == graphs_in(imported)
    from saelens_n2g.corpus import Windows

    kept = Windows.load(tmp_path / "text")
    rows = [row[1:n].tolist() for row, n in zip(kept.tokens, kept.lengths, strict=True)]
    neurons = [model.run(row, LAYER)[0] for row in rows]
    for unit in results(tmp_path)["bases"][0]["units"]:
        share = np.concatenate([x[:, unit["index"]] for x in neurons]).clip(min=0) / unit["max_activation"]
        graph = Graph.from_dict(read_json(tmp_path / "report" / unit["graph_file"]))
        predicted = np.concatenate([graph.predict(row) for row in rows])
        near = np.abs(share - 0.5) < 1e-4
        assert not near.any(), "a token on the edge decides nothing here"
        assert unit["counts"]["graph"]["random"] == list(confusion(share >= 0.5, predicted >= 0.5))
        assert unit["density"] == pytest.approx((share >= 0.5).mean())
        assert unit["active"] == pytest.approx((share > 0).mean())
    assert not (tmp_path / "activations").exists()


# --- the model does not agree -------------------------------------------------------------------------------------


def other_layer(found, path: Path) -> Path:
    return write_json_lines(path, [neuroscope(strongest(found, u), u, layer=LAYER + 1) for u in UNITS])


def test_exemplars_of_another_layer_are_refused(found, config, tmp_path):
    path = other_layer(found, tmp_path / "x")
    with pytest.raises(InputError, match=r"agreement on 0 of 3 units.*correlation") as error:
        import_units([path], config, tmp_path / "run", QUIET)
    assert f"{LAYER + 1}.mlp_post" in str(error.value)
    assert "--unchecked" in str(error.value)
    assert not (tmp_path / "run" / "report").exists()
    import_units([path], replace(config, unchecked=True), tmp_path / "run", QUIET)
    (basis,) = results(tmp_path / "run")["bases"]
    assert basis["counts"]["examined"] == 3
    assert all(unit["agreement"]["correlation"] < 0.9 for unit in basis["units"])
    assert not any("what the model does" in reason for reason in basis["failures"].values())
    import_units([path], replace(config, layer=LAYER), tmp_path / "right", QUIET)
    assert len(graphs_in(tmp_path / "right")) == 3


def test_activations_on_another_scale_are_refused(found, config, tmp_path):
    value = neuroscope(strongest(found, 5), 5)
    for one in value["data"]["texts"]:
        one["activations"] = [3 * a for a in one["activations"]]
    with pytest.raises(InputError, match=r"correlation 1\.000, factor 0\.333"):
        import_units([write_json_lines(tmp_path / "x", [value])], config, tmp_path / "run", QUIET)


def test_one_unit_that_differs_stops_no_other(found, config, tmp_path):
    lines = [neuroscope(strongest(found, unit), unit) for unit in UNITS]
    lines[1]["data"]["neuron_index"]["neuron"] = 20
    lines.append(neuroscope(strongest(found, 30, 1), 30))
    import_units([write_json_lines(tmp_path / "x", lines)], config, tmp_path / "run", QUIET)
    (basis,) = results(tmp_path / "run")["bases"]
    assert [unit["index"] for unit in basis["units"]] == [3, 8]
    assert set(basis["failures"]) == {f"{SITE}/neurons/20", f"{SITE}/neurons/30"}
    assert "what the model does there" in basis["failures"][f"{SITE}/neurons/20"]
    assert "1 of 1" in basis["failures"][f"{SITE}/neurons/30"]
    assert (basis["counts"]["examined"], basis["counts"]["failed"]) == (4, 2)
    assert "20" in (tmp_path / "run" / "report" / "import.md").read_text()


def test_units_and_layers_that_the_model_lacks_are_named(found, config, tmp_path):
    for change in ({"neuron": 4000}, {"layer": 9}):
        value = neuroscope(strongest(found, 5), 5)
        value["data"]["neuron_index"] |= change
        with pytest.raises(InputError, match="0 to"):
            import_units([write_json_lines(tmp_path / "x", [value])], config, tmp_path / "run", QUIET)


def test_texts_longer_than_the_model_takes_are_counted(found, config, tmp_path):
    value = neuroscope(strongest(found, 5), 5)
    one = value["data"]["texts"][0]
    one["tokens"], one["activations"] = one["tokens"][1:] * 6, one["activations"][1:] * 6
    import_units([write_json_lines(tmp_path / "x", [value])], config, tmp_path / "run", QUIET)
    assert results(tmp_path / "run")["bases"][0]["counts"]["too_long"] == 1


# --- features of a dictionary -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory) -> Path:
    draw = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(12, HIDDEN, generator=draw), dim=1)
    one = Dictionary(rows.T.contiguous(), torch.full((12,), -0.2), rows, torch.zeros(HIDDEN))
    about = SaeMetadata(
        model_name="tiny", hook_name=f"blocks.{LAYER}.hook_resid_post", context_size=WIDTH, prepend_bos=True
    )
    folder = tmp_path_factory.mktemp("dictionary") / "sae"
    save_saelens(folder, one, about)
    return folder


def features(model: PlainModel, folder: Path, found: Sequence, index: int) -> list[dict]:
    from safetensors.torch import load_file

    weights = load_file(folder / "sae_weights.safetensors")
    lines = []
    for w in found:
        stream = torch.from_numpy(model.run(w.ids, LAYER)[1])
        acts = torch.relu(stream @ weights["W_enc"][:, index] + weights["b_enc"][index])
        lines.append({"modelId": "tiny", "layer": f"{LAYER}-res-12", "index": str(index), "tokens": w.strings})
        lines[-1]["values"] = acts.tolist()
    return lines


def test_features_of_a_dictionary_are_imported(found, model, dictionary, tiny_model, tmp_path):
    lines = [line for index in (2, 7) for line in features(model, dictionary, found, index)]
    path = write_json_lines(tmp_path / "batch-0.jsonl.gz", lines)
    options = {"model": str(tiny_model), "device": "cpu", "method": "suffix", "dictionary": str(dictionary)}
    said = import_files([path], tmp_path / "run", QUIET, **options)
    assert f"{LAYER}.resid_post/sae/7" in said
    value = results(tmp_path / "run")
    assert [unit["agreement"]["correlation"] for unit in value["bases"][0]["units"]] == pytest.approx(
        [1.0, 1.0], abs=1e-4
    )
    assert set(value["dictionary"]) >= {"cfg.json", "sae_weights.safetensors"}
    more = [line for line in lines if line["index"] == "7"]
    for line in more:
        line["values"] = [a * (1 + 1e-6) for a in line["values"]]
    import_files([write_json_lines(tmp_path / "batch-1", more)], tmp_path / "more", QUIET, **options)
    with Writer(tmp_path / "atlas.db") as writer:  # one dictionary, whatever the file its units come from
        assert [collect(tmp_path / name, writer).new for name in ("run", "more")] == [2, 1]
    wrong = write_json_lines(tmp_path / "y", [{**line, "layer": "2-res-12"} for line in lines])
    with pytest.raises(InputError, match=rf"expected {LAYER}, found \[2\]"):
        import_files([wrong], tmp_path / "run2", QUIET, **options)
    swapped = write_json_lines(
        tmp_path / "z", [{**line, "index": {"2": "7", "7": "2"}[line["index"]]} for line in lines]
    )
    with pytest.raises(InputError, match="dictionary or BOS"):
        import_files([swapped], tmp_path / "run3", QUIET, **options)


# --- interrupted, finished, damaged -------------------------------------------------------------------------------


def test_an_import_goes_on_where_it_stopped(scope_file, config, tmp_path, monkeypatch):
    monkeypatch.setattr(explain, "PART", 1)
    import_units([scope_file], config, tmp_path / "whole", QUIET)
    real, calls = explain.write_unit, []

    def stopping(*given):
        calls.append(given[1].unit)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(explain, "write_unit", stopping)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        import_units([scope_file], config, folder, QUIET)
    assert len(list((folder / "parts").glob("*/COMMIT.json"))) == 2
    import_units([scope_file], config, folder, QUIET)
    assert len(calls) == 4, "only the third unit was done again"
    assert graphs_in(folder) == graphs_in(tmp_path / "whole")
    assert not (folder / "parts").exists()
    import_units([scope_file], config, folder, QUIET)
    assert len(calls) == 4, "nothing to do"


def test_other_settings_and_other_files_are_other_imports(scope_file, config, tmp_path):
    import_units([scope_file], replace(config, units=2), tmp_path / "run", QUIET)
    before = graphs_in(tmp_path / "run")
    import_units([scope_file], replace(config, units=1), tmp_path / "run", QUIET)
    assert len(before) == 2
    assert len(graphs_in(tmp_path / "run")) == 1


def test_a_damaged_report_is_not_taken_for_finished(scope_file, config, tmp_path):
    report = import_units([scope_file], replace(config, units=1), tmp_path, QUIET)
    (report / "results.json").write_text("{}")
    with pytest.raises(ArtefactError):
        import_units([scope_file], replace(config, units=1), tmp_path, QUIET)


# --- the store ----------------------------------------------------------------------------------------------------


def test_imports_are_collected_with_their_exemplars(imported, tmp_path, tiny_model, scope_file):
    (part,) = parts(imported)
    assert (part.kind, part.total, part.layer.layer) == ("import", len(UNITS), LAYER)
    with Writer(tmp_path / "atlas.db") as writer:
        assert collect(imported, writer).new == len(UNITS)
        assert collect(imported, writer).known == len(UNITS)
    with Store.open(tmp_path / "atlas.db") as store:
        assert store.verify() == []
        unit = store.unit(str(tiny_model), "neurons", LAYER, 5)
        scope = store.body(unit.id, "neuroscope").json()
        assert scope["neuron_index"] == {"layer": LAYER, "neuron": 5}
        assert [text["set"] for text in scope["texts"]] == ["fit"] * 6 + ["test"] * 6
        assert scope["texts"][0]["document"].startswith("scope.jsonl, line 2, text ")
        about = store.body(unit.id, "explanation").json()
        assert about["score"] is None
        assert unit.figures["density"] is None
        assert unit.figures["f1"] == about["explanations"][0]["scores"]["held_out"]["f1"]
        (source,) = store.sources()
        assert source.provenance["corpus"]["files"][0]["name"] == scope_file.name


def test_layers_of_one_import_are_parts_of_their_own(found, model, config, tmp_path):
    deeper = [w._replace(neurons=model.run(w.ids, LAYER + 1)[0]) for w in found]
    lines = [neuroscope(strongest(found, 5), 5), neuroscope(strongest(deeper, 5), 5, layer=LAYER + 1)]
    import_units([write_json_lines(tmp_path / "x", lines)], config, tmp_path / "run", QUIET)
    one, other = parts(tmp_path / "run")
    assert [one.layer.layer, other.layer.layer] == [LAYER, LAYER + 1]
    assert one.checksum != other.checksum
    with Writer(tmp_path / "atlas.db") as writer:
        assert collect(tmp_path / "run", writer).new == 2


def test_what_a_store_serves_can_be_imported_again(imported, config, tmp_path, tiny_model):
    """The round trip: the same windows on the same sides, so the same graphs."""
    with Writer(tmp_path / "atlas.db") as writer:
        collect(imported, writer)
    with Store.open(tmp_path / "atlas.db") as store:
        for unit in UNITS:
            row = store.unit(str(tiny_model), "neurons", LAYER, unit)
            (tmp_path / "served").mkdir(exist_ok=True)
            body = {"data": store.body(row.id, "neuroscope").json(), "metadata": {"name": "tiny"}}
            (tmp_path / "served" / f"{unit}.json").write_text(json.dumps(body))
    import_units([tmp_path / "served"], replace(config, run=replace(config.run, seed=9)), tmp_path / "run", QUIET)
    rounded = graphs_in(imported)
    for name, graph in graphs_in(tmp_path / "run").items():
        assert Graph.from_dict({**graph, "provenance": {}}).to_text() == (
            Graph.from_dict({**rounded[name], "provenance": {}}).to_text()
        )
        assert graph["token_strings"] == rounded[name]["token_strings"]
    for unit in UNITS:
        for side, exemplars in exemplars_of(imported, unit).items():
            again = exemplars_of(tmp_path / "run", unit)[side]
            assert [e.tokens for e in again] == [e.tokens for e in exemplars]
            assert all(np.array_equal(a.activations, b.activations) for a, b in zip(again, exemplars, strict=True))


# --- the command --------------------------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return int(end.value.code or 0)


def test_the_command_imports_and_says_what_it_did(scope_file, tiny_model, tmp_path, capsys):
    out = tmp_path / "run"
    given = ["import", str(scope_file), "--model", str(tiny_model), "--out", str(out), "--method", "suffix", "--quiet"]
    assert command(*given, "--unit", "5", "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "1 of 1 units have a graph" in said
    assert f"written: {out / 'report'}" in said
    assert command(*given, "--layer", "2", "--device", "cpu") == InputError.exit_code
    assert "agreement on 0 of 3 units" in capsys.readouterr().err
    (tmp_path / "broken").write_text('{"data": ')
    given[1] = str(tmp_path / "broken")
    assert command(*given) == ArtefactError.exit_code
    assert "broken" in capsys.readouterr().err


def test_settings_that_make_no_sense_are_refused(config):
    for wrong in ({"test_share": 1.0}, {"units": 0}, {"run": replace(config.run, bases=("pca",))}):
        with pytest.raises(InputError):
            replace(config, **wrong)
    assert run.PARTS == "parts"
