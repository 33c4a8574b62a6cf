"""What an interpretation may not do: keep an answer under a key that misses what decides it, call valid what was not
tested, mix what is apart, show halves of secrets, end in an unexpected error."""

import json
from dataclasses import replace

import numpy as np
import pytest
from atlases import make_comparison
from misbehaving import KEY, VARIABLE, serving
from scripted import Scripted
from test_asking import ABLE, Speaker
from test_autointerp import excerpt, unit
from test_interpret import Writes, call
from test_puzzles import PUZZLES, Knowing

from saelens_n2g.autointerp import embedding, encoders, simulators
from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.controls import INVALID, UNKNOWN, VALID, validity
from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.judge import Rules, judge
from saelens_n2g.autointerp.plan import plan_interpretation
from saelens_n2g.autointerp.predictors import Failure, Predicted, own_predictor
from saelens_n2g.autointerp.puzzle_table import markdown as puzzle_markdown
from saelens_n2g.autointerp.puzzles import score_reader
from saelens_n2g.autointerp.reading import Reading, units_of
from saelens_n2g.autointerp.results import Way
from saelens_n2g.autointerp.run import run_interpretation
from saelens_n2g.autointerp.scorers import SCORERS, Asked, Scored, validity_of
from saelens_n2g.autointerp.shown import shown
from saelens_n2g.autointerp.subjects import Subjects
from saelens_n2g.autointerp.table import fate_rows, markdown
from saelens_n2g.autointerp.wording import Shot
from saelens_n2g.autointerp.work import Work
from saelens_n2g.clients import messages
from saelens_n2g.clients.base import Untaken
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Request
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.progress import Silent


@pytest.fixture
def demo(tmp_path):
    return make_comparison(tmp_path / "demo", units=2)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_another_threshold_is_another_sentence_of_a_table(demo, tmp_path):
    """`templated-table` names the tokens above half the threshold."""
    units = [one.load(Reading()) for one in units_of(demo)][:2]
    config = InterpretConfig(explainers=("templated-table",), simulators=("quoted",))

    def said(some):
        work = Work(config, tmp_path / "o")
        work.group(some, lambda: None)
        return [one.text for one in work.sentences["templated-table"]]

    low, high = ([replace(one, threshold=at) for one in units] for at in (0.1, 1.2))
    explain = EXPLAINERS.make("templated-table").explain
    assert said(low) == [explain(one).text for one in low]
    assert said(high) == [explain(one).text for one in high] != [explain(one).text for one in low]


@pytest.mark.parametrize("which", ["fit", "test", "random"])
def test_every_excerpt_is_in_the_checksum(demo, which):
    one = units_of(demo)[0]
    before, value = one.load(Reading()).checksum, json.loads(one.exemplars.read_text())
    value[which][-1]["activations"][0] += 0.125
    one.exemplars.write_text(json.dumps(value))
    assert one.load(Reading()).checksum != before


def test_what_is_held_back_is_another_sentence_of_a_table(demo, tmp_path):
    """Calibration takes fit documents from explainers."""
    said = []
    for method, back in (("none", 0.5), ("linear", 0.5), ("linear", 0.34)):
        config = InterpretConfig(
            explainers=("templated-table",), simulators=("quoted",), calibration=method, hold_back=back
        )
        units = [one.load(config.reading) for one in units_of(demo)]
        work = Work(config, tmp_path / "o")
        work.group(units, lambda: None)
        said.append([one.text for one in work.sentences["templated-table"]])
        explain = EXPLAINERS.make("templated-table").explain
        assert said[-1] == [explain(one).text for one in units]
    assert said[0] != said[1]


class Ran:
    """A subject whose unit can be run or not, and answers by a number."""

    def __init__(self, missing: str = "", number: float = 0.5) -> None:
        self.why, self.number = missing, number

    def missing(self, _evidence) -> str:
        return self.why

    def identity(self, _evidence):
        return [self.number]

    def run(self, _evidence, texts):
        return [Shot((text,), np.array([self.number])) for text in texts]


