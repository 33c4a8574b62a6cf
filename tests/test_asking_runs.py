"""Runs that ask: over HTTP with a server that misbehaves, in process, scripted; killed, resumed, planned, refused."""

import functools
import json
import math
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import misbehaving
import numpy as np
import pytest
from atlases import make_comparison
from misbehaving import KEY, VARIABLE, serving
from test_asking import ABLE, Speaker
from test_interpret import Writes, call, files
from tiny import _write

from saelens_n2g.autointerp import explainers
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.numbers import unknown_rows
from saelens_n2g.autointerp.plan import plan_interpretation
from saelens_n2g.autointerp.reading import Reading, units_of
from saelens_n2g.autointerp.results import Interpretation, Way
from saelens_n2g.autointerp.run import ANSWERS, run_interpretation
from saelens_n2g.autointerp.table import cost_rows, markdown, sentence_rows
from saelens_n2g.clients.cache import Cached
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.estimating import Price
from saelens_n2g.clients.messages import Answer, PromptSlot, TokenLogprob, Usage
from saelens_n2g.clients.registry import client_of
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Silent
from saelens_n2g.store.collect import collect
from saelens_n2g.store.reader import Store
from saelens_n2g.store.words import tell
from saelens_n2g.store.writer import Writer

EMPTY = '{"choices": [{"text": "", "message": {"content": ""}, "finish_reason": "stop"}]}'


def pieces(text: str) -> list[str]:
    """The server's tokens here: tabs, breaks and marks by themselves, else words with their space."""
    return re.findall(r"[\t\n?]| ?[^\s?]+| ", text)


def says(text: str) -> str:
    """What the server says here: a function of the prompt, in the shape that is asked for."""
    number = zlib.crc32(text.encode())
    if "one JSON object" in text:
        tokens = json.loads(text.rpartition("Tokens: ")[2].rpartition("]")[0] + "]")
        pairs = [{"token": t, "activation": (number >> i) % 11} for i, t in enumerate(tokens)]
        return json.dumps({"activations": pairs}, ensure_ascii=False, separators=(",", ":"))
    if "yes or no" in text:
        return ("yes", "no")[number % 2]
    return f"This unit fires on case {number}."


@pytest.fixture
def server(monkeypatch):
    """One that gives numbers where numbers are asked for."""
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(misbehaving, "words", pieces)
    monkeypatch.setattr(misbehaving, "said", says)

    @functools.cache
    def ranked(place):
        return sorted(((str(d), misbehaving.logprob_of(str(d), place)) for d in range(10)), key=lambda r: -r[1])

    def likely(_, place, top):
        return ranked(place)[:top]

    monkeypatch.setattr(misbehaving.Handler, "likely", likely)
    with serving() as found:
        yield found


@pytest.fixture
def demo(tmp_path):
    return make_comparison(tmp_path / "demo", units=2)


def config(server, timeout=20.0, **more) -> InterpretConfig:
    settings = {
        "kind": "http", "model": "tiny", "base_url": server.url, "key_env": VARIABLE, "tries": 1, "backoff": 0.001,
        "prompt_logprobs": "vllm", "top_logprobs": 10, "read_timeout": timeout,
    }  # fmt: skip
    given = {
        "explainers": ("token-activation", "revised"),
        "simulators": ("graph", "all-at-once", "structured"),
        "scorers": ("detection",),
        "options": {"token-activation": {"excerpts": 1}},
        "excerpts": 1,
        "client": ClientConfig(**settings),
    }
    return InterpretConfig(**(given | more))


def whole(found: Interpretation) -> dict:
    return json.loads(json.dumps(found.as_json()))


# --- trouble ------------------------------------------------------------------------------------------------------


