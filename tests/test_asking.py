"""What asks a language model: prompts, answers taken apart, capabilities, revision, yes and no; scripted clients."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted

from saelens_n2g.autointerp import detection as computed
from saelens_n2g.autointerp import numbers, revision, saying, structured, wording, yes_no
from saelens_n2g.autointerp.asking import Asker, Question, made_up
from saelens_n2g.autointerp.excerpts import Evidence, Excerpt
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained, Explainer, explain_all, nobody
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.predictors import Failure
from saelens_n2g.autointerp.scorers import SCORERS, Scored, Scorer
from saelens_n2g.autointerp.simulators import SIMULATORS, Simulator
from saelens_n2g.autointerp.wording import Shot
from saelens_n2g.clients import messages
from saelens_n2g.clients.base import Capabilities
from saelens_n2g.clients.counting import estimated
from saelens_n2g.clients.messages import Answer, Generated, PromptSlot, Request, TokenLogprob, Usage
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.graph import Graph

ABLE = Capabilities(*[True] * 7)
NOWHERE = messages.Failure("timeout", "too slow", True)


def excerpt(activations, place=0, *, side="test", kind="top", strings=None) -> Excerpt:
    strings = strings or [f" t{place}x{i}" for i in range(len(activations))]
    ids = tuple(range(100 * place, 100 * place + len(strings)))
    return Excerpt(ids, tuple(strings), np.array(activations, dtype=float), place, f"{side} {place}", kind, side)


def unit(*excerpts: Excerpt, graph: Graph | None = None) -> Evidence:
    return Evidence("1.mlp_post/neurons/3", "demo", "neurons", 1, 2.0, 0.5, excerpts, graph, "sum")


class Speaker(Scripted):
    """Says what a function makes of the request; what it can do is given."""

    def __init__(self, say, able: Capabilities = ABLE, ten: bool | None = True) -> None:
        super().__init__()
        self.say, self.able, self.ten = say, able, ten

    def capabilities(self) -> Capabilities:
        return self.able

    def one_token(self, text: str) -> bool | None:
        return self.ten if text == "10" else (None if self.ten is None else True)

    def ask(self, request: Request):
        self.asked.append(request)
        said = self.say(request)
        return said if not isinstance(said, str) else made_up(Question(request, said), 5)


def asker(say, able: Capabilities = ABLE, ten: bool | None = True) -> Asker:
    return Asker(Speaker(say, able, ten))


def spiked(values: dict[int, int], most: int):
    """Log probabilities of the prompt that are sure of one number at each place."""

    def say(request: Request) -> Answer:
        wish = request.prompt_logprobs
        slots = tuple(
            PromptSlot(
                at,
                TokenLogprob("?", -9.0),
                tuple(TokenLogprob(c, 0.0 if int(c) == min(values[i], most) else -50.0) for c in wish.candidates),
                None,
            )
            for i, at in enumerate(wish.positions)
        )
        return Answer("", "stop", Usage(7, 0, None), "speaker", (), slots)

    return say


# --- wording ------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(), min_size=1))
def test_a_token_is_one_line_without_a_tab_and_can_be_sent(text):
    line = wording.row(text, 7)
    assert line.count("\n") == line.count("\t") == 1
    assert len(line.splitlines()) == 1
    Request(prompt=line)


def test_marks_take_neighbours_together_and_leave_the_space_outside():
    assert wording.marked(["The", " old", " cat", ".", "x"], [False, True, True, False, True]) == "The «old cat».«x»"
    assert wording.marked([" «a»"], [False]) == " <a>"


def test_scales_differ_at_the_top_alone():
    shares = np.arange(11) / 10
    assert wording.scaled(shares, 10) == list(range(11))
    assert wording.scaled(shares, 9) == [*range(10), 9]


def test_a_talk_is_a_chat_or_a_text_that_ends_where_the_answer_begins():
    talk = wording.Talk("Be brief.", (("What is a?", "one."),), "What is b?", "It is")
    chat = talk.request(ABLE, max_tokens=9)
    assert [tuple(m) for m in chat.messages] == [
        ("system", "Be brief."), ("user", "What is a?"), ("assistant", "It is one."), ("user", "What is b?"),
    ]  # fmt: skip
    assert chat.prefix == 3
    text = talk.request(ABLE._replace(chat=False), max_tokens=9)
    assert text.prompt == "Be brief.\n\nWhat is a?\nIt is one.\n\nWhat is b?\nIt is"
    assert text.prompt[text.prefix :] == "What is b?\nIt is"
    assert text.stop == ("\n",)


# --- explainers ---------------------------------------------------------------------------------------------------


def test_sparse_activations_are_listed_again_without_zeros():
    sparse = Shot(("a", "b", "c", "d", "e", "f"), np.array([0, 0, 0, 0, 0.75, 0]))
    text = EXPLAINERS.make("token-activation", {}, asker(lambda _: "x")).explain
    assert "without the zeros:\ne\t7" in _last(text, sparse)
    assert "without the zeros" not in _last(text, Shot(sparse.strings, np.array([0, 0, 0, 0.5, 0.75, 0])))


def _last(explain, shot: Shot) -> str:
    explain(unit(excerpt(shot.activations, side="fit", strings=list(shot.strings))))
    return explain.__self__.asker.client.asked[-1].text


def test_the_strongest_of_the_fit_text_are_read_alone():
    some = [excerpt([0.1 * i, 0.0], i, side="fit") for i in range(1, 10)]
    client = asker(lambda _: "This unit fires on rain.")
    found = EXPLAINERS.make("token-activation", {"excerpts": 2}, client).explain(unit(*some, excerpt([1.0], 50)))
    assert found.text == "rain"
    text = client.client.asked[0].text
    assert re.findall(r"t(\d+)x0", text) == ["9", "8"]
    assert EXPLAINERS.make("highlights", {}, client).explain(unit()).status == "silent"
    assert found.costs == {
        "requests": 1,
        "tokens_in": 5,
        "tokens_out": estimated("This unit fires on rain.") + 1,  # the one that ends it
        "planned_in": 5,
        "planned_out": found.costs["planned_out"],
    }
    assert 10 < found.costs["planned_out"] < 30


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("words for boats.", "words for boats"),
        (" This unit fires on words for boats.\n\nMore of it", "words for boats"),
        ('\n"The neuron fires on: words for boats"', "words for boats"),
        ("Explanation: this unit fires on boats", "boats"),
        ("This unit fires on", ""),
        ("...\n\n**", ""),
    ],
)
def test_a_sentence_is_what_follows_its_beginning(said, text):
    assert saying.sentence_of(said) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("This unit fires on ships. It also fires on har", "ships"),
        ("This unit fires on ships and the names of", "ships and the names of"),
        ('Fires on "ships." and har', 'Fires on "ships'),
        ("ships.\nIt also fires on boats. And har", "ships"),
        ("3.5 metres and mo", "3.5 metres and mo"),
        ("", ""),
    ],
)
def test_of_an_answer_that_was_cut_off_whole_sentences_are_taken(said, text):
    assert saying.sentence_of(said, cut=True) == text


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (NOWHERE, "timeout: too slow"),
        (messages.Failure("filtered", "refused: no", False), "filtered: refused: no"),
        ("This unit fires on", "empty"),
        ("I'm sorry, but I cannot help with that.", "refused: I'm sorry"),
    ],
)
@pytest.mark.parametrize("name", ["token-activation", "highlights", "from-graph"])
def test_what_is_no_sentence_is_a_status(name, said, reason):
    graph = Graph("1.mlp_post/neurons/3", 2.0)
    graph.add([(3, 1.0)], 1.0)
    graph.name_tokens(lambda token: f" w{token}")
    found = EXPLAINERS.make(name, {}, asker(lambda _: said)).explain(unit(excerpt([0.9], side="fit"), graph=graph))
    assert (found.text, found.status) == (None, "failed")
    assert found.reason.startswith(reason)
    assert found.costs["requests"] == 1


def test_a_graph_is_read_as_its_template_and_one_without_is_silent():
    client = asker(lambda _: "the third word.")
    explain = EXPLAINERS.make("from-graph", {}, client).explain
    assert explain(unit()).status == "silent"
    graph = Graph("1.mlp_post/neurons/3", 2.0)
    graph.add([(3, 1.0)], 1.0)
    graph.name_tokens(lambda token: f" w{token}")
    assert explain(unit(graph=graph)).text == "the third word"
    assert "Fires on `·w3`" in client.client.asked[0].text


# --- simulators ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-20, 0), min_size=10, max_size=10))
def test_the_expected_number_is_the_mean_over_numbers(logprobs):
    listed = [(f" {i}", p) for i, p in enumerate(logprobs)]
    shares = np.exp(logprobs)
    mean = float((np.arange(10) * shares).sum() / shares.sum()) / 10
    assert numbers.expected([*listed, ("cat", 0.0), ("10", 0.0), ("01", -0.1)], 9) == pytest.approx(mean)


def test_ten_counts_where_it_is_a_number_of_the_scale():
    assert numbers.expected([("10", math.log(0.5)), ("0", math.log(0.5))], 10) == pytest.approx(0.5)
    assert numbers.expected([("cat", 0.0)], 10) is None


@pytest.mark.parametrize(("ten", "most"), [(True, 10), (False, 9), (None, 9)])
def test_the_scale_goes_to_ten_only_where_that_is_one_token(ten, most):
    simulator = SIMULATORS.make("all-at-once", {}, asker(lambda _: "x", ten=ten))
    assert simulator.settings["scale"] == most
    request = simulator.request("x", excerpt([0.0, 0.0]))
    assert request.prompt_logprobs.candidates == tuple(map(str, range(most + 1)))
    assert ("\t10\n" in request.prompt) == (most == 10)
    assert f"to {most} (strongest)" in request.prompt


def test_a_scale_or_a_model_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="no single token"):
        SIMULATORS.make("all-at-once", {"scale": "10"}, asker(lambda _: "x", ten=False))
    with pytest.raises(InputError, match="auto, 9 or 10"):
        SIMULATORS.make("all-at-once", {"scale": "8"}, asker(lambda _: "x"))
    client = Speaker(lambda _: "x")
    client.one_token = lambda text: text != "7"
    with pytest.raises(InputError, match="digits that are tokens, found 7"):
        SIMULATORS.make("token-by-token", {}, Asker(client))


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5))
def test_places_are_those_of_the_unknown_marks(strings):
    table, places = numbers.unknown_rows(strings)
    assert [table[at - 1 : at + 2] for at in places] == ["\t?\n"] * len(strings)
    assert len(table.splitlines()) == len(strings)


@pytest.mark.parametrize("completion", [True, False])
def test_all_at_once_reads_every_place(completion):
    values = {0: 0, 1: 10, 2: 4}
    able = ABLE._replace(completion=completion)
    simulator = SIMULATORS.make("all-at-once", {}, asker(spiked(values, 10), able))
    found = simulator.simulate("cats", [excerpt([0.0] * 3)])
    assert found.predictions[0] == pytest.approx([0.0, 1.0, 0.4])
    request = simulator.asker.client.asked[0]
    assert [request.text[at] for at in request.prompt_logprobs.positions] == ["?"] * 3
    assert bool(request.prompt) == completion
    assert request.max_tokens == 0
    assert "Description: cats\n" in request.text


def test_all_at_once_fails_where_a_place_or_the_answer_is_missing():
    bare = Answer("", "stop", Usage(1, 0, 0), "m", (), (PromptSlot(5, TokenLogprob("?", -1.0), (), -2.0),))
    simulator = SIMULATORS.make("all-at-once", {}, asker(lambda _: bare))
    assert "no number" in simulator.simulate("x", [excerpt([0.0])]).predictions[0].reason
    simulator = SIMULATORS.make("all-at-once", {}, asker(lambda _: NOWHERE))
    found = simulator.simulate("x", [excerpt([0.0])])
    assert found.predictions == [Failure("timeout: too slow")]
    assert found.costs["requests"] == 1


@pytest.mark.parametrize("completion", [True, False])
def test_token_by_token_asks_once_a_token_and_loses_the_excerpt_with_one(completion):
    def say(request: Request):
        n = request.text.rpartition("Text:\n")[2].count("\t") - 1
        if " t1x" in request.text and n == 1:
            return NOWHERE
        top = (TokenLogprob(str(n), math.log(0.5)), TokenLogprob(f" {n + 2}", math.log(0.25)))
        return Answer(str(n), "stop", Usage(3, 1, None), "m", (Generated(str(n), math.log(0.5), top),))

    simulator = SIMULATORS.make("token-by-token", {}, asker(say, ABLE._replace(completion=completion)))
    found = simulator.simulate("x", [excerpt([0.0] * 3), excerpt([0.0] * 3, 1)])
    assert found.predictions[0] == pytest.approx([(n + 2 / 3) / 10 for n in range(3)])
    assert found.predictions[1] == Failure("timeout: too slow")
    assert found.costs["requests"] == 6
    assert all(request.text.endswith("\t") for request in simulator.asker.client.asked)


def test_token_by_token_takes_what_is_written_only_if_told():
    able = ABLE._replace(logprobs=False, prompt_logprobs=False)
    with pytest.raises(InputError, match="written=yes"):
        SIMULATORS.make("token-by-token", {}, asker(lambda _: "3", able))
    simulator = SIMULATORS.make("token-by-token", {"written": "yes"}, asker(lambda _: " 3", able))
    assert simulator.simulate("x", [excerpt([0.0] * 2)]).predictions[0] == pytest.approx([0.3, 0.3])
    assert simulator.asker.client.asked[0].logprobs is None
    words = SIMULATORS.make("token-by-token", {"written": "yes"}, asker(lambda _: "many", able))
    assert "no number" in words.simulate("x", [excerpt([0.0])]).predictions[0].reason


STRINGS = (" a", "\n", '"b"')


def said(*pairs) -> str:
    return json.dumps({"activations": [{"token": t, "activation": a} for t, a in pairs]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (said((" a", 1), ("\\n", 2)), "2 values for 3 tokens"),
        (said((" a", 1), ("\n", 2), ('"b"', 3)), "in place of"),
        (said((" a", 1), ("\\n", 2), ('"b"', 11)), "activation 11"),
        (said((" a", 1), ("\\n", True), ('"b"', 1)), "activation True"),
        (said((" a", 1), ("\\n", "2"), ('"b"', 1)), "activation '2'"),
        ('{"activations": [{"token": " a", "activation": NaN}]}', "1 values for 3"),
        (said((" a", 1), ("\\n", 2), ('"b"', 3))[:-4], "no JSON object"),
        ("[1, 2, 3]", "no JSON object"),
        ('{"activations": [1, 2, 3]}', "no JSON object"),
        ("no", "no JSON object"),
    ],
)
def test_an_answer_in_json_that_does_not_match_is_a_failure_and_no_zeros(text, reason):
    found = structured.read(text, STRINGS)
    assert isinstance(found, Failure)
    assert reason in found.reason


def test_an_answer_in_json_is_read_whatever_stands_around_it():
    whole = said((" a", 1), ("\\n", 0), ('"b"', 10))
    for text in (whole, f"```json\n{whole}\n```", f"Here: {whole} done"):
        assert structured.read(text, STRINGS) == pytest.approx([0.1, 0.0, 1.0])
    simulator = SIMULATORS.make("structured", {}, asker(lambda _: whole))
    assert simulator.simulate("x", [excerpt([0.0] * 3, strings=list(STRINGS))]).predictions[0][2] == 1.0
    request = simulator.asker.client.asked[0]
    assert json.loads(request.json_schema)["required"] == ["activations"]
    assert request.max_tokens > len(whole) / 4


def test_who_cannot_be_served_is_told_who_can():
    able = ABLE._replace(prompt_logprobs=False)
    with pytest.raises(InputError, match=r"log probabilities of the prompt, found .*structured, token-by-token"):
        SIMULATORS.make("all-at-once", {}, asker(lambda _: "x", able))
    with pytest.raises(InputError, match=r"a client to ask \(--client\), found none"):
        SIMULATORS.make("all-at-once")
    with pytest.raises(InputError, match="a client to ask"):
        EXPLAINERS.make("highlights")
    with pytest.raises(InputError, match="one of embedding, detection, fuzzing"):
        SCORERS.make("guessing")


def test_everything_that_asks_says_by_which_prompt_of_which_client():
    client = asker(lambda _: "x")
    every = (EXPLAINERS, SIMULATORS, SCORERS)
    made = [some.make(n, {}, client) for some in every for n in some.names() if n in some.asking]
    assert len(made) == 5 + 3 + 2
    for one in made:
        assert one.settings["prompt"] >= 1
        assert one.settings["client"] == {"client": "scripted", "model": "scripted", "chat": True, "completion": True}
        json.dumps(one.settings)
        assert isinstance(one, Explainer | Simulator | Scorer)
    assert {one.name for one in made} <= {*EXPLAINERS.names(), *SIMULATORS.names(), *SCORERS.names()}


# --- scorers ------------------------------------------------------------------------------------------------------


def sided(n: int) -> Evidence:
    some = [excerpt([0.9 if i % 2 else 0.1, 0.2, 0.0, 0.3], i, kind="top" if i % 3 else "random") for i in range(n)]
    return unit(*some)


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("name", ["detection", "fuzzing"])
def test_who_knows_gets_what_a_perfect_prediction_gets(name, logprobs):
    evidence, rules = sided(8), Rules(seed=4)
    truth = {}
    scorer = SCORERS.make(name, {}, asker(lambda r: truth[r.text], ABLE._replace(logprobs=logprobs)))
    items = scorer.items(evidence, rules.seed)
    truth |= {scorer.question("x", item).request.text: "yes" if item.true else "no" for item in items}
    found = scorer.score("x", evidence, rules)
    known = list(evidence.of("test"))
    compute = (
        computed.detection(known, [e.activations for e in known], 0.5)
        if name == "detection"
        else computed.fuzzing(known, [e.activations for e in known], 0.5, rules.seed)
    )
    assert found.answers == compute
    assert found.answers.auc == 1.0
    assert found.costs["requests"] == len(items) == compute.true + compute.false


def test_who_always_says_yes_is_at_chance():
    found = SCORERS.make("detection", {}, asker(lambda _: "yes")).score("x", sided(8), Rules())
    assert (found.answers.balanced_accuracy, found.answers.auc) == (0.5, 0.5)


def test_yes_is_its_probability_among_yes_and_no():
    def reply(*pairs) -> Answer:
        top = tuple(TokenLogprob(t, math.log(p)) for t, p in pairs)
        return Answer(pairs[0][0], "stop", Usage(1, 1, 0), "m", (Generated(*top[0], top),))

    assert yes_no.yes(reply(("Yes", 0.3), (" no", 0.1), ("nothing", 0.5)), True) == pytest.approx(0.75)
    assert (
        "neither"
        in yes_no.yes(
            reply(
                ("maybe", 0.9),
            ),
            True,
        ).reason
    )
    assert (
        yes_no.yes(
            reply(
                ("No.", 0.9),
            ),
            False,
        )
        == 0.0
    )
    assert (
        "neither"
        in yes_no.yes(
            reply(
                ("nobody", 0.9),
            ),
            False,
        ).reason
    )
    assert yes_no.yes(NOWHERE, True) == Failure("timeout: too slow")


def test_unanswered_questions_are_left_out_or_fail_the_unit():
    def say(request: Request):
        return NOWHERE if " t1x" in request.text or " t2x" in request.text else "yes"

    scorer = SCORERS.make("detection", {}, asker(say))
    assert scorer.score("x", sided(8), Rules()) == Failure("2 of 8 questions not answered: timeout: too slow")
    found = scorer.score("x", sided(8), Rules(tolerated=0.25))
    assert isinstance(found, Scored)
    assert (found.answers.true, found.answers.false) == (3, 3)


# --- small models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token-activation", "highlights", "from-graph"])
def test_examples_can_be_left_out_and_are_settings(name):
    graph = Graph("1.mlp_post/neurons/3", 2.0)
    graph.add([(3, 1.0)], 1.0)
    graph.name_tokens(lambda token: f" w{token}")
    one, found = unit(excerpt([0.9], side="fit"), graph=graph), {}
    for examples in ("0", "1", "2"):
        client = asker(lambda _: "x")
        explainer = EXPLAINERS.make(name, {"examples": examples}, client)
        assert explainer.settings["examples"] == int(examples)
        explainer.explain(one)
        found[examples] = [message.role for message in client.client.asked[0].messages]
    assert found["0"] == ["system", "user"]
    assert [len(roles) for roles in found.values()] == [2, 4, 6]
    with pytest.raises(InputError, match=f"examples of {name}: expected 0 to"):
        EXPLAINERS.make(name, {"examples": "9"}, client)
    with pytest.raises(InputError, match="option examples: expected a whole number, found 'many'"):
        EXPLAINERS.make(name, {"examples": "many"}, client)


def test_the_list_of_words_has_the_strongest_once_and_no_activation():
    client = asker(lambda _: " weather.")
    explainer = EXPLAINERS.make("token-list", {"tokens": "3"}, client)
    some = [
        excerpt([0.6, 0.7, 0.0, 0.4], 0, side="fit", strings=[" ra", "in,", " dry", " mist"]),
        excerpt([0.9, 0.8, 0.5], 1, side="fit", strings=[" rain", " snow", " hail"]),
        excerpt([1.0], 2, strings=[" secret"]),
    ]
    assert explainer.explain(unit(*some)).text == "weather"
    (asked,) = client.client.asked
    assert asked.prompt.endswith("\n\nWords: rain, snow, hail\nIn common:")
    assert asked.stop == ("\n",), "a text that is continued, though the client has chats"
    chats = asker(lambda _: "In common: weather.", ABLE._replace(completion=False))
    assert EXPLAINERS.make("token-list", {}, chats).explain(unit(*some)).text == "weather"
    assert chats.client.asked[0].text == "Words: rain, snow, hail"
    assert explainer.explain(unit(excerpt([0.1], side="fit"))).status == "silent"
    with pytest.raises(InputError, match="at least one token"):
        EXPLAINERS.make("token-list", {"tokens": "0"}, client)


# --- many units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token-activation", "highlights", "token-list", "from-graph", "revised"])
def test_explainers_that_wait_ask_about_all_units_at_once(name):
    batches, ticks = [], []
    client = asker(lambda r: f"case {len(r.text)}")
    inner = client.client.ask_many

    def ask_many(requests, tick=None, got=None):
        batches.append(len(requests))
        return inner(requests, tick, got)

    client.client.ask_many = ask_many
    graph = Graph("u", 1.0)
    graph.add([(3, 1.0)], 1.0)
    graph.name_tokens(lambda token: f" w{token}")
    units = [unit(*(excerpt([0.9] * (n + 1), i, side="fit") for i in range(12)), graph=graph) for n in range(5)]
    units.insert(2, unit())
    explainer = EXPLAINERS.make(name, {}, client)
    together = explain_all(explainer, units, lambda *told: ticks.append(told)) if name != "revised" else None
    if together is None:
        before = explain_all(explainer.first, units, nobody)
        together, batches[:] = explainer.revise(units, before, lambda *told: ticks.append(told)), batches[1:]
    assert batches == [5]
    assert sorted(ticks, key=lambda told: told[0]) == list(enumerate(together))
    assert together[2].status == "silent"
    alone = [explainer.explain(one) for one in units]
    assert [one.text for one in together] == [one.text for one in alone]
    if name != "revised":  # alone it counts its first explainer's too
        assert [dict(one.costs) for one in together] == [dict(one.costs) for one in alone]


def test_what_is_true_of_all_requests_ends_the_asking():
    wrong = messages.Failure("rejected", "HTTP 401: no such key", False, fatal=True)
    with pytest.raises(InputError, match=r"client scripted of model .* found rejected: HTTP 401: no such key"):
        EXPLAINERS.make("highlights", {}, asker(lambda _: wrong)).explain(unit(excerpt([0.9], side="fit")))


# --- revision -----------------------------------------------------------------------------------------------------


def revise(revised, evidence, before: Explained) -> Explained:
    (found,) = revised.revise([evidence], [before], nobody)
    return found


def test_counterexamples_are_drawn_from_what_the_first_sentence_was_not_of():
    some = [excerpt([1 - 0.05 * i, 0.0], i, side="fit") for i in range(12)]
    evidence = unit(*some, excerpt([0.0], 40, side="fit"), excerpt([1.0], 50))
    said_ = {"before": "This unit fires on rain.", "after": "This unit fires on any weather."}
    client = asker(lambda r: said_["after" if "Description:" in r.text else "before"])
    revised = EXPLAINERS.make("revised", {"texts": 4}, client)
    found = revised.explain(evidence)
    first, second = client.client.asked
    shown = [set(map(int, re.findall(r" t(\d+)x0\t", r.text))) for r in (first, second)]
    assert found.text == "any weather"
    assert shown[0] == {0, 1, 2, 3, 4}
    assert len(shown[1]) == 4
    assert shown[1] <= set(range(5, 12))
    assert "Description: This unit fires on rain." in second.text
    assert found.costs["requests"] == 2
    again = revise(revised, evidence, Explained("rain"))
    assert (again.text, again.costs["requests"]) == ("any weather", 1)


def test_proposed_sentences_are_run_through_the_subject():
    ran = []

    class Subject:
        def missing(self, evidence):
            return "" if evidence.layer == 1 else "no such layer"

        def identity(self, _):
            return None

        def run(self, _, texts):
            ran.extend(texts)
            return [Shot((text,), np.array([0.7])) for text in texts]

    client = asker(
        lambda r: "1. It rains.\n\n- It snows.\nToo many." if "short sentences" in r.messages[0].text else "water."
    )
    made = EXPLAINERS.make("revised", {"texts": 2, "counterexamples": "proposed"}, client)
    with pytest.raises(InputError, match="the runs whose subject reads them"):
        revise(made, unit(), Explained("rain"))
    revised = replace(made, subject=Subject())
    found = revise(revised, unit(), Explained("rain"))
    assert ran == ["It rains.", "It snows."]
    assert found.text == "water"
    assert "It snows.\t7" in client.client.asked[-1].text
    assert found.costs["requests"] == 2
    assert revised.settings["counterexamples"] == "proposed"
    lost = revise(replace(revised, asker=asker(lambda _: NOWHERE)), unit(), Explained("rain"))
    assert (lost.status, lost.reason) == ("failed", "timeout: too slow")
    n = len(client.client.asked)
    elsewhere = revise(revised, replace(unit(), layer=2), Explained("rain"))
    assert (elsewhere.status, elsewhere.reason) == ("silent", "no such layer")
    assert json.loads(json.dumps(asdict(elsewhere)))["costs"] == {}
    assert len(client.client.asked) == n
    with pytest.raises(InputError, match="random or proposed"):
        EXPLAINERS.make("revised", {"counterexamples": "wild"}, client)


def test_what_cannot_be_revised_says_why():
    client = asker(lambda _: "x")
    revised = EXPLAINERS.make("revised", {}, client)
    assert revise(revised, unit(), Explained(None, "failed", "timeout")).reason == "before revision: timeout"
    assert revise(revised, unit(excerpt([0.9], side="fit")), Explained("rain")).status == "silent"
    assert client.client.asked == []
    with pytest.raises(InputError, match="another explainer"):
        EXPLAINERS.make("revised", {"first": "revised"}, client)
    assert revision.FIRST in EXPLAINERS.names()