def test_what_texts_are_run_through_decides_a_revision(demo, tmp_path):
    """A unit that could not be run is no longer silent once it can be; another subject is another answer."""
    units = [one.load(Reading()) for one in units_of(demo)][:2]
    options = {"revised": {"counterexamples": "proposed"}}
    config = InterpretConfig(explainers=("token-activation", "revised"), simulators=("structured",), options=options)
    client = Speaker(lambda r: f"case {len(r.messages[-1].text)} {r.messages[-1].text[-40:]!r}".replace("\n", " "))

    def said(subject):
        work = Work(config, tmp_path / "o", Asker(client), subject)
        work._explained("revised", units, lambda: None)
        return [(one.status, one.text) for one in work._said["revised"]]

    assert said(Ran("no dictionary")) == [("silent", None)] * 2
    first = said(Ran())
    assert [status for status, _ in first] == ["explained"] * 2
    n = len(client.asked)
    assert said(Ran()) == first
    assert len(client.asked) == n, "the same subject is not asked again"
    assert said(Ran(number=0.9)) != first


def test_a_unit_without_counterexamples_is_silent_in_a_whole_run(demo, tmp_path):
    """The fit text has no activating excerpts beside those of the first sentence."""
    client = Speaker(lambda r: f"case {len(r.messages[-1].text)}" if r.max_tokens <= 60 else "no JSON")
    config = InterpretConfig(explainers=("token-activation", "revised"), simulators=("graph", "structured"), excerpts=1)
    found = run_interpretation([demo], config, tmp_path / "o", Silent(), client)
    assert {(one.status, one.reason) for one in found.sentences["revised"]} == {
        ("silent", "no activating excerpt beside those of the first sentence")
    }
    assert {one.status for one in found.sentences["token-activation"]} == {"explained"}
    assert run_interpretation([demo], config, tmp_path / "o", Silent(), client).as_json() == found.as_json()


def test_a_subject_is_known_by_settings_and_dictionary(demo, tmp_path):
    evidence = next(one.load(Reading()) for one in units_of(demo) if one.basis == "sae")
    folder = tmp_path / "sae"
    folder.mkdir()
    subjects = Subjects([demo])
    subjects._settings["demo"] = {"subject": {"model": "toy"}, "dictionary": str(folder)}
    (folder / "weights").write_text("a")
    before = subjects.identity(evidence)
    assert subjects.identity(evidence) == before == json.loads(json.dumps(before))
    (folder / "weights").write_text("ab")
    assert subjects.identity(evidence) != before
    subjects._settings["demo"] = {**subjects._settings["demo"], "subject": {"model": "toy", "dtype": "bfloat16"}}
    assert subjects.identity(evidence)[0] != before[0]


def test_a_question_put_as_a_chat_and_as_a_text_are_two():
    """`endpoints` of a server is in no identity of its client, but decides how everything is asked."""
    both, chat, text = (
        Asker(Speaker(lambda _: "x", ABLE._replace(chat=c, completion=t))) for c, t in ((1, 1), (1, 0), (0, 1))
    )
    for kind, name in ((simulators.SIMULATORS, "all-at-once"), (EXPLAINERS, "highlights"), (EXPLAINERS, "revised")):
        found = [kind.make(name, {}, asker).settings for asker in (both, chat, text)]
        assert found[0] != found[1] != found[2] != found[0], name


def test_an_encoder_in_a_folder_is_known_by_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda _: True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "model").write_text("a")
    made = simulators.SIMULATORS.make("embedding", {"model": str(tmp_path)})
    before = dict(made.settings)
    assert made.settings == before
    (tmp_path / "inner" / "model").write_text("ab")
    assert made.settings != before
    assert embedding.Embedding(made.encoder, "hub/name").settings["files"] == []


@pytest.mark.parametrize("folder", ["explanations", "scores"])
@pytest.mark.parametrize("damage", [{"value": 3}, {"value": {"status": "explained"}}, {}])
def test_an_answer_that_lacks_something_is_named(demo, tmp_path, folder, damage):
    run_interpretation([demo], InterpretConfig(), tmp_path / "o", Silent())
    one = next((tmp_path / "o" / folder).rglob("*.json"))
    one.write_text(json.dumps({"key": json.loads(one.read_text())["key"], **damage}))
    with pytest.raises(ArtefactError, match="a kept answer"):
        run_interpretation([demo], InterpretConfig(), tmp_path / "o", Silent())


class Spy:
    """A scorer that writes down what it is asked of whom."""

    name = "spy"

    def __init__(self) -> None:
        self.settings, self.asked = {"version": 1}, []

    def score(self, text, evidence, _rules):
        self.asked.append((evidence.name, text))
        return Scored(Answers(0.5, 0.5, 0.5, 1, 1), {})


