"""What `interpret` says on a terminal: every way with its verdict, what sentences are like, what it cost."""

from dataclasses import replace

from test_interpret_figure import made

from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.results import Sentence, Way
from saelens_n2g.autointerp.scorers import Asked
from saelens_n2g.autointerp.terminal import short
from saelens_n2g.clients.estimating import Price
from saelens_n2g.scoring import summarise

ABOUT = {"unit": "1.resid_post/sae/0", "run": "demo", "basis": "sae", "layer": 1}
GOOD, BAD = (Answers(0.5, 0.5, auc, 3, 3) for auc in (0.9, 0.4))


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f" {name}  "))


def test_every_way_is_there_with_its_control_and_verdict():
    result = made({Way("graph"): 0.6, Way("quoted", "templated"): 0.1}, templated_quoted=0.3)
    text = short(result)
    assert text.startswith("16 units, 2 bases and layers\n")
    mean = summarise(result.values(Way("graph"), "top_and_random", "correlation"), seed=0).mean
    assert row(text, "graph")[0:2] == ["graph", f"{mean:.2f}"]
    assert row(text, "graph")[-1] == "valid"
    assert row(text, "templated > quoted")[-1] == "invalid"
    assert max(map(len, text.splitlines())) <= 100
    assert "[bold]" in short(made({Way("[bold]"): 0.6})), "names are no markup"


def test_sentences_that_repeat_each_other_are_counted_and_costs_are_per_unit():
    said = [
        Sentence(**ABOUT, text=text, status="explained", costs={"requests": 1, "tokens_in": 40, "tokens_out": 8})
        for text in ["words for boats and sailing"] * 3 + ["rain"]
    ]
    asked = [
        Asked(**ABOUT, status="scored", answers=GOOD, controls={"neutral": BAD, "other": BAD}, costs={"requests": 12})
        for _ in range(8)
    ]
    result = replace(made(units=2), sentences={"highlights": said}, asked={Way("detection", "highlights"): asked})
    text = short(result, price=Price(1.0, 10.0))
    assert "highlights: 4 / 4 sentences, 2 distinct, one of them 3 times, 3 out of the prompt's examples" in text
    assert row(text, "highlights > detection")[-6:] == ["[0.90,", "0.90]", "8", "0.40", "0.40", "valid"]
    assert "per unit: 25 requests, tokens 40 in, 8 out, cost 0.00012" in text
    assert "cost" not in short(result).splitlines()[-1]
    assert "per unit" not in short(made(units=2))
