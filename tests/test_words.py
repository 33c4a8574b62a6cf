"""Sentences on the page of a unit: all of them, with their scores, or why there are none; nothing that runs."""

import pytest
from atlases import make_comparison
from serving import asking, check_html

from saelens_n2g.errors import ArtefactError
from saelens_n2g.server.pages.words import CONTROLS, METRICS, SETS, told, ways
from saelens_n2g.store.collect import collect
from saelens_n2g.store.writer import Writer

HOSTILE = "Fires on `</blockquote><script>alert(1)</script>` \u202e"


def simulated(correlation: float | None, *, verdict: str = "valid", control: float | None = 0.1):
    values = {"correlation": correlation, "auprc": 0.25, "f1": None}
    beside = {"correlation": control, "auprc": 0.1, "f1": 0.0}
    controls = {name: dict.fromkeys(SETS, beside) for name in CONTROLS}
    return {"sets": dict.fromkeys(SETS, values), "controls": controls, "validity": verdict}


def answers(auc: float | None, balanced: float | None = 0.625):
    return {"balanced_accuracy": balanced, "f1": None, "auc": auc, "true": 3, "false": 4}


TOLD = {
    "detection": {
        "status": "scored", "reason": "", "answers": answers(0.8125), "validity": "valid",
        "controls": {"neutral": answers(0.5), "other": answers(0.59375)},
    },
    "embedding": {
        "status": "failed", "reason": "broke <i>", "answers": None, "controls": {}, "validity": "not shown"
    },
}  # fmt: skip
BODY = {
    "explanation": HOSTILE,
    "score": 0.5,
    "explanations": [
        {
            "explainer": "graph", "text": "[ the]", "scores": {"held_out": {"f1": 0.5}}, "counts": {},
            "simulated": simulated(0.75),
        },
        {"explainer": "token_table", "text": None, "scores": {"held_out": {"f1": 0.25}}, "counts": {}},
        {
            "explainer": "templated", "simulator": "quoted", "text": HOSTILE, "scores": {}, "counts": {},
            "status": "scored", "simulated": simulated(0.5, control=None), "told": TOLD,
        },
        {
            "explainer": "templated", "simulator": "embedding", "text": HOSTILE, "scores": {}, "counts": {},
            "status": "scored", "simulated": simulated(None, verdict="invalid"), "told": TOLD,
        },
        {
            "explainer": "asked", "simulator": "quoted", "text": None, "scores": {}, "counts": {}, "status": "failed",
            "reason": "timeout <b>", "simulated": None,
        },
    ],
}  # fmt: skip


def test_every_way_is_there_once():
    graph, quoted, embedding, failed = ways(BODY)
    assert [way.title for way in ways(BODY)] == [
        "graph", "templated, read by quoted", "templated, read by embedding", "asked, read by quoted"
    ]  # fmt: skip
    assert graph.text == embedding.text == "", "a graph is drawn, and a sentence is said once"
    assert quoted.text == HOSTILE
    assert graph.scores == dict.fromkeys(SETS, (0.75, 0.25, None))
    assert (graph.control, quoted.control) == (0.1, None)
    assert (embedding.verdict, failed.problem, failed.scores) == ("invalid", "timeout <b>", {})
    assert len(METRICS) == 3


def test_what_scorers_found_is_there_once():
    detection, embedding = told(BODY)
    assert detection == ("templated, detection", "", (0.625, None, 0.8125), 0.59375, "valid")
    assert (embedding.title, embedding.problem, embedding.values) == ("templated, embedding", "broke <i>", ())
    assert told(None) == []
    with pytest.raises(ArtefactError, match="what scorers found"):
        told({"explanations": [{"explainer": "a", "told": {"detection": {}}}]})


def test_without_an_interpretation_there_is_nothing_to_say():
    assert ways(None) == ways({"explanations": BODY["explanations"][1:2]}) == []


@pytest.mark.parametrize("damage", [{}, {"explanations": [{"simulated": {}, "explainer": "a"}]}, {"explanations": [1]}])
def test_damage_is_an_error(damage):
    with pytest.raises(ArtefactError, match="explanations"):
        ways(damage)


def test_the_page_says_it(tmp_path):
    with Writer(tmp_path / "atlas.db") as writer:
        collect(make_comparison(tmp_path / "demo"), writer)
        with writer.batch():
            unit = next(number for number, basis, _, index in writer.units_of("toy") if (basis, index) == ("sae", 2))
            writer.replace(unit, "explanation", BODY)
    with asking(tmp_path / "atlas.db") as client:
        answer = client.get("/viz/toy/1-sae/2")
        root = check_html(answer.text)
        card = next(one for one in root.all("section", "card") if one.get("aria-labelledby") == "words-title")
        assert len(card.all("blockquote")) == 1
        assert "<script>alert(1)" in card.one("blockquote").text
        assert "\u202e" not in card.text
        rows = [
            [cell.words for cell in row.all() if cell.name in ("td", "th")] for row in card.all("tbody")[0].all("tr")
        ]
        assert rows[0] == ["graph", "0.75", "0.25", "–", "0.75", "0.25", "–", "0.10", "valid"]
        assert rows[2][-1] == "invalid"
        assert rows[3] == ["asked, read by quoted", "no score: timeout <b>"]
        below = [
            [cell.words for cell in row.all() if cell.name in ("td", "th")] for row in card.all("tbody")[1].all("tr")
        ]
        assert below == [
            ["templated, detection", "0.62", "–", "0.81", "0.59", "valid"],
            ["templated, embedding", "no score: broke <i>"],
        ]
        scored = next(one for one in root.all("section", "card") if one.get("aria-labelledby") == "scores-title")
        assert [row.all("th")[0].words for row in scored.all("tbody")[0].all("tr")] == ["Graph", "Token table"]
        assert card.words.count("Fires on") == 1, "said once there"
        (lead,) = root.all("a", "sentence")
        assert (lead.get("href"), lead.words.startswith("Fires on `</blockquote><script>")) == ("#words-title", True)
        other = client.get("/viz/toy/1-sae/3").text
        assert "words-title" not in other
        assert 'class="sentence"' not in other