def test_a_scorer_hears_the_sentence_and_its_controls_once_for_all_that_decides(demo, tmp_path, monkeypatch):
    assert "embedding" in SCORERS.names()
    spy, writes = Spy(), Writes()
    monkeypatch.setitem(SCORERS.makers, "spy", lambda _: spy)
    monkeypatch.setitem(EXPLAINERS.makers, "names", lambda _: writes)

    def asked(**more):
        spy.asked.clear()
        settings = {"explainers": ("names",), "simulators": ("graph",), "scorers": ("spy",), "excerpts": 3, **more}
        run_interpretation([demo], InterpretConfig(**settings), tmp_path / "o", Silent())
        return list(spy.asked)

    whole = asked()
    names = list(dict.fromkeys(name for name, _ in whole))
    assert len(names) == 4
    for name in names:
        kind = name.rpartition("/")[0]
        (other,) = (one for one in names if one != name and one.startswith(f"{kind}/"))
        assert [text for at, text in whole if at == name] == [f"unit {name}", "something", f"unit {other}"]
    assert asked() == []
    assert asked(tolerated=0.5) == whole, "rules"
    assert asked(excerpts=2, tolerated=0.5) == whole, "excerpts"
    spy.settings = {"version": 2}
    assert asked(excerpts=2, tolerated=0.5) == whole, "settings"
    said = {name: f"unit {name}" for name in names} | {names[0]: "another"}
    writes.settings, writes.explain = {"version": 2}, lambda evidence: Explained(said[evidence.name])
    heard = asked(excerpts=2, tolerated=0.5)
    assert {name for name, _ in heard} == {names[0], names[1]}, "whose sentence it is, and whose control"
    assert [text for _, text in heard if text == "another"] == ["another"] * 2


def test_another_first_sentence_is_another_revision(demo, tmp_path):
    units = [one.load(Reading()) for one in units_of(demo)][:2]
    options = {"token-activation": {"excerpts": "1"}}
    config = InterpretConfig(explainers=("token-activation", "revised"), simulators=("structured",), options=options)
    says = ["rain"]

    def say(request):
        last = request.messages[-1].text
        return f"after {last.splitlines()[0][-12:]}" if last.startswith("Description:") else says[0]

    def said():
        work = Work(config, tmp_path / "o", Asker(Speaker(say)))
        work._explained("revised", units, lambda: None)
        return [one.text for one in work._said["revised"]]

    first = said()
    for path in (tmp_path / "o" / "explanations" / "token-activation").rglob("*.json"):
        path.unlink()
    says[0] = "snow"
    assert "snow" in said()[0] != first[0]


def test_all_that_decides_a_score_is_in_its_key(demo, tmp_path, monkeypatch):
    """One thing changes at a time, of two units: what was kept is used where nothing did, and nowhere else."""

    class Reader:
        name = "reader"

        def __init__(self) -> None:
            self.settings, self.asked = {"version": 1}, []

        def simulate(self, text, excerpts):
            self.asked.append(text)
            return Predicted([np.linspace(0, 1, len(e.ids)) for e in excerpts])

    reader = Reader()
    assert "quoted" in simulators.SIMULATORS.names()
    monkeypatch.setitem(simulators.SIMULATORS.makers, "reader", lambda _: reader)
    units = [one.load(Reading()) for one in units_of(demo)][:2]

    def asked(texts=("a", "b"), some=None, **more):
        reader.asked.clear()
        work = Work(InterpretConfig(simulators=("reader",), **more), tmp_path / "o")
        said = [Explained(text) for text in texts]
        monkeypatch.setattr(work, "_explained", lambda *_: said)
        work.group(some or units, lambda: None)
        return list(reader.asked)

    whole = ["a", "something", "b", "b", "something", "a"]
    assert asked() == whole
    assert asked() == []
    assert asked(("a", "c")) == ["a", "something", "c", "c", "something", "a"], "the other's sentence is a control"
    assert asked(("a", "c"), seed=3) == ["a", "something", "c", "c", "something", "a"]
    assert asked(("a", "c"), seed=3, excerpts=2) == ["a", "something", "c", "c", "something", "a"]
    low = [replace(one, threshold=0.25) for one in units]
    assert asked(("a", "c"), low, seed=3, excerpts=2) == ["a", "something", "c", "c", "something", "a"]
    reader.settings = {"version": 2}
    assert asked(("a", "c"), low, seed=3, excerpts=2) == ["a", "something", "c", "c", "something", "a"]
    assert asked(("a", "c"), low, seed=3, excerpts=2) == []


