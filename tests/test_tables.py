"""Tables: against a plain restatement with dictionaries, position by position."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.explanations import BackoffTable, CountedText, Explanation, TableConfig, TokenTable
from saelens_n2g.explanations.tables import LINES

BOS = 0


class PlainBackoff:
    """The definition spelt out: contexts are tuples in reading order, counts are dictionaries."""

    def __init__(self, rows, fires, order, smoothing, root_smoothing):
        self.order, self.weights = order, [root_smoothing] + [smoothing] * order
        self.n, self.k = {}, {}
        for row, fired in zip(rows, fires, strict=True):
            for i in range(len(row)):
                for back in range(min(order, i) + 1):
                    context = tuple(row[i - back : i + 1])
                    self.n[context] = self.n.get(context, 0) + 1
                    self.k[context] = self.k.get(context, 0) + int(fired[i])
        self.rate = sum(map(sum, fires)) / sum(map(len, rows))

    def share(self, context):
        shorter = self.rate if len(context) == 1 else self.share(context[1:])
        weight = self.weights[len(context) - 1]
        return (self.k[context] + weight * shorter) / (self.n[context] + weight)

    def share_at(self, row, i):
        if not self.k.get((row[i],)):
            return 0.0
        back = max(b for b in range(min(self.order, i) + 1) if tuple(row[i - b : i + 1]) in self.n)
        return self.share(tuple(row[i - back : i + 1]))


def mapped(share, decision):
    return share / (2 * decision) if share < decision else 0.5 + (share - decision) / (2 * (1 - decision))


def ragged(draw, n_rows, vocabulary=4):
    return [draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=9)) for _ in range(n_rows)]


@st.composite
def problems(draw):
    rows, others = ragged(draw, draw(st.integers(1, 6))), ragged(draw, 3, vocabulary=6)
    fires = [draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r))) for r in rows]
    weights = st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.5])
    config = TableConfig(draw(st.integers(0, 3)), draw(weights), draw(weights), draw(st.sampled_from([0.3, 0.4, 0.75])))
    return rows, fires, others, config


@settings(max_examples=150, deadline=None)
@given(problems())
def test_predictions_are_those_of_the_definition(problem):
    rows, fires, others, config = problem
    table = BackoffTable.fit(rows, fires, config=config)
    plain = PlainBackoff(rows, fires, config.order, config.smoothing, config.root_smoothing)
    for row in rows + others:
        shares = [plain.share_at(row, i) for i in range(len(row))]
        predicted = table.predict(row)
        assert predicted.dtype == np.float32
        assert predicted == pytest.approx([mapped(s, config.decision) for s in shares], abs=1e-6)
        clear = np.abs(np.array(shares) - config.decision) > 1e-9  # order of additions decides the ties
        assert ((predicted >= 0.5) == (np.array(shares) >= config.decision))[clear].all()
        assert ((predicted >= 0) & (predicted <= 1)).all()


@settings(max_examples=60, deadline=None)
@given(problems())
def test_rules_say_all_that_fires(problem):
    rows, fires, _, config = problem
    plain = PlainBackoff(rows, fires, config.order, config.smoothing, config.root_smoothing)
    expected = {}
    for context in plain.n:
        if plain.k[context[-1:]] == 0 or plain.share(context) < config.decision - 1e-9:
            continue
        if len(context) == 1 or plain.share(context[1:]) < config.decision - 1e-9:
            expected[context] = (plain.k[context], plain.n[context])
    found = BackoffTable.fit(rows, fires, config=config).rules()
    assert {rule.context: (rule.fired, rule.n) for rule in found} == expected
    assert [rule.share for rule in found] == pytest.approx([plain.share(rule.context) for rule in found])
    assert found == sorted(found, key=lambda rule: -rule.share)


def windows(seed=0, n=12, width=10, vocabulary=5):
    """Padded windows with a BOS in front, the mask that leaves both out, and where a unit fires."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, size=(n, width), dtype=np.int32)  # 0 is also an ordinary token
    tokens[:, 0] = BOS
    lengths = rng.integers(3, width + 1, size=n)
    mask = (np.arange(width) < lengths[:, None]) & (np.arange(width) > 0)
    before = np.roll(tokens, 1, axis=1)
    return tokens, mask, (tokens == 3) & ((before == 1) | (before == 2)) & mask


