"""Oracle and questions: answers equal direct evaluation, whatever is asked together, in whatever order."""

import numpy as np
import pytest
from fakes import BASIS, BOS, FILLERS, SITE, UNIT, UNITS, A, B, C, D, E, F, FakeAugmenter, FakeSubject, G, H
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.questions import Masked, Question, ask_activations, ask_substitutes, together

TOKEN = st.sampled_from((A, B, C, D, E, F, G, H, *FILLERS[:3]))
ROW = st.lists(TOKEN, min_size=1, max_size=9).map(tuple)
ROUNDS = st.lists(st.lists(ROW, max_size=4), max_size=3)
ASKED = st.dictionaries(st.sampled_from(tuple(UNITS)), ROUNDS, max_size=5)


def asking(rounds):
    """A fit that asks for rows, round after round, and returns all answers."""
    answers = []
    for rows in rounds:
        answers.append((yield from ask_activations(rows)))
    return answers


def answers_of(subject, asked, *, order=tuple, **options):
    """Run one asking fit per unit; per unit and round, the answers as lists."""
    oracle = Oracle(subject, BASIS, **options)
    results = oracle.run({UNIT[unit]: asking(asked[unit]) for unit in order(asked)})
    return {
        unit: [[answer.tolist() for answer in answers] for answers in results[UNIT[unit]]] for unit in asked
    }, oracle.costs


def true_answers(subject, asked):
    return {
        unit: [[subject.direct(unit, row).tolist() for row in rows] for rows in rounds]
        for unit, rounds in asked.items()
    }


@settings(deadline=None)
@given(ASKED, st.sampled_from((1, 13, 4096)), st.sampled_from((1, 2, 256)), st.sampled_from((BOS, None)))
def test_answers_are_the_units_activations(asked, batch_tokens, concurrent, bos):
    subject = FakeSubject(bos)
    true = true_answers(subject, asked)
    for order in (tuple, lambda units: tuple(reversed(tuple(units)))):
        found, _ = answers_of(subject, asked, order=order, batch_tokens=batch_tokens, concurrent=concurrent)
        assert found == true


def test_results_come_in_the_order_of_the_fits():
    order = [5, 1, 3]
    done = []
    assert list(Oracle(FakeSubject(), BASIS).run({i: asking([[(A,)]]) for i in order}, done.append)) == order
    assert sorted(done) == sorted(order)


def test_a_row_is_run_once_for_all_who_ask_and_costs_are_counted():
    subject = FakeSubject()
    rows = [(A, B), (A, B), (C,), (D, C)]
    _, costs = answers_of(subject, {"A": [rows, rows], "B after A": [rows[:1]]})
    assert (costs.rows_asked, costs.rows_run) == (9, 6)  # three different rows in each of two rounds
    assert (costs.calls, costs.tokens) == (subject.calls, subject.tokens) == (2, 2 * 3 * 3)
    assert subject.rows == 6


def test_batches_keep_to_their_size_and_fits_to_their_number():
    class Sizes(FakeSubject):
        shapes: tuple[tuple[int, int], ...] = ()

        def activations(self, ids, sites):
            self.shapes = (*self.shapes, tuple(ids.shape))
            return super().activations(ids, sites)

    sizes = Sizes()
    answers_of(sizes, {"A": [[(A,) * n for n in range(1, 7)]]}, batch_tokens=8)
    assert sizes.shapes == ((2, 3), (1, 4), (1, 5), (1, 6), (1, 7))  # a BOS before each
    subject = FakeSubject()
    answers_of(subject, {"A": [[(A,)]], "B after A": [[(A,)]]}, concurrent=1)
    assert subject.calls == 2
    subject = FakeSubject()
    answers_of(subject, {"A": [[(A,)]], "B after A": [[(A,)]]}, concurrent=2)
    assert subject.calls == 1


def test_padding_fires_nowhere():
    subject = FakeSubject()  # unit "pad" fires on the token that fills short rows
    found, _ = answers_of(subject, {"pad": [[(A,), (A, B, C, D)]]})
    assert found["pad"] == [[[0.0], [0.0] * 4]]