# --- sides --------------------------------------------------------------------------------------------------------


def test_nobody_learns_from_excerpts_of_another_side():
    """Whatever stands in test and held back excerpts: explainers ask and say the same, tables predict the same."""
    graph = Graph("1.mlp_post/neurons/3", 2.0)
    graph.add([(3, 1.0)], 1.0)
    graph.name_tokens(lambda token: f" w{token}")
    fit = [excerpt([0.9 - 0.05 * i, 0.1, 0.0], i, side="fit", ids=[i, 50, 51]) for i in range(9)]

    def others(value, first):
        sides = ("test", "calibration")
        return [
            excerpt([value, 1.0, 0.0], 100 * (n + 1) + i, side=side, ids=[first, first + 1 + n, i])
            for n, side in enumerate(sides)
            for i in range(4)
        ]

    both = [unit([*fit, *others(*more)], graph=graph) for more in ((1.2, 0), (0.0, 60))]
    for name in EXPLAINERS.names():
        clients = [Speaker(lambda r: f"case {len(r.text)}") for _ in both]
        said = [EXPLAINERS.make(name, {}, Asker(c)).explain(one) for c, one in zip(clients, both, strict=True)]
        assert said[0] == said[1], name
        assert said[0].text, name
        assert clients[0].asked == clients[1].asked, name
    shown_ = [excerpt([0.0] * 8, 900, ids=[0, 1, 2, 50, 51, 60, 61, 62])]
    for name in ("graph", "table", "backoff"):
        found = [own_predictor(name, one).predict(shown_).predictions[0].tolist() for one in both]
        assert found[0] == found[1], name


# --- controls -----------------------------------------------------------------------------------------------------


def test_nothing_is_valid_while_a_control_is_not_tested():
    high, low = ({name: [value] * 8 for name in ("correlation", "auprc")} for value in (0.9, 0.1))
    lost = dict.fromkeys(("correlation", "auprc"), [None] * 8)
    assert validity(high, {"neutral": low, "other": low, "shuffled": low}, seed=0).verdict == VALID
    assert validity(high, {"neutral": lost, "other": low, "shuffled": low}, seed=0).verdict == UNKNOWN
    assert validity(high, {"neutral": lost, "other": low, "shuffled": high}, seed=0).verdict == INVALID


def test_the_verdict_is_that_of_strong_and_random_excerpts_together(demo, tmp_path):
    config = InterpretConfig(explainers=(), simulators=("table",))
    found = run_interpretation([demo], config, tmp_path / "o", Silent())
    ((way, several),) = found.outcomes.items()

    def like(judged, together, apart):
        def at(name):
            value = together if name == "top_and_random" else apart
            return judged.sets[name]._replace(values=dict.fromkeys(judged.sets[name].values, value))

        sets = {name: at(name) for name in judged.sets}
        return judged._replace(sets=sets, shuffled=sets)

    def verdict(together, apart):
        own, low = (like(several[0].judged, *some) for some in ((together, apart), (0.4, 0.4)))
        one = replace(several[0], judged=own._replace(shuffled=low.sets), controls={"neutral": low, "other": low})
        return replace(found, outcomes={way: [one] * 8}).validity(way).verdict

    assert verdict(0.9, 0.1) == VALID
    assert verdict(0.1, 0.9) == INVALID


def test_a_scorer_whose_control_always_fails_is_not_valid():
    good, bad = (Answers(0.5, 0.5, auc, 3, 3) for auc in (0.9, 0.2))
    about = {"unit": "u", "run": "r", "basis": "b", "layer": 0, "status": "scored", "answers": good}
    both = [Asked(**about, controls={"neutral": bad, "other": bad}) for _ in range(8)]
    assert validity_of(both, seed=0).verdict == VALID
    one = [Asked(**about, controls={"neutral": "timeout", "other": bad}) for _ in range(8)]
    assert validity_of(one, seed=0).verdict == UNKNOWN


def test_a_control_that_a_scorer_lost_is_in_the_table(demo, tmp_path):
    config = InterpretConfig(explainers=(), simulators=("table",))
    found = run_interpretation([demo], config, tmp_path / "o", Silent())
    good = Answers(0.5, 0.5, 0.9, 3, 3)
    one = Asked(
        unit="u", run="demo", basis="sae", layer=1, status="scored", answers=good, controls={"other": "timeout: slow"}
    )
    some = replace(found, asked={Way("detection", "names"): (one,)})
    assert some.failures == 1
    assert ["names > detection, asked", "control failed", "control other: timeout: slow", "1"] in fate_rows(some)


