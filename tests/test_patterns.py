"""Tokens that match a pattern, and the unit that goes with them; how a case is written down."""

import json
import re

import numpy as np
import pytest
import torch

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.causal.case_report import Case, Lens, drawn, markdown, quoted, write_case
from saelens_n2g.causal.cases import Ablation, ContextAblation, Downstream, histogram
from saelens_n2g.causal.patterns import APOSTROPHE, against, best_unit, compiled, matching
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site

SITE = Site(0, "resid_post")


@pytest.mark.parametrize(
    ("pattern", "tokens", "expected"),
    [
        (APOSTROPHE, ["it", "'s", " '", "\u2019t", "'"], [0, 1, 0, 1, 1]),
        (r"\((?=[A-Z])", ["f", " (", "A", ")", " (", "a"], [0, 1, 0, 0, 0, 0]),
        (r"New York", ["In", " New", " York", " New", "t"], [0, 1, 1, 0, 0]),
        (r"x*", ["a", "xx", "b"], [0, 1, 0]),
        (r"b", ["a", "", "b"], [0, 0, 1]),
    ],
)
def test_tokens_that_a_match_touches(pattern, tokens, expected):
    assert matching(tokens, compiled(pattern)).tolist() == [bool(e) for e in expected]


def test_no_tokens_and_no_pattern():
    assert matching([], compiled("a")).tolist() == []
    with pytest.raises(InputError, match="a regular expression"):
        compiled("(")


def test_counts_by_hand():
    fires = np.array([1, 1, 0, 0, 1], dtype=bool)
    matched = np.array([1, 0, 1, 0, 1], dtype=bool)
    found = against(fires, matched)
    assert (found.matches, found.firing, found.both, found.false_positives, found.false_negatives) == (3, 3, 2, 1, 1)
    assert found.f1 == pytest.approx(2 / 3)
    assert against(np.zeros(2, dtype=bool), np.zeros(2, dtype=bool)).f1 is None


def test_the_best_unit_is_found_by_trying_all():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9000, 6, generator=generator)
    matched = (rows[:, 2] > 1.0).numpy() & (rows[:, 3] > -0.5).numpy()
    weight = torch.randn(30, 6, generator=generator)
    weight[17] = torch.tensor([0.0, 0, 3, 1, 0, 0])
    basis = AffineBasis("x", SITE, "none", weight, -torch.rand(30, generator=generator), torch.zeros(6))
    values = basis.encode(rows).numpy()
    scores = {}
    for share in (0.0, 0.5):
        for i in range(30):
            fires = (values[:, i] > 0) & (values[:, i] >= share * values[:, i].max())
            scores[i, share] = against(fires, matched).f1 or 0.0
    best = best_unit(basis, rows, matched)
    assert best.f1 == pytest.approx(max(scores.values()))
    assert scores[best.unit, best.share] == max(scores.values())
    with pytest.raises(InputError, match="tokens that match: expected one or more"):
        best_unit(basis, rows, np.zeros(9000, dtype=bool))
    silent = AffineBasis("s", SITE, "none", weight, torch.full((30,), -1e6), torch.zeros(6))
    with pytest.raises(InputError, match="one that fires on a token that matches"):
        best_unit(silent, rows, matched)


# --- reports --------------------------------------------------------------------------------------------------

STRINGS = {1: " the", 2: "\n", 3: "`|", 4: "\u4e2d", 5: "'s", 6: "*a_b*"}


def case_of(**changes) -> Case:
    known = histogram([STRINGS[1 + i % 6] for i in range(60)], np.linspace(0, 3, 60, dtype=np.float32))
    pairs = tuple((t, -1.0 / t) for t in STRINGS)
    ups = tuple((t, 1.0 / t) for t in STRINGS)
    values = {
        "unit": "1.resid_post/sae/3",
        "maximum": 3.0,
        "histogram": known,
        "ablation": Ablation(12, pairs, ups, -0.25, 0.125),
        "lens": Lens(pairs, ups),
        "contexts": (ContextAblation((1, 6, 5, 2), 2, 2.5, 0, (0.95, 0.25)),),
        "downstream": Downstream(12, ((7, 0.5, -0.25),)),
        "later": "4.resid_post",
        "pattern": APOSTROPHE,
        "against": {"above 0": against(np.array([True, False]), np.array([True, True]))},
        "provenance": {},
        "string": STRINGS.__getitem__,
    }
    return Case(**{**values, **changes})


def test_tables_stay_tables():
    """Whatever tokens hold, every row of a table has as many cells as its head."""
    for case in (case_of(), case_of(downstream=None, later=None, lens=None, against={}, pattern=None)):
        for block in markdown(case).split("\n\n"):
            if block.startswith("|"):
                rows = [len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()]
                assert len(set(rows)) == 1, block
    assert "Logit lens" not in markdown(case_of(lens=None))
    assert quoted("\n") == '`"\\n"`'
    assert quoted("a\x7f\x9d") == '`"a\\u007f\\u009d"`'
    assert quoted("`|") == '`` "`\\|" ``'


def test_context_shows_what_is_needed():
    line = next(line for line in markdown(case_of()).splitlines() if line.startswith("-  the"))
    assert line == "-  the\\*a\\_b\\*[0.25]**'s** (2.5)"


def test_figures_spell_out_what_fonts_lack():
    assert drawn("\u4e2d\n a\u2019") == "“\\u4e2d\\n a\u2019”"


def test_a_case_is_written_the_same_again(tmp_path):
    for name in ("a", "b"):
        write_case(case_of(), tmp_path / name)
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"case.json", "case.md", "case.png", "case.svg"}
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    stored = json.loads((tmp_path / "a" / "case.json").read_text())
    assert stored["strings"]["4"] == "\u4e2d"
    assert stored["against"]["above 0"]["false_negatives"] == 1
    assert stored["downstream"]["units"] == [[7, 0.5, -0.25]]