@pytest.mark.parametrize("bos", [BOS, None])
def test_exactly_one_bos_stands_in_front_where_there_is_one(bos):
    found, _ = answers_of(FakeSubject(bos), {"first": [[(A, B)]]})  # fires on whatever the model sees first
    assert found["first"] == [[[0.0, 0.0] if bos is not None else [1.0, 0.0]]]


def test_one_bad_unit_stops_no_other():
    def bad():
        yield from ask_activations([(A,)])
        raise UnitError("unit x", "firing", "none")

    def bad_at_once():
        raise UnitError("unit y", "firing", "none")
        yield

    results = Oracle(FakeSubject(), BASIS).run({0: bad(), 1: asking([[(A, B)]] * 3), 2: bad_at_once()})
    assert isinstance(results[0], UnitError)
    assert isinstance(results[2], UnitError)
    assert [answer[0].tolist() for answer in results[1]] == [[0.0, 2.0]] * 3


def test_a_programmer_error_is_not_swallowed():
    def broken():
        yield from ask_activations([(A,)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Oracle(FakeSubject(), BASIS).run({0: broken()})
    with pytest.raises(InputError, match="token ids"):
        Oracle(FakeSubject(n_ctx=4), BASIS).run({0: asking([[(A,) * 9]])})


def test_substitutes_are_asked_once_for_equal_masked_rows():
    augmenter = FakeAugmenter({A: [(B,), (C,)]})
    masked = [Masked((A, B), 0), Masked((A, B), 1), Masked((A, B), 0)]
    oracle = Oracle(FakeSubject(), BASIS, augmenter)
    results = oracle.run({0: ask_substitutes(masked), 1: ask_substitutes(masked[:1])})
    assert [[s.replacement for s in found] for found in results[0]] == [[(B,), (C,)], [], [(B,), (C,)]]
    assert results[1] == results[0][:1]
    assert augmenter.asked == oracle.costs.proposals == 2


def test_substitutes_without_an_augmenter_are_a_programmer_error():
    with pytest.raises(RuntimeError, match="no augmenter"):
        Oracle(FakeSubject(), BASIS).run({0: ask_substitutes([Masked((A,), 0)])})


@settings(deadline=None)
@given(st.lists(ROUNDS, max_size=4))
def test_together_equals_one_after_the_other_in_fewer_rounds(parts):
    class Rounds(Oracle):
        def _answer(self, questions):
            subject.rounds += bool(questions)
            return super()._answer(questions)

    subject, alone = FakeSubject(), FakeSubject()
    subject.rounds = 0
    merged = Rounds(subject, BASIS).run({6: together([asking(rounds) for rounds in parts])})[6]
    single = [Oracle(alone, BASIS).run({6: asking(rounds)})[6] for rounds in parts]
    assert [[[a.tolist() for a in answers] for answers in part] for part in merged] == [
        [[a.tolist() for a in answers] for answers in part] for part in single
    ]
    assert subject.rounds <= max((len(rounds) for rounds in parts), default=0)


@settings(deadline=None)
@given(st.lists(st.tuples(ROW, st.lists(st.integers(0, 20), max_size=4)), min_size=1, max_size=6), st.booleans())
def test_places_are_answered_in_the_order_asked(asked, merge):
    rows = [row for row, _ in asked]
    at = [None if len(places) == 4 else [place % len(row) for place in places] for row, places in asked]

    def parts():
        return [ask_activations([row], [places]) for row, places in zip(rows, at, strict=True)]

    unit = UNIT["G, and H after G"]
    subject = FakeSubject()
    fit = together(parts()) if merge else ask_activations(rows, at)
    found = Oracle(subject, BASIS).run({unit: fit, UNIT["A"]: ask_activations(rows)})[unit]
    for row, places, values in zip(rows, at, [x[0] for x in found] if merge else found, strict=True):
        true = subject.direct("G, and H after G", row)
        assert values.tolist() == (true if places is None else true[places]).tolist()
        assert values.dtype == np.float32


def test_parts_with_and_without_places_can_be_merged():
    parts = [ask_activations([(A, B)]), ask_activations([(A, B), (A,)], [[1], [0]])]
    (whole,), (last, single) = Oracle(FakeSubject(), BASIS).run({UNIT["B after A"]: together(parts)})[UNIT["B after A"]]
    assert [whole.tolist(), last.tolist(), single.tolist()] == [[0.0, 2.0], [2.0], [0.0]]


class Flat:
    """One unit per column, all of them 1 on token A; only the sizes of what is asked matter."""

    bos_id, pad_id = BOS, 1

    def __init__(self, width):
        self.width, self.largest, self.calls = width, 0, 0

    def activations(self, ids, sites):
        self.largest, self.calls = max(self.largest, ids.numel()), self.calls + 1
        return {site: (ids == A).float()[..., None].expand(*ids.shape, self.width) for site in sites}


class TestMemory:
    def test_sixty_thousand_units_with_a_few_alive_at_a_time(self):
        alive = peak = 0

        def fit(unit):
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            (values,) = yield from ask_activations([(A, B)])
            alive -= 1
            return (unit, values.tolist())

        n = 60_000
        subject = Flat(n)
        found = Oracle(subject, NeuronBasis(SITE, n), concurrent=4096).run({i: fit(i) for i in range(n)})
        assert all(found[i] == (i, [1.0, 0.0]) for i in range(n))
        assert peak == 4096
        assert subject.calls == 15  # one forward pass serves all units that ask for the row

    def test_an_answer_keeps_no_batch_alive(self):
        found = Oracle(Flat(50), NeuronBasis(SITE, 50)).run(
            {i: ask_activations([(A, B), (B, A, A)], [[1], None]) for i in range(50)}
        )
        kept = [x for answers in found.values() for x in answers]
        assert all(x.base is None and x.nbytes <= 3 * 4 for x in kept)

    def test_fits_that_ask_for_much_wait_for_each_other(self):
        alive = peak = 0

        def fit():
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            yield from ask_activations([(B,) * 100 + (A,) * i for i in range(10)])
            alive -= 1

        subject = Flat(8)
        Oracle(subject, NeuronBasis(SITE, 8), open_tokens=2500, batch_tokens=300).run({i: fit() for i in range(8)})
        assert peak == 3  # 1,045 tokens each: the third begins below 2,500
        assert subject.largest <= 300
        peak = 0
        Oracle(subject, NeuronBasis(SITE, 8), open_tokens=1).run({i: fit() for i in range(8)})
        assert peak == 1


def test_together_passes_questions_and_answers_of_both_kinds_through():
    def both(token):
        answer = yield Question(rows=((token, B),), masked=(Masked((token,), 0),) * (token == A))
        return answer

    results = Oracle(FakeSubject(), BASIS, FakeAugmenter({A: [(C,)]})).run(
        {UNIT["B after A"]: together([both(C), both(A)])}
    )
    first, second = results[UNIT["B after A"]]
    assert (first.activations[0].tolist(), first.substitutes) == ([0.0, 0.0], [])
    assert (second.activations[0].tolist(), second.substitutes[0][0].replacement) == ([0.0, 2.0], (C,))


def test_an_error_in_one_part_ends_the_fit():
    def bad():
        yield from ask_activations([(A,)])
        raise UnitError("part", "success", "none")

    results = Oracle(FakeSubject(), BASIS).run({0: together([asking([[(A,)], [(B,)]]), bad()])})
    assert isinstance(results[0], UnitError)


def test_the_oracle_reads_the_site_of_the_basis():
    class Recording(FakeSubject):
        def activations(self, ids, sites):
            assert list(sites) == [SITE]
            return super().activations(ids, sites)

    found, _ = answers_of(Recording(), {"A": [[(A,)]]})
    assert np.asarray(found["A"]).tolist() == [[[1.0]]]