def test_units_are_shuffled_apart():
    """One order for all units would make their controls depend on each other."""
    some = [excerpt(np.random.default_rng(i).random(40), i) for i in range(6)]

    class Same:
        def predict(self, excerpts):
            return Predicted([np.linspace(0, 1, len(e.ids)) for e in excerpts])

    found = [judge(Same(), unit(some, name=f"1.mlp_post/neurons/{i}"), Rules()) for i in (3, 4, 3)]
    values = [one.shuffled["top"].values["correlation"] for one in found]
    assert values[0] == values[2] != values[1]
    assert found[0].sets == found[1].sets


@pytest.mark.parametrize("name", ["detection", "fuzzing"])
def test_a_server_without_log_probabilities_can_be_asked_yes_or_no(name):
    """Over HTTP every client says that it has them; a server that has none fails each question that wants them."""

    def say(request):
        return "yes" if request.logprobs is None else messages.Failure("unsupported", "none", False)

    some = [excerpt([0.9, 0.1, 0.2] if i % 2 else [0.1, 0.0, 0.2], i) for i in range(6)]
    made = {w: SCORERS.make(name, {"written": w}, Asker(Speaker(say))) for w in ("yes", "no")}
    assert made["yes"].settings["logprobs"] != made["no"].settings["logprobs"]
    assert isinstance(made["no"].score("x", unit(some), Rules()), Failure)
    assert made["yes"].score("x", unit(some), Rules()).answers.auc == 0.5
    with pytest.raises(InputError, match=f"written of scorer {name}: expected yes or no"):
        SCORERS.make(name, {"written": "1"}, Asker(Speaker(say)))


# --- puzzles ------------------------------------------------------------------------------------------------------


class Losing(Knowing):
    """Fails on every false explanation; of others it says the right thing."""

    name = "losing"

    def simulate(self, explanation, excerpts):
        if any(explanation in one.false for one in PUZZLES):
            return Predicted([Failure("status 500") for _ in excerpts])
        return Predicted([e.activations if e.activations.any() else np.zeros(len(e.ids)) for e in self.full(excerpts)])

    def full(self, excerpts):
        known = {e.strings: e for one in PUZZLES for e in one.sentences}
        return [known[e.strings] for e in excerpts]


def test_a_false_explanation_that_could_not_be_read_is_not_beaten(monkeypatch):
    assert "quoted" in simulators.SIMULATORS.names()
    assert "templated" in EXPLAINERS.names()

    class Says:
        name, settings = "says", {}

        def explain(self, _evidence):
            return Explained("any sentence")

    monkeypatch.setitem(simulators.SIMULATORS.makers, "losing", lambda _: Losing())
    monkeypatch.setitem(EXPLAINERS.makers, "says", lambda _: Says())
    text = puzzle_markdown(PUZZLES[:6], ["losing"], ["says"], {})
    (row,) = [line for line in text.splitlines() if line.startswith("| says")]
    assert row.rstrip(" |").endswith("| –"), "no choice where the alternatives failed"


def test_no_rank_among_explanations_of_which_one_failed():
    reads = score_reader(Knowing(lost=PUZZLES[3].explanation), PUZZLES[:6])
    assert {one.rank for one in reads} == {None}
    assert all(one.rank == 1 for one in score_reader(Knowing(), PUZZLES[:6]))


# --- runs -----------------------------------------------------------------------------------------------------------


def test_runs_are_not_mixed_where_basis_and_layer_are_the_same(demo, tmp_path):
    other = make_comparison(tmp_path / "other", units=2, seed=5)
    config = InterpretConfig(explainers=(), simulators=("table",))
    alone = [run_interpretation([one], config, tmp_path / f"o{one.name}", Silent()) for one in (demo, other)]
    found = run_interpretation([demo, other], config, tmp_path / "both", Silent())
    assert alone[0].groups() == [("neurons", 1), ("sae", 1)]
    assert [name for name, _ in found.groups()] == ["demo: neurons", "demo: sae", "other: neurons", "other: sae"]
    apart = [one for result in alone for one in shown(result).rows[0].groups.values()]
    together = list(shown(found).rows[0].groups.values())
    assert [one.mean for one in together] == [one.mean for one in apart]
    assert "| other: sae | 1 |" in markdown(found)