def test_every_way_and_scorer_is_there_beside_controls_and_costs(demo, tmp_path, server):
    found = run_interpretation([demo], config(server), tmp_path / "o", Silent())
    assert found.failures == 0
    assert len(found.outcomes) == 1 + 2 * 2
    assert [way.label for way in found.asked] == ["token-activation > detection", "revised > detection"]
    for several in found.asked.values():
        assert len(several) == 4
        assert {one.status for one in several} == {"scored"}
        assert all(set(one.controls) == {"neutral", "other"} for one in several)
    for one in found.outcomes[Way("structured", "revised")]:
        assert one.costs["requests"] == one.costs["requests"] // 3 * 3 > 0
        assert one.costs["tokens_in"] > 0 < one.costs["planned_in"]
    before, after = found.sentences["token-activation"], found.sentences["revised"]
    assert all(a.text != b.text and a.text and b.text for a, b in zip(before, after, strict=True))
    assert found.settings["all-at-once"]["scale"] == 9
    assert Interpretation.load(tmp_path / "o/report/results.json").as_json() == found.as_json()
    text, store = markdown(found), tmp_path / "atlas.db"
    with Writer(store) as writer:
        collect(demo, writer)
        assert tell(tmp_path / "o", writer).new == 4
    with Store.open(store) as opened:
        for unit in opened.listing("toy").units:
            entries = opened.body(unit.id, "explanation").json()["explanations"]
            told = [one["told"]["detection"] for one in entries if one["explainer"] == "revised"]
            asked = next(
                one.as_json()
                for one in found.asked[Way("detection", "revised")]
                if one.unit.endswith(f"{unit.basis}/{unit.index}")
            )
            assert told == [{**{k: asked[k] for k in told[0] if k != "validity"}, "validity": "not shown"}] * 2
    assert "Does the sentence tell excerpts apart?" in text
    assert "| revised > detection | 4 / 4 |" in text
    assert KEY not in "".join(p.read_text() for p in (tmp_path / "o").rglob("*.*") if p.suffix in (".json", ".md"))


def test_a_run_that_meets_trouble_ends_as_an_undisturbed_one(demo, tmp_path, server):
    undisturbed = run_interpretation([demo], config(server), tmp_path / "a", Silent())
    troubles = ["silence", "429 0", "500", "malformed", EMPTY, "half", "reset", "html", "429 0", "500", EMPTY]
    server.plan("", *troubles)
    found = run_interpretation([demo], config(server, 0.5), tmp_path / "b", Silent())
    assert found.failures > 0
    for several in found.outcomes.values():
        assert all((one.judged is None) == (one.status != "scored") for one in several)
    for _ in troubles:
        if not found.failures:
            break
        found = run_interpretation([demo], config(server), tmp_path / "b", Silent())
    assert not server.plans[0][1], "all the trouble came"
    assert whole(found) == whole(undisturbed)
    kept = [{k: v for k, v in files(tmp_path / n).items() if not k.startswith(ANSWERS)} for n in "ab"]
    assert kept[0] == kept[1]


def test_a_wrong_key_ends_the_run_at_once_and_what_was_answered_stays(demo, tmp_path, server):
    some = config(server, simulators=("structured",), scorers=())
    server.plan("one JSON object", "401")
    with pytest.raises(InputError, match="client http of model 'tiny': expected answers, found rejected: HTTP 401"):
        run_interpretation([demo], some, tmp_path / "o", Silent())
    n = len(server.asked)
    found = run_interpretation([demo], some, tmp_path / "o", Silent())
    assert found.failures == 0
    assert n - 1 <= 2 + 2 + 8, "sentences of one group, and what was under way beside the one that was refused"
    bodies = [json.dumps(one, sort_keys=True) for one in server.asked]
    assert len(bodies) == len(set(bodies)) + 1, "only the one that was refused is asked again"