def test_masked_arrays_ragged_rows_and_shared_counts_are_one_thing():
    tokens, mask, fires = windows()
    rows = [t[m].tolist() for t, m in zip(tokens, mask, strict=True)]
    ragged_fires = [f[m] for f, m in zip(fires, mask, strict=True)]
    counted = CountedText.of(tokens, mask, order=3)
    assert counted.n_tokens == mask.sum()
    for order in (0, 2):
        config = TableConfig(order)
        tables = [
            BackoffTable.fit(rows, ragged_fires, config=config),
            BackoffTable.fit(tokens, fires, mask=mask, config=config),
            BackoffTable.from_counted(counted, fires, config=config),  # counted further than needed
        ]
        assert tables[0].to_dict() == tables[1].to_dict() == tables[2].to_dict()


def test_text_is_predicted_as_its_rows_are():
    tokens, mask, fires = windows()
    table = BackoffTable.fit(tokens, fires, mask=mask)
    others, other_mask, _ = windows(seed=1, vocabulary=9)
    predicted = table.predict_text(others, other_mask)
    assert predicted.shape == others.shape
    assert (predicted[~other_mask] == 0).all()
    assert predicted[other_mask].max() > 0.5
    for row, here, found in zip(others, other_mask, predicted, strict=True):
        assert found[here].tolist() == table.predict(row[here].tolist()).tolist()


def test_contexts_reach_neither_across_the_mask_nor_across_rows():
    tokens = np.array([[0, 7, 8, 0, 8], [8, 7, 7, 7, 8]], dtype=np.int32)
    mask = tokens != 0
    mask[1, 2] = False
    counted = CountedText.of(tokens, mask, order=1)
    singles, pairs = counted.contexts
    rows = zip(singles.token[pairs.parent].tolist(), pairs.token.tolist(), pairs.n.tolist(), strict=True)
    after = {(current, previous): n for current, previous, n in rows}
    assert after == {(8, 7): 2, (7, 8): 1}


def test_firing_outside_the_mask_counts_for_nothing():
    tokens, mask, fires = windows()
    plain = BackoffTable.fit(tokens, fires, mask=mask)
    assert BackoffTable.fit(tokens, fires | ~mask, mask=mask).to_dict() == plain.to_dict()


@pytest.mark.parametrize("decision", [0.1, 0.4, 1 / 3, 0.9])
def test_shares_next_to_the_decision_fall_on_the_right_side_of_one_half(decision):
    # Without smoothing, a share of k / n is met by a decision of the same quotient, or one a hair above or below.
    rows, n, k = [[5] * 30], 30, round(30 * decision)
    fires = [[True] * k + [False] * (n - k)]
    share = k / n
    for bound, says in ((share, True), (np.nextafter(share, 0), True), (np.nextafter(share, 1), False)):
        config = TableConfig(order=0, smoothing=0.0, root_smoothing=0.0, decision=float(bound))
        assert bool(BackoffTable.fit(rows, fires, config=config).predict([5])[0] >= 0.5) is says


def test_the_token_table_is_the_back_off_table_without_context():
    tokens, mask, fires = windows()
    token = TokenTable.fit(tokens, fires, mask=mask)
    assert token.config == TableConfig(order=0, root_smoothing=0.5)
    same = BackoffTable.fit(tokens, fires, mask=mask, config=token.config)
    assert token.predict_text(tokens).tolist() == same.predict_text(tokens).tolist()
    # One firing in two occurrences says "fires", one in three does not.
    counts = TokenTable.fit([[1, 1, 2, 2, 2, 3]], [[True, False, True, False, False, False]])
    assert (counts.predict([1, 2, 3, 4]) >= 0.5).tolist() == [True, False, False, False]
    with pytest.raises(InputError, match="order of a token table: expected 0, found 2"):
        TokenTable.fit(tokens, fires, mask=mask, config=TableConfig())


def test_context_tells_apart_what_a_token_alone_cannot():
    tokens, mask, fires = windows(n=60)
    table, token = BackoffTable.fit(tokens, fires, mask=mask), TokenTable.fit(tokens, fires, mask=mask)
    test, test_mask, test_fires = windows(seed=1, n=60)
    assert isinstance(table, Explanation)
    assert isinstance(token, Explanation)
    wrong = [int(((t.predict_text(test, test_mask) >= 0.5) != test_fires).sum()) for t in (table, token)]
    assert wrong[0] < wrong[1] / 4