def test_a_text_that_the_client_does_not_take_loses_its_unit_alone(demo, tmp_path):
    """In process a chat with a special token of the template in it is refused, and has no number of tokens."""
    texts = {u.name: u.load(Reading()).of("fit")[0].strings for u in units_of(demo)}
    row = "".join(texts["1.resid_post/sae/1"])

    class Choosy(Speaker):
        def taken(self, request):
            return row not in "".join(line.rpartition("\t")[0] for line in request.text.splitlines())

        def count(self, request):
            if not self.taken(request):
                raise Untaken("request", "one that this model takes", "a special token in it")
            return 5

        def ask(self, request):
            if not self.taken(request):
                return messages.Failure("rejected", "a special token in it", False)
            return super().ask(request)

    config = InterpretConfig(explainers=("token-activation",), simulators=("structured",), excerpts=1)
    client = Choosy(lambda r: f"case {len(r.messages[-1].text)}")
    plan = plan_interpretation([demo], config, tmp_path / "o", client=client)
    assert client.asked == []
    found = run_interpretation([demo], config, tmp_path / "o", Silent(), client)
    lost = [one for one in found.sentences["token-activation"] if one.status == "failed"]
    assert [(one.unit, one.reason) for one in lost] == [("1.resid_post/sae/1", "rejected: a special token in it")]
    assert plan.parts["token-activation"].requests == 3
    assert (lost[0].costs["requests"], lost[0].costs["planned_in"]) == (1, 0)


def test_a_dry_run_leaves_an_empty_cache_empty(demo, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    client = ClientConfig(kind="http", model="m", cache=str(kept), prompt_logprobs="none")
    config = InterpretConfig(explainers=("highlights",), simulators=("structured",), client=client)
    assert plan_interpretation([demo], config, tmp_path / "o").total.requests > 0
    assert list(kept.iterdir()) == []


# --- secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["object", "plain"])
def test_a_key_is_blotted_out_before_a_message_is_cut(monkeypatch, shape):
    monkeypatch.setenv(VARIABLE, KEY)
    said = "x" * (200 - 3 * len(KEY) // 4) + KEY
    monkeypatch.setattr(
        "misbehaving.Handler.misbehave",
        lambda self, _trouble, _body: self.send(400, {"error": {"message": said}} if shape == "object" else [said]),
    )
    with serving() as server:
        server.plan("", "anything")
        reply = server.client(key_env=VARIABLE, tries=1).ask(Request(prompt="a", max_tokens=1))
    assert reply.status == "rejected"
    assert KEY[: len(KEY) // 2] not in reply.detail


# --- the command --------------------------------------------------------------------------------------------------

ASKS = ("--explainers", "highlights", "--simulators", "structured", "--dry-run", "--client")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--seed", "-1"), "seed: expected a whole number >= 0"),
        ((*ASKS, "http", "--base-url", "http://["), "base URL: expected http"),
        ((*ASKS, "huggingface", "--client-option", "dtype=foo"), "dtype of the client: expected one of float32"),
        ((*ASKS, "http", "--client-option", "max_tokens_field=foo"), "max_tokens_field of the client: expected one of"),
        ((*ASKS, "http", "--price-in", "nan", "--price-out", "1"), "price: expected numbers >= 0"),
        ((*ASKS, "http", "--price-in", "1", "--price-out", "-3"), "price: expected numbers >= 0"),
    ],
)
def test_what_cannot_be_is_one_line(demo, tmp_path, monkeypatch, capsys, given, words):
    code, _, err = call(monkeypatch, capsys, "interpret", demo, "--out", tmp_path / "o", *given)
    assert (code, words in err, err.count("error: ")) == (2, True, 1), err


def test_seeds_of_options_are_checked():
    with pytest.raises(InputError, match="seed of revised"):
        EXPLAINERS.make("revised", {"seed": "-1"}, Asker(Scripted()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--kinds", "token,tropic"), "found tropic"),
        (("--kinds", "token", "--option", "quted.x=1"), "that are used, found quted"),
    ],
)
def test_puzzles_pass_over_nothing_that_was_named(monkeypatch, capsys, given, words):
    code, _, err = call(monkeypatch, capsys, "puzzles", *given)
    assert (code, words in err) == (2, True), err