def test_a_killed_run_asks_nothing_twice_and_ends_the_same(demo, tmp_path, server):
    undisturbed = run_interpretation([demo], config(server), tmp_path / "a", Silent())
    n = len(server.asked)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from saelens_n2g.clients.cache import Cached\n"
        "from saelens_n2g.commands.interpret import interpret\n"
        "from saelens_n2g.progress import Silent\n"
        "left, keep = [int(sys.argv[4])], Cached._keep\n"
        "def dying(*given):\n"
        "    left[0] -= 1\n"
        "    return os._exit(9) if left[0] == 0 else keep(*given)\n"
        "Cached._keep = dying\n"
        "client = dict(kind='http', model='tiny', base_url=sys.argv[3], key_env=sys.argv[5], tries='1',\n"
        "              prompt_logprobs='vllm', top_logprobs='10', concurrency='1')\n"
        "interpret([Path(sys.argv[1])], Path(sys.argv[2]), Silent(), client=client, excerpts=1,\n"
        "          explainers='token-activation,revised', simulators='graph,all-at-once,structured',\n"
        "          scorers='detection', option=['token-activation.excerpts=1'])\n"
    )
    for stop in (n // 3, n // 3):
        given = [demo, tmp_path / "b", server.url, stop, VARIABLE]
        ended = subprocess.run(
            [sys.executable, "-c", code, *map(str, given)],
            check=False,
            env={**os.environ},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 9, ended.stderr
    found = run_interpretation([demo], config(server), tmp_path / "b", Silent())
    assert whole(found) == {**whole(undisturbed), "config": whole(found)["config"]}
    assert len(server.asked) <= 2 * n + 2, "at most the answer under way is asked again"


# --- dry runs -----------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_and_writes_nothing(demo, tmp_path, server):
    settings = config(server)
    plan = plan_interpretation([demo], settings, tmp_path / "o", Price(2.0, 8.0))
    assert server.asked == []
    assert not (tmp_path / "o").exists()
    assert set(plan.parts) == {"token-activation", "revised", "all-at-once", "structured", "detection"}
    assert plan.total.cost == pytest.approx((plan.total.tokens_in * 2 + plan.total.tokens_out * 8) / 1e6)
    found = run_interpretation([demo], settings, tmp_path / "o", Silent())
    assert len(server.asked) == plan.total.requests
    assert found.costs()["planned_in"] == pytest.approx(found.costs()["tokens_in"], rel=0.5)  # other tokens than ours
    again = plan_interpretation([demo], settings, tmp_path / "o")
    assert (again.total.requests, again.parts) == (0, {})
    assert "4 units, nothing asked" in again.to_text()


@pytest.mark.usefixtures("one_thread")
def test_a_dry_run_is_near_what_is_spent(demo, tmp_path):
    from transformers import LlamaConfig

    folder = _write(
        tmp_path / "model", LlamaConfig, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=8192, initializer_range=0.5,
    )  # fmt: skip
    client = Cached(client_of(ClientConfig(model=str(folder), device="cpu")), tmp_path / "answers")
    settings = InterpretConfig(
        explainers=("token-activation", "highlights"), simulators=("all-at-once",), excerpts=2,
    )  # fmt: skip
    plan = plan_interpretation([demo], settings, tmp_path / "o", client=client)
    assert client.spent.answers == 0
    found = run_interpretation([demo], settings, tmp_path / "o", Silent(), client)
    assert found.failures == 0
    said = [one.text for several in found.sentences.values() for one in several]
    assert len(set(said)) == len(said) == 8, "answers that repeat each other are asked once, which no plan can know"
    assert plan.total.requests == client.spent.answers + client.spent.failures
    assert client.spent.tokens_in == pytest.approx(plan.total.tokens_in, rel=0.2)
    costs = found.costs()
    assert costs["planned_in"] == costs["tokens_in"], "with the tokenizer at hand a request is counted exactly"
    rows = {row[0]: row[1:] for row in cost_rows(found)}
    assert list(rows) == [
        *("token-activation, sentences", "highlights, sentences"),
        *("token-activation > all-at-once", "highlights > all-at-once", "all"),
    ]
    assert rows["all"][:4] == [
        f"{costs['requests']:,}", f"{costs['tokens_in']:,}", f"{costs['tokens_in'] / 4:,.0f}", "1.00"
    ]  # fmt: skip
    assert rows["highlights > all-at-once"][4:] == ["0", "0", "–"]
    assert sentence_rows(found)[0][:5] == ["token-activation", "4 / 4", "4", "1", "0"]
    one = replace(found.sentences["highlights"][0], text="Words for boats, and sailing")
    again = replace(found, sentences={"highlights": [one, one, replace(one, text=None)]})
    assert sentence_rows(again) == [["highlights", "2 / 3", "1", "2", "2", "5"]]


# --- what simulators are worth ------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    return make_comparison(tmp_path / "many", units=7)


@pytest.fixture
def names(monkeypatch):
    """An explainer that says the unit's name."""
    assert "templated" in explainers.EXPLAINERS.names()
    monkeypatch.setitem(explainers.EXPLAINERS.makers, "names", lambda _: Writes())


def simulated(many, out, shares) -> Interpretation:
    """A run with a scripted simulator that expects what `shares(description, list of tokens)` says."""

    def say(request):
        description, table = (
            re.findall(r"Description: (.*)\nText:\n", request.text)[-1],
            request.text.rpartition("Text:\n"),
        )
        slots = []
        for at, share in zip(request.prompt_logprobs.positions, shares(description, table[2]), strict=True):
            likely = (("10", max(share, 1e-300)), ("0", max(1 - share, 1e-300)))
            known = tuple(TokenLogprob(t, math.log(p)) for t, p in likely)
            slots.append(PromptSlot(at, TokenLogprob("?", -9.0), known, -800.0))
        return Answer("", "stop", Usage(1, 0, 0), "scripted", (), tuple(slots))

    settings = InterpretConfig(explainers=("names",), simulators=("all-at-once",), excerpts=3)
    return run_interpretation([many], settings, out, Silent(), Speaker(say, ABLE))


@pytest.mark.usefixtures("names")
def test_who_knows_all_gets_a_correlation_of_one_and_is_valid(many, tmp_path):
    truth = {
        (f"unit {unit.name}", unknown_rows(e.strings)[0]): e.activations
        for unit in units_of(many)
        for e in unit.load(Reading(3)).of("test")
    }
    found = simulated(many, tmp_path / "o", lambda d, t: truth.get((d, t), np.full(t.count("\n"), 0.3)))
    way = Way("all-at-once", "names")
    assert found.values(way, "top_and_random", "correlation") == pytest.approx([1.0] * 14)
    assert found.validity(way).verdict == "valid"


@pytest.mark.usefixtures("names")
def test_who_does_not_listen_is_reported_invalid(many, tmp_path):
    def deaf(_, table):
        return np.random.default_rng(zlib.crc32(table.encode())).random(table.count("\n"))

    found = simulated(many, tmp_path / "o", deaf)
    assert found.validity(Way("all-at-once", "names")).verdict == "invalid"
    rows = [row for row in markdown(found).splitlines() if row.startswith("| names > all-at-once")]
    assert rows[0].rstrip(" |").endswith("invalid")


# --- settings and the command -------------------------------------------------------------------------------------


def test_who_asks_needs_a_client_and_revision_its_first(demo, tmp_path, server):
    with pytest.raises(InputError, match="a client to ask"):
        run_interpretation([demo], config(server, client=None), tmp_path / "o", Silent())
    with pytest.raises(InputError, match="its first explainer token-activation beside it"):
        run_interpretation([demo], config(server, explainers=("revised",), options={}), tmp_path / "o", Silent())
    with pytest.raises(InputError, match="a client whose requests are counted"):
        plan_interpretation([demo], InterpretConfig(), tmp_path / "o")
    with pytest.raises(InputError, match="scorers: expected some of embedding, detection, fuzzing"):
        config(server, scorers=("guessing",))


def test_the_command_plans_asks_and_refuses(demo, tmp_path, server, monkeypatch, capsys):
    out = tmp_path / "o"
    common = ("interpret", demo, "--out", out, "--explainers", "highlights", "--simulators", "structured,graph")
    client = ("--client", "http", "--client-model", "tiny", "--base-url", server.url, "--key-env", VARIABLE)
    code, text, _ = call(monkeypatch, capsys, *common, *client, "--dry-run", "--price-in", 1, "--price-out", 2)
    assert code == 0
    assert "| structured |" in text
    assert "4 units, nothing asked." in text
    assert "cost" in text
    assert (server.asked, out.exists()) == ([], False)
    code, text, _ = call(monkeypatch, capsys, *common, *client, "--scorers", "detection")
    assert (code, "highlights > structured" in text, "highlights > detection" in text) == (0, True, True)
    assert (out / ANSWERS / "answers.sqlite").is_file()
    assert KEY not in json.dumps([p.read_text() for p in out.rglob("*.json")])
    for wrong, words in (
        (("--base-url", server.url), "--client http, huggingface, llamacpp or replay"),
        ((*client, "--client-option", "colour=red"), "one of kind, model"),
        ((*client, "--client-option", "tries=many"), "a number"),
        ((*client, "--client-option", "proxies=true"), "yes or no"),
        ((*client, "--dry-run", "--price-in", 1), "--price-in and --price-out"),
    ):
        code, _, err = call(monkeypatch, capsys, *common, *wrong)
        assert (code, words in err) == (2, True), err
    asked = len(server.asked)
    puzzles = ("puzzles", "--kinds", "token", "--simulators", "structured", *client, "--cache", tmp_path / "kept")
    code, text, _ = call(monkeypatch, capsys, *puzzles)
    assert (code, "**2 puzzles**" in text, "| structured |" in text) == (0, True, True)
    assert len(server.asked) > asked
    assert Path(tmp_path / "kept" / "answers.sqlite").is_file()
