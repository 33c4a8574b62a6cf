"""A run of interpretation: what is computed and kept, what a kill or a failure costs, what is shown and stored."""

import dataclasses
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from atlases import make_comparison, make_study

from saelens_n2g import cli
from saelens_n2g.autointerp import explainers, predictors, simulators, work
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.explainers import Explained
from saelens_n2g.autointerp.page import write_page
from saelens_n2g.autointerp.predictors import Failure, Predicted
from saelens_n2g.autointerp.puzzles import as_list, load_puzzles
from saelens_n2g.autointerp.results import Interpretation, Way
from saelens_n2g.autointerp.run import run_interpretation
from saelens_n2g.autointerp.table import markdown
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Silent
from saelens_n2g.store.reader import Store
from saelens_n2g.store.words import merged, tell
from saelens_n2g.store.writer import Writer


class Fake:
    """A simulator that answers noise which depends on text and excerpt; counts what it is asked; fails when told to."""

    name, settings = "fake", {"version": 1}

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, int] = {}
        """Sentence -> answers that still fail."""

    def simulate(self, explanation, excerpts) -> Predicted:
        self.asked.append(explanation)
        if self.fails.get(explanation, 0):
            self.fails[explanation] -= 1
            return Predicted([Failure("status 429") for _ in excerpts], {"requests": 1})
        seeds = [[len(explanation), *map(ord, explanation[-3:]), *e.ids] for e in excerpts]
        answers = [np.random.default_rng(s).random(len(e.ids)) for s, e in zip(seeds, excerpts, strict=True)]
        return Predicted(answers, {"requests": 1, "tokens_in": sum(len(e.ids) for e in excerpts)})


class Writes:
    """An explainer that says the unit's name, and fails as often as told."""

    name, settings = "names", {}

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, int] = {}

    def explain(self, evidence) -> Explained:
        self.asked.append(evidence.name)
        if self.fails.get(evidence.name, 0):
            self.fails[evidence.name] -= 1
            return Explained(None, "failed", "timeout", {"requests": 1})
        return Explained(f"unit {evidence.name}", costs={"requests": 1})


@pytest.fixture
def fakes(monkeypatch):
    """A simulator `fake` and an explainer `names`, registered for one test."""
    fake, writes = Fake(), Writes()
    assert {"quoted", "embedding"} <= set(simulators.SIMULATORS.names())
    assert "templated" in explainers.EXPLAINERS.names()
    monkeypatch.setitem(simulators.SIMULATORS.makers, "fake", lambda _: fake)
    monkeypatch.setitem(explainers.EXPLAINERS.makers, "names", lambda _: writes)
    return fake, writes


@pytest.fixture
def demo(tmp_path):
    return make_comparison(tmp_path / "demo", units=7)


def config(**more) -> InterpretConfig:
    return InterpretConfig(**{"explainers": ("names",), "simulators": ("graph", "fake"), "excerpts": 3, **more})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what is computed -------------------------------------------------------------------------------------------


def test_every_way_is_scored_on_the_same_units_beside_its_controls(demo, tmp_path, fakes):
    found = run_interpretation(
        [demo], config(simulators=("graph", "table", "backoff", "fake")), tmp_path / "o", Silent()
    )
    assert [way.label for way in found.outcomes] == ["graph", "table", "backoff", "names > fake"]
    names = [[one.unit for one in several] for several in found.outcomes.values()]
    assert names[0] == names[1] == names[2] == names[3]
    assert len(names[0]) == 14
    assert found.groups() == [("neurons", 1), ("sae", 1)]
    for way, several in found.outcomes.items():
        for one in several:
            assert one.status == "scored"
            assert set(one.controls) == {"neutral", "other"}
            assert one.other != one.unit
            assert one.other.rpartition("/")[0] == one.unit.rpartition("/")[0], "of the same basis and layer"
            assert one.judged.sets["top"].excerpts == 3
        donors = {one.other for one in several}
        assert len(donors) == len(several), f"{way}: one to one"
    fake, writes = fakes
    assert len(writes.asked) == 14
    assert fake.asked.count("something") == 14
    assert len(fake.asked) == 3 * 14
    assert found.costs()["requests"] == 14 + 3 * 14
    assert [one.text for one in found.sentences["names"]] == [f"unit {name}" for name in names[0]]