def test_a_unit_that_never_fires():
    table = BackoffTable.fit([[1, 2, 3]], [[False] * 3])
    assert table.predict([1, 2, 3]).tolist() == [0, 0, 0]
    assert table.predict([]).shape == (0,)
    assert table.to_text() == "(never fires)"


def test_text_shows_the_strongest_rules_with_their_counts():
    names = {1: " New", 2: " York", 3: "\n", 4: "x"}
    rows = [[1, 2, 4, 2, 4, 2, 3]] * 4
    fires = [[False, True, False, False, False, False, True]] * 4
    table = BackoffTable.fit(rows, fires, string=names.__getitem__)
    rate = 8 / 28
    york = (4 + rate) / (12 + 1)
    expected = [f"[\\n]  {(4 + rate) / 5:.2f}  (4 of 4)", f" New[ York]  {(4 + york / 2) / 4.5:.2f}  (4 of 4)"]
    assert table.to_text().splitlines() == sorted(expected, key=lambda line: line.split("  ")[1], reverse=True)
    assert set(table.token_strings) == {1, 2, 3}
    assert "<1>[<2>]" in BackoffTable.fit(rows, fires).to_text()


def test_long_texts_are_cut_and_say_so():
    rows = [list(range(LINES + 5))]
    asked = []
    table = TokenTable.fit(rows, [[True] * len(rows[0])], string=lambda t: asked.append(t) or f"t{t}")
    lines = table.to_text().splitlines()
    assert len(lines) == LINES + 1
    assert lines[-1] == "... and 5 weaker"
    assert len(asked) == LINES


@pytest.mark.parametrize("kind", [BackoffTable, TokenTable])
def test_tables_survive_json(kind):
    tokens, mask, fires = windows()
    table = kind.fit(tokens, fires, mask=mask, string=str)
    again = kind.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.to_dict() == table.to_dict()
    assert again.to_text() == table.to_text()
    assert again.predict_text(tokens, mask).tobytes() == table.predict_text(tokens, mask).tobytes()


def damaged(path, value):
    tokens, mask, fires = windows()
    whole = BackoffTable.fit(tokens, fires, mask=mask).to_dict()
    *way, last = path
    at = whole
    for step in way:
        at = at[step]
    at[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], "saelens-n2g/graph"),
        (["version"], 2),
        (["n_tokens"], 0),
        (["config"], {"order": 1}),
        (["config", "decision"], 1.5),
        (["contexts", 0, "n"], [1]),
        (["contexts", 1, "parent", -1], 9),
        (["contexts", 1, "parent", 0], 1),
        (["contexts", 1, "token", 1], 0),
        (["contexts", 2, "token", 0], -1),
        (["contexts", 0, "fired", 0], 1_000),
        (["contexts", 0], {}),
        (["contexts"], None),
        (["token_strings"], ["a"]),
    ],
)
def test_damaged_tables_are_refused(path, value):
    with pytest.raises(ArtefactError, match=r"^table: expected"):
        BackoffTable.from_dict(damaged(path, value))


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (lambda: BackoffTable.fit([[1, 2]], [[True]]), r"rows of \[2\] tokens, found rows of \[1\]"),
        (lambda: BackoffTable.fit([], []), "at least one token, ids >= 0, found none"),
        (lambda: CountedText.of([[1, -1]]), "ids >= 0, found an id -1"),
        (lambda: CountedText.of([[1]], order=-1), "an integer >= 0, found -1"),
        (lambda: CountedText.of([[1]], np.ones((1, 1), dtype=bool)), "none beside lists of ids"),
        (lambda: CountedText.of(np.ones((2, 3), dtype=int), np.ones(3, dtype=bool)), r"found shape \(3,\)"),
        (
            lambda: BackoffTable.from_counted(CountedText.of([[1, 2]]), np.ones((2, 2), dtype=bool)),
            r"shape \(1, 2\) as the text, found shape \(2, 2\)",
        ),
        (
            lambda: BackoffTable.from_counted(CountedText.of([[1, 2]], order=1), np.ones((1, 2), dtype=bool)),
            "order >= 2, found order 1",
        ),
        (lambda: TableConfig(order=-1), "an integer >= 0"),
        (lambda: TableConfig(decision=1.0), r"a share in \(0, 1\), found 1.0"),
        (lambda: TableConfig(smoothing=-0.1), "numbers >= 0, found -0.1 and 1.0"),
    ],
)
def test_what_does_not_go_together_is_refused(fit, words):
    with pytest.raises(InputError, match=words):
        fit()