def test_neutral_tables_know_the_other_units_alone(demo, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(work.TokenCounts, "without", lambda self, part: seen.append((self, part)) or self)
    run_interpretation([demo], config(explainers=(), simulators=("table",)), tmp_path / "o", Silent())
    assert len(seen) == 14
    assert len({id(part) for _, part in seen}) == 14


def test_fewer_units_are_among_more(demo, tmp_path, fakes):  # noqa: ARG001
    chosen = [
        {
            o.unit
            for o in run_interpretation([demo], config(units=n), tmp_path / f"{n}", Silent()).outcomes[Way("graph")]
        }
        for n in (1, 3, 100)
    ]
    assert [len(some) for some in chosen] == [2, 6, 14]
    assert chosen[0] < chosen[1] < chosen[2]


def test_a_unit_alone_has_no_other_and_its_way_is_not_shown(demo, tmp_path, fakes):  # noqa: ARG001
    found = run_interpretation([demo], config(units=1), tmp_path / "o", Silent())
    assert [set(one.controls) for one in found.outcomes[Way("graph")]] == [set(), set()]
    assert found.validity(Way("graph")).verdict == "not shown"


def test_a_unit_without_graph_is_silent_under_graphs_and_scored_under_tables(tmp_path):
    study = make_study(tmp_path / "study")
    settings = InterpretConfig(simulators=("graph", "table", "quoted"))
    found = run_interpretation([study], settings, tmp_path / "o", Silent())
    graph = {one.unit: one for one in found.outcomes[Way("graph")]}
    silent = [name for name, one in graph.items() if one.status == "silent"]
    assert {name.rpartition("/")[2] for name in silent} == {"21"}
    assert all("expected a graph" in graph[name].reason and graph[name].judged is None for name in silent)
    assert {one.status for one in found.outcomes[Way("table")]} == {"scored"}
    assert {one.status for one in found.outcomes[Way("quoted", "templated")] if one.unit in silent} == {"silent"}
    assert found.failures == 0
    assert "none was fitted" in markdown(found)


@pytest.mark.parametrize("method", ["linear", "percentile"])
def test_calibration_keeps_documents_back_from_tables(demo, tmp_path, method):
    settings = InterpretConfig(explainers=(), simulators=("table",), calibration=method, hold_back=0.34)
    found = run_interpretation([demo], settings, tmp_path / "o", Silent())
    assert {one.status for one in found.outcomes[Way("table")]} == {"scored"}
    alone = InterpretConfig(explainers=(), simulators=("table",), calibration=method, hold_back=0.1)
    none = run_interpretation([demo], alone, tmp_path / "o", Silent())
    assert {(one.status, one.reason) for one in none.outcomes[Way("table")]} == {
        ("silent", "no excerpt is held back for calibration: too few documents")
    }
    assert none.failures == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"explainers": ("oracle",)}, "explainers: expected some of"),
        ({"simulators": ("graph", "graph")}, "each once, found graph, graph"),
        ({"simulators": ()}, "at least one"),
        ({"excerpts": 0}, "at least one, found 0"),
        ({"tolerated": 1.0}, "shares in"),
        ({"hold_back": 0.0}, "shares in"),
        ({"options": {"quoted": {}}}, "that are used, found quoted"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words, fakes):  # noqa: ARG001
    with pytest.raises(InputError, match=re.escape(words)):
        config(**settings)


def test_a_reader_without_a_writer_and_folders_of_one_name_are_refused(demo, tmp_path, fakes):  # noqa: ARG001
    with pytest.raises(InputError, match="a predictor, or an explainer"):
        run_interpretation([demo], config(explainers=(), simulators=("fake",)), tmp_path / "o", Silent())
    with pytest.raises(InputError, match="folders of different names"):
        run_interpretation([demo, demo], config(), tmp_path / "o", Silent())
    with pytest.raises(InputError, match="a finished comparison"):
        run_interpretation([tmp_path], config(), tmp_path / "o", Silent())


# --- what is kept -------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_asked_again_and_more_adds_to_it(demo, tmp_path, fakes):
    fake, writes = fakes
    first = run_interpretation([demo], config(), tmp_path / "o", Silent())
    before = files(tmp_path / "o")
    fake.asked.clear(), writes.asked.clear()
    again = run_interpretation([demo], config(), tmp_path / "o", Silent())
    assert (fake.asked, writes.asked) == ([], [])
    assert files(tmp_path / "o") == before
    assert again.as_json() == first.as_json()
    run_interpretation([demo], config(simulators=("graph", "table", "fake")), tmp_path / "o", Silent())
    assert (fake.asked, writes.asked) == ([], []), "another predictor costs the others nothing"
    run_interpretation([demo], config(seed=1), tmp_path / "o", Silent())
    assert writes.asked == []
    assert fake.asked


def test_other_exemplars_are_other_answers(demo, tmp_path, fakes):
    fake, writes = fakes
    run_interpretation([demo], config(), tmp_path / "o", Silent())
    fake.asked.clear(), writes.asked.clear()
    make_comparison(demo, units=7, seed=1)
    run_interpretation([demo], config(), tmp_path / "o", Silent())
    assert len(writes.asked) == 14


def test_an_interrupted_run_ends_as_an_undisturbed_one(demo, tmp_path, fakes):
    fake, writes = fakes
    whole = run_interpretation([demo], config(), tmp_path / "whole", Silent())
    n = len(fake.asked)
    for stop in (1, 8, n - 1):
        fake.asked.clear(), writes.asked.clear()
        answer, left = fake.simulate, [stop]

        def dying(explanation, excerpts, answer=answer, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return answer(explanation, excerpts)

        fake.simulate = dying
        with pytest.raises(KeyboardInterrupt):
            run_interpretation([demo], config(), tmp_path / f"{stop}", Silent())
        fake.simulate = answer
        assert not (tmp_path / f"{stop}" / "report").exists()
        done = len(list((tmp_path / f"{stop}" / "scores" / "names+fake").rglob("*.json")))
        fake.asked.clear()
        found = run_interpretation([demo], config(), tmp_path / f"{stop}", Silent())
        assert found.as_json() == whole.as_json()
        assert len(fake.asked) == n - 3 * done, "finished units are not asked again"
        assert files(tmp_path / f"{stop}") == files(tmp_path / "whole")


def test_a_killed_process_loses_one_unit_at_most(demo, tmp_path):
    """The real thing: a process that ends without a word in the middle of its work."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from saelens_n2g.autointerp import kept\n"
        "from saelens_n2g.autointerp.config import InterpretConfig\n"
        "from saelens_n2g.autointerp.run import run_interpretation\n"
        "from saelens_n2g.progress import Silent\n"
        "left, write = [int(sys.argv[3])], kept.write_json\n"
        "def dying(*given):\n"
        "    left[0] -= 1\n"
        "    os._exit(9) if left[0] == 0 else write(*given)\n"
        "kept.write_json = dying\n"
        "run_interpretation([Path(sys.argv[1])], InterpretConfig(), Path(sys.argv[2]), Silent())\n"
    )
    out = tmp_path / "killed"
    for stop in (20, 10_000):
        arguments = [sys.executable, "-c", code, str(demo), str(out), str(stop)]
        ended = subprocess.run(arguments, check=False, env={**os.environ}, capture_output=True, text=True)
        assert ended.returncode == (9 if stop == 20 else 0), ended.stderr
    run_interpretation([demo], InterpretConfig(), tmp_path / "whole", Silent())
    assert files(out) == files(tmp_path / "whole")


# --- failures -----------------------------------------------------------------------------------------------------


def test_failures_are_statuses_and_are_tried_again(demo, tmp_path, fakes):
    fake, writes = fakes
    whole = run_interpretation([demo], config(), tmp_path / "whole", Silent())
    names = [one.unit for one in whole.sentences["names"]]
    fake.fails = {f"unit {names[0]}": 1, "something": 1}
    writes.fails = {names[1]: 1}
    found = run_interpretation([demo], config(), tmp_path / "o", Silent())
    way = Way("fake", "names")
    by_name = {one.unit: one for one in found.outcomes[way]}
    lost = by_name[names[0]]
    assert (lost.status, lost.judged) == ("failed", None)
    assert lost.reason == "6 of 6 excerpts not predicted: status 429"
    assert (by_name[names[1]].status, by_name[names[1]].reason) == ("failed", "timeout")
    failed_control = [one for one in found.outcomes[way] if isinstance(one.controls.get("neutral"), str)]
    assert len(failed_control) == 1
    assert failed_control[0].status == "scored"
    assert found.failures == 4  # a sentence and what depends on it, a unit, a control
    known = [one.value("top", "auprc") for one in found.outcomes[way] if one.status == "scored"]
    assert found.summary(way, "top", "auprc").n == sum(v is not None for v in known) <= 12
    assert "status 429" in markdown(found)
    fake.asked.clear(), writes.asked.clear()
    again = run_interpretation([demo], config(), tmp_path / "o", Silent())
    assert writes.asked == [names[1]]
    assert again.failures == 0
    assert again.as_json() == whole.as_json(), "in the end nothing tells that something failed"


def test_errors_of_programs_are_not_swallowed(demo, tmp_path, fakes):
    fake, _ = fakes
    fake.simulate = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_interpretation([demo], config(), tmp_path / "o", Silent())


def test_a_damaged_answer_is_named(demo, tmp_path, fakes):  # noqa: ARG001
    run_interpretation([demo], config(), tmp_path / "o", Silent())
    one = next((tmp_path / "o" / "scores").rglob("*.json"))
    one.write_text(one.read_text()[:-20])
    with pytest.raises(ArtefactError, match=re.escape(one.name)):
        run_interpretation([demo], config(), tmp_path / "o", Silent())


# --- what is shown ------------------------------------------------------------------------------------------------


def test_noise_is_invalid_and_says_so_in_every_table(demo, tmp_path, fakes):  # noqa: ARG001
    found = run_interpretation([demo], config(), tmp_path / "o", Silent())
    way = Way("fake", "names")
    assert found.validity(way).verdict == "invalid"
    text = (tmp_path / "o/report/interpret.md").read_text()
    named = [line for line in text.splitlines() if "names > fake" in line]
    assert len(named) > 9
    assert all("names > fake (invalid)" in line for line in named)
    assert sum(row.rstrip(" |").endswith("| invalid") for row in named) == 4  # in scores, and beside each control
    assert "names &gt; fake (invalid)</th>" in (tmp_path / "o/report/index.html").read_text()
    assert "fails a sanity check" in text


def test_results_are_read_back(demo, tmp_path, fakes):  # noqa: ARG001
    found = run_interpretation([demo], config(), tmp_path / "o", Silent())
    path = tmp_path / "o/report/results.json"
    assert Interpretation.load(path).as_json() == found.as_json() == json.loads(path.read_text())
    path.write_text(json.dumps({**found.as_json(), "ways": [{"simulator": "x"}]}))
    with pytest.raises(ArtefactError, match="a whole interpretation"):
        Interpretation.load(path)


def test_the_page_escapes_what_models_say(demo, tmp_path, fakes):
    _, writes = fakes
    writes.explain = lambda _: Explained("<script>alert(1)</script> & | `x`")
    found = run_interpretation([demo], config(), tmp_path / "o", Silent())
    html = write_page(found, tmp_path).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; | `x`" in html
    assert "default-src 'none'" in html
    assert html.count('<tr><td class="w">demo</td>') == 14


# --- the commands -------------------------------------------------------------------------------------------------


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["saelens-n2g", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return (int(end.value.code or 0), *capsys.readouterr())


def test_the_command_prints_the_tables(demo, tmp_path, monkeypatch, capsys):
    out = tmp_path / "words"
    code, text, _ = call(monkeypatch, capsys, "interpret", demo, "--out", out, "--units", 3, "--excerpts", 2)
    assert code == 0
    assert text.startswith("6 units, 2 bases and layers\n")
    rows = [line.split()[0] for line in text.splitlines() if re.search(r" (valid|invalid|not shown) *$", line)]
    assert rows == ["graph", "table", "backoff", "templated"]
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert text.endswith(f"report: {out / 'report/index.html'}\n")
    assert (out / "report/index.html").is_file()
    limit = "templated.limit=90"
    code, _, _ = call(monkeypatch, capsys, "interpret", demo, "--out", out, "--units", 3, "--option", limit)
    assert code == 0
    assert json.loads((out / "report/results.json").read_text())["settings"]["templated"]["limit"] == 90
    for wrong, words in (("limit", "NAME.KEY=VALUE"), ("quoted.size=1", "options of simulator quoted")):
        code, _, err = call(monkeypatch, capsys, "interpret", demo, "--out", out, "--option", wrong)
        assert code == 2
        assert words in err
    code, _, err = call(monkeypatch, capsys, "interpret", demo, "--out", out, "--calibration", "square")
    assert (code, "none, linear, percentile" in err) == (2, True)


def test_the_analysis_is_the_command(demo, tmp_path, monkeypatch, capsys):
    place = Path(__file__).parent.parent / "analysis" / "interpret.py"
    monkeypatch.setattr(sys, "argv", ["interpret.py", str(demo), "--units", "2", "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(place), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith("4 units")


def test_the_puzzles_are_printed(monkeypatch, capsys, tmp_path):
    few = tmp_path / "few.json"
    few.write_text(json.dumps(as_list(load_puzzles()[:4])))
    code, text, _ = call(monkeypatch, capsys, "puzzles", "--file", few, "--explainers", "templated-table")
    assert code == 0
    assert text.startswith("**4 puzzles**")
    assert "| templated-table | quoted |" in text
    code, _, err = call(monkeypatch, capsys, "puzzles", "--file", tmp_path / "none.json")
    assert (code, "nothing there" in err) == (3, True)


# --- the store ----------------------------------------------------------------------------------------------------


def bodies(store: Path) -> dict[tuple[str, int], dict]:
    with Store.open(store) as opened:
        return {(u.basis, u.index): opened.body(u.id, "explanation").json() for u in opened.listing("toy").units}


def test_sentences_go_beside_the_graph_in_the_store(demo, tmp_path, monkeypatch, capsys, fakes):  # noqa: ARG001
    words, store = tmp_path / "words", tmp_path / "atlas.db"
    found = run_interpretation([demo], config(), words, Silent())
    collect = ("collect", "--store", store, "--tokenizer", "none")
    code, text, _ = call(monkeypatch, capsys, *collect, words, demo)
    assert (code, text) == (0, f"{demo}: 14 units collected\n{words}: 14 units told, 0 had it\nstore: {store}\n")
    told = bodies(store)
    outcomes = {one.unit: one for one in found.outcomes[Way("fake", "names")]}
    for (basis, index), body in told.items():
        kind = "mlp_post" if basis == "neurons" else "resid_post"
        unit = f"1.{kind}/{basis}/{index}"
        entries = {(e["explainer"], e.get("simulator")): e for e in body["explanations"]}
        assert next(iter(entries)) == ("graph", None)
        assert entries["names", "fake"]["text"] == f"unit {unit}"
        assert entries["names", "fake"]["simulated"]["validity"] == "invalid"
        assert entries["names", "fake"]["simulated"]["sets"]["top"] == outcomes[unit].judged.sets["top"].values
        assert set(entries["graph", None]) >= {"scores", "counts", "simulated", "text"}
        assert body["explanation"] == entries["graph", None]["text"], "an invalid sentence stands for nothing"
        assert body["score"] == entries["graph", None]["scores"]["random"]["correlation"]
    again = call(monkeypatch, capsys, *collect, words)
    assert again[:2] == (0, f"{words}: 0 units told, 14 had it\nstore: {store}\n")
    assert bodies(store) == told
    code, text, _ = call(monkeypatch, capsys, "verify", "--store", store)
    assert (code, "no damage" in text) == (0, True)
    call(monkeypatch, capsys, *collect, demo, "--again")
    assert bodies(store) != told
    call(monkeypatch, capsys, *collect, words)
    assert bodies(store) == told


def test_units_that_a_store_does_not_have_are_named(demo, tmp_path, monkeypatch, capsys, fakes):  # noqa: ARG001
    words, store = tmp_path / "words", tmp_path / "atlas.db"
    run_interpretation([demo], config(), words, Silent())
    make_comparison(tmp_path / "fewer", units=5)
    collect = ("collect", "--store", store, "--tokenizer", "none")
    code, _, err = call(monkeypatch, capsys, *collect, tmp_path / "fewer", words)
    assert code == 2
    assert "units that are in the store, found 4 of 14 missing, such as 1.mlp_post/neurons/5; collect demo first" in err
    assert all("simulated" not in e for body in bodies(store).values() for e in body["explanations"])
    with Writer(store) as writer, pytest.raises(InputError, match="14 of 14 missing"):
        tell(words, writer, model="other")


def entry(explainer, simulator=None, *, worth=None, validity="valid", **more):
    sets = {"top_and_random": {"correlation": worth}}
    simulated = None if worth is None else {"sets": sets, "validity": validity}
    text = None if simulator is None else f"{explainer} says"
    return {"explainer": explainer, "simulator": simulator, "text": text, "simulated": simulated, "source": 3, **more}


def test_the_best_valid_sentence_speaks_for_the_unit():
    graph = {"explainer": "graph", "text": "[a]", "scores": {"random": {"correlation": 0.4}}, "counts": {}}
    body = {"explanation": "[a]", "score": 0.4, "explanations": [graph]}
    told = [entry("graph", worth=0.9), entry("x", "s", worth=0.5), entry("y", "s", worth=0.7, validity="invalid")]
    found = merged(body, told)
    assert (found["explanation"], found["score"]) == ("x says", 0.5)
    assert [e["explainer"] for e in found["explanations"]] == ["graph", "x", "y"]
    assert found["explanations"][0]["text"] == "[a]"
    assert found["explanations"][0]["simulated"]["sets"]["top_and_random"]["correlation"] == 0.9
    assert merged(found, told) == found
    better = merged(found, [entry("z", "s", worth=0.6)])
    assert (better["explanation"], len(better["explanations"])) == ("z says", 4)
    worse = merged(found, [entry("x", "s", worth=None)])
    assert (worse["explanation"], worse["score"]) == ("[a]", 0.4), "a sentence without score stands for nothing"


def test_registered_predictors_are_ways_of_their_own(demo, tmp_path, monkeypatch):
    monkeypatch.setitem(predictors._MAKERS, "flat", lambda _: predictors.TokenMeans({}))
    found = run_interpretation([demo], config(explainers=(), simulators=("flat",)), tmp_path / "o", Silent())
    (several,) = found.outcomes.values()
    assert all(one.value("top", "correlation") is None for one in several)
    assert found.summary(Way("flat"), "top", "correlation").n == 0
    assert dataclasses.asdict(found.summary(Way("flat"), "top", "correlation"))["mean"] is None
