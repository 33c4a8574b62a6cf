"""The method of the paper, part by part against its formulas, and whole against units that are known."""

from itertools import product

import numpy as np
import pytest
from fakes import (
    BASIS,
    BOS,
    FILLERS,
    ID,
    MASK,
    STOP,
    UNIT,
    A,
    B,
    C,
    D,
    E,
    F,
    FakeAugmenter,
    FakeSubject,
    G,
    H,
    context,
    exemplar,
    run,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.augment import augment
from saelens_n2g.graphs.graph import IGNORE, Graph
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import PaperOptions, fit_paper
from saelens_n2g.graphs.prune import Pruned, prune
from saelens_n2g.graphs.questions import Answer
from saelens_n2g.graphs.saliency import saliency

X, Y, Z = FILLERS[:3]
PLAIN = PaperOptions(augment=False)
FIRING_UNITS = ("A", "B after A", "C with D within three", "graded E", "G, and H after G", "scattered")
TOKEN = st.sampled_from((A, B, C, D, E, F, G, H, X, Y, STOP))
TEXT = st.lists(TOKEN, min_size=1, max_size=20).map(tuple)


def never(_: int) -> bool:
    return False


def paths(graph: Graph) -> dict[tuple[int, ...], float]:
    """Every path of a graph, activating token first, with the activation at its end."""
    found, path = {}, []
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None:
            found[tuple(path)] = node.end.activation
    return found


def fit(unit, texts, *, options=PLAIN, subject=None, augmenter=None, maximum=None):
    """The graph of a unit fitted to texts with their true activations."""
    subject = subject or FakeSubject()
    exemplars = [exemplar(subject, unit, text) for text in texts]
    maximum = maximum or max(float(e.activations.max()) for e in exemplars)
    return run(fit_paper(unit, maximum, exemplars, context(), options), unit, subject, augmenter)


class TestPrune:
    @settings(deadline=None)
    @given(
        TEXT, st.sampled_from(FIRING_UNITS), st.sampled_from((0.25, 0.5, 0.9)), st.sampled_from((BOS, None)), st.data()
    )
    def test_takes_the_shortest_text_as_if_tried_one_by_one(self, text, unit, keep, bos, data):
        subject = FakeSubject(bos)
        whole = exemplar(subject, unit, text)
        assume(whole.activations.max() > 0)
        key = data.draw(st.sampled_from(np.flatnonzero(whole.activations).tolist()))
        found = run(prune(whole, key, keep=keep, ends_sentence=never, max_after=99), unit, subject)
        shortest = next(
            n
            for n in range(1, key + 2)
            if subject.direct(unit, text[key + 1 - n : key + 1])[-1] >= keep * whole.activations[key]
        )
        start = key + 1 - shortest
        assert found.tokens == text[start:]
        assert found.key == shortest - 1
        assert found.activations.tolist() == subject.direct(unit, text[start:]).tolist()
        assert found.original.tolist() == whole.activations[start:].tolist()

    def test_costs_one_forward_pass_per_doubled_group(self):
        subject = FakeSubject()
        whole = exemplar(subject, "B after A", (*[X] * 30, A, B))
        run(prune(whole, 31, keep=0.5, ends_sentence=never, max_after=0), "B after A", subject)
        assert (subject.calls, subject.rows) == (2, 1 + 2)
        far = exemplar(subject, "C with D within three", (*[X] * 30, D, X, Y, C))
        run(prune(far, 33, keep=0.5, ends_sentence=never, max_after=0), "C with D within three", subject)
        assert (subject.calls, subject.rows) == (2 + 3, 1 + 2 + 1 + 2 + 4)

    @pytest.mark.parametrize(
        ("after", "max_after", "kept"),
        [
            ((X, Y, STOP, Z), 99, (X, Y, STOP)),
            ((X, Y, Z), 99, (X, Y, Z)),
            ((X, Y, Z), 2, (X, Y)),
            ((X, Y, Z), 0, ()),
            ((STOP, X), 99, (STOP,)),
            ((), 99, ()),
            ((X, ID["\n"], Y, STOP), 99, (X, ID["\n"])),
        ],
    )
    def test_cuts_after_the_sentence_of_the_key_token(self, after, max_after, kept):
        whole = exemplar(FakeSubject(), "A", (STOP, X, A, *after))
        pruned = prune(whole, 2, keep=0.5, ends_sentence=context().ends_sentence, max_after=max_after)
        assert run(pruned, "A").tokens == (A, *kept)

    def test_only_tokens_that_may_be_activating_are_asked_for(self):
        whole = exemplar(FakeSubject(), "G, and H after G", (X, G, H, Y, Y, G, X))  # 0 1 .75 0 0 1 0
        options = {"keep": 0.5, "ends_sentence": never, "max_after": 99}
        found = run(prune(whole, 1, watch=0.8, **options), "G, and H after G")
        assert found.tokens == (G, H, Y, Y, G)  # the X behind the last G can change nothing
        assert found.activations.tolist() == pytest.approx([1.0, np.nan, np.nan, np.nan, 1.0], nan_ok=True)
        assert found.original.tolist() == [1.0, 0.75, 0.0, 0.0, 1.0]
        subject = FakeSubject()
        nothing_after = exemplar(subject, "A", (X, A, Y, Y, Y))
        found = run(prune(nothing_after, 1, watch=0.5, **options), "A", subject)
        assert (found.tokens, found.key, subject.calls) == ((A,), 0, 1)

    def test_a_window_of_four_thousand_tokens_is_asked_about_piece_by_piece(self):
        far, asked = 500, []
        whole = Exemplar((X,) * 3400 + (D,) + (X,) * (far - 1) + (C,) + (X,) * 99, np.eye(4000, dtype=np.float32)[3900])
        fit = prune(whole, 3900, keep=0.5, watch=0.5, ends_sentence=never, max_after=99)
        answer = None
        try:
            while True:
                question = fit.send(answer)
                asked.append(question.tokens)
                rows = zip(question.rows, question.places(), strict=True)
                answer = Answer([np.array([float(D in row)] * len(at), dtype=np.float32) for row, at in rows], [])
        except StopIteration as end:
            found = end.value
        assert (len(found.tokens), found.key) == (far + 1, far)
        assert max(asked) <= 16_384
        assert sum(asked) < (far + 40) * (far + 41) / 2  # hardly more than one length after the other

    def test_a_key_token_that_ends_its_sentence_keeps_nothing_after_it(self):
        whole = exemplar(FakeSubject(), "A", (A, X, Y))
        pruned = prune(whole, 0, keep=0.5, ends_sentence=lambda token: token == A, max_after=9)
        assert run(pruned, "A").tokens == (A,)

    def test_activations_of_another_model_are_told(self):
        foreign = Exemplar((X, A), np.array([0.0, 9.0], dtype=np.float32))
        with pytest.raises(UnitError, match=r"pruning: expected at least 4\.5 .* found 1"):
            run(prune(foreign, 1, keep=0.5, ends_sentence=never, max_after=9), "A")


class TestSaliency:
    @settings(deadline=None)
    @given(TEXT, st.sampled_from(FIRING_UNITS), st.data())
    def test_is_the_formula_where_there_is_activation_and_nan_elsewhere(self, text, unit, data):
        subject = FakeSubject()
        whole = subject.direct(unit, text)
        targets = data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=4, unique=True))
        found = run(saliency(text, whole, targets, MASK), unit, subject)
        assert found.shape == (len(text), len(targets))
        for column, j in enumerate(targets):
            if whole[j] == 0:
                assert np.isnan(found[:, column]).all()
                continue
            for k in range(len(text)):
                masked = subject.direct(unit, (*text[:k], MASK, *text[k + 1 :]))[j]
                expected = min(max(1 - masked / whole[j], 0), 1) if k < j else 0
                assert found[k, column] == pytest.approx(expected)

    def test_a_long_text_takes_several_rounds(self, monkeypatch):
        text, targets = (F, X, D, E, C, X, E), [3, 4, 6]
        subject = FakeSubject()
        whole = subject.direct("graded E", text)
        at_once = run(saliency(text, whole, targets, MASK), "graded E", subject)
        assert subject.calls == 1
        monkeypatch.setattr("saelens_n2g.graphs.saliency.ROUND_TOKENS", 14)
        in_rounds = run(saliency(text, whole, targets, MASK), "graded E", subject)
        assert subject.calls == 1 + 3
        np.testing.assert_array_equal(in_rounds, at_once)

    def test_says_how_much_goes_with_a_token(self):
        found = run(saliency((F, E), np.array([0.0, 4.0]), [1], MASK), "graded E")
        assert found[:, 0].tolist() == [0.25, 0.0]  # 4 with the token, 3 without


class TestAugment:
    def variants(self, tokens, key, positions, proposals, *, unit="B after A", threshold=1.0, longest=9):
        subject = FakeSubject()
        whole = subject.direct(unit, tokens)
        parts = augment(Pruned(tokens, key, whole, whole), positions, threshold=threshold, longest=longest)
        found = run(parts, unit, subject, FakeAugmenter(proposals))
        for variant in found:
            assert variant.activation == subject.direct(unit, variant.tokens)[variant.key]
        return [(variant.tokens, variant.key) for variant in found]

    def test_keeps_what_still_fires(self):
        assert self.variants((X, A, B), 2, [0, 1], {X: [(Y,), (Z,)], A: [(C,)]}) == [((Y, A, B), 2), ((Z, A, B), 2)]

    def test_the_key_token_moves_with_longer_and_shorter_words(self):
        assert self.variants((X, A, B), 2, [0], {X: [(Y, Z), ()]}) == [((Y, Z, A, B), 3), ((A, B), 1)]

    def test_a_replaced_key_token_is_the_last_of_the_new_word(self):
        assert self.variants((X, B), 1, [1], {B: [(A, B)]}) == [((X, A, B), 2)]

    def test_what_follows_the_key_token_is_left_out(self):
        assert self.variants((X, A, B, Z), 2, [0], {X: [(Y,)]}) == [((Y, A, B), 2)]

    def test_repeats_and_the_text_itself_are_left_out(self):
        assert self.variants((X, A, B), 2, [0], {X: [(Y,), (Y,), (X,)]}) == [((Y, A, B), 2)]

    def test_a_text_too_long_for_the_subject_is_left_out(self):
        assert self.variants((X, A, B), 2, [0], {X: [(Y, Z), (Z,)]}, longest=3) == [((Z, A, B), 2)]


class TestFit:
    """Each unit is planted; its graph must say exactly what was planted."""

    def test_a_token(self):
        graph = fit("A", [(X, Y, A, Z), (A, X), (Z, A)])
        assert paths(graph) == {(A,): 1.0}
        assert graph.roots[A].end.support == 3

    def test_a_token_after_another(self):
        assert paths(fit("B after A", [(X, Y, A, B), (A, B, X), (B, Z, A, B)])) == {(B, A): 1.0}

    def test_a_window_of_one_token(self):
        assert paths(fit("A", [(A,), (A,)])) == {(A,): 1.0}

    def test_wildcards_between(self):
        texts = [(X, D, C), (X, D, Y, C), (Z, D, X, Y, C)]
        planted = {(C, D): 1.0, (C, IGNORE, D): 1.0, (C, IGNORE, IGNORE, D): 1.0}
        graph = fit("C with D within three", texts)
        assert paths(graph) == planted
        assert graph.predict((D, Z, Z, C, D, Z, Z, Z, C)).tolist() == [0.0] * 3 + [1.0] + [0.0] * 5

    def test_activating_tokens_other_than_the_key_token(self):
        graph = fit("G, and H after G", [(X, G, H, Y)])
        assert paths(graph) == {(G,): 1.0, (H, G): 0.75}

    def test_only_tokens_from_the_threshold_on_are_activating(self):
        options = PaperOptions(augment=False, activation_threshold=0.8)
        assert paths(fit("G, and H after G", [(X, G, H, Y)], options=options)) == {(G,): 1.0}

    def test_only_context_from_the_importance_threshold_on_is_entered(self):
        # E gives 4 after F and 3 alone: F matters by a quarter. Kept at 90 %, F stays in the pruned text.
        texts = [(X, F, E)]
        kept = PaperOptions(augment=False, keep=0.9, importance_threshold=0.25)
        assert paths(fit("graded E", texts, options=kept)) == {(E, F): 1.0}
        unimportant = PaperOptions(augment=False, keep=0.9, importance_threshold=0.3)
        assert paths(fit("graded E", texts, options=unimportant)) == {(E,): 1.0}

    def test_an_end_is_the_mean_of_its_examples_as_shares_of_the_maximum(self):
        graph = fit("graded E", [(X, F, E), (X, X, E)], maximum=4.0)
        assert paths(graph) == {(E,): pytest.approx((1.0 + 0.75) / 2)}
        assert graph.roots[E].end.support == 2
        assert graph.max_activation == 4.0

    def test_exemplars_below_the_threshold_are_passed_over(self):
        graph = fit("graded E", [(X, F, E), (G, E)], maximum=4.0)
        assert (paths(graph), graph.provenance["exemplars"]) == ({(E,): 1.0}, 1)

    @settings(deadline=None, max_examples=30)
    @given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from(FIRING_UNITS[:5]), st.sampled_from((BOS, None)))
    def test_every_activating_token_of_every_pruned_text_is_predicted(self, texts, unit, bos):
        subject = FakeSubject(bos)
        assume(any(subject.direct(unit, text).any() for text in texts))
        graph = fit(unit, texts, subject=subject)
        maximum = max(subject.direct(unit, text).max() for text in texts)
        for text in texts:
            true = subject.direct(unit, text) / maximum
            if true.max() >= 0.5:
                assert graph.predict(text)[true.argmax()] >= 0.5

    @pytest.mark.parametrize("bos", [BOS, None])
    def test_the_bos_is_in_no_path(self, bos):
        subject = FakeSubject(bos)
        texts = [(D, X, C), (A, B, X, C), (A, B), (E, A, B)]
        for unit in FIRING_UNITS:
            graph = fit(
                unit, [text for text in texts if subject.direct(unit, text).any()] or [(F, E, G, H)], subject=subject
            )
            assert BOS not in {node.token for node, _, _ in graph.walk()}
            assert BOS not in graph.token_strings

    def test_strings_and_provenance_go_with_the_graph(self):
        graph = fit("C with D within three", [(D, X, C)])
        assert graph.token_strings == {C: " C", D: " D"}
        assert graph.to_text() == " D*[ C]  1.00  (n=1)"
        assert graph.provenance["method"] == "paper"
        assert graph.provenance["options"]["keep"] == 0.5
        assert graph.provenance["mask"] == MASK
        assert graph.provenance["subject"] == "fake"

    def test_the_same_exemplars_give_the_same_graph_among_other_units(self):
        subject = FakeSubject()
        texts = [(D, X, C, A, B), (F, E, G, H), (X, A, B, D, C)]
        alone = {unit: fit(unit, texts).to_dict() for unit in FIRING_UNITS}
        for units, concurrent, batch_tokens in product((FIRING_UNITS, FIRING_UNITS[::-1]), (1, 256), (1, 4096)):
            fits = {}
            for unit in units:
                exemplars = [exemplar(subject, unit, text) for text in texts]
                maximum = max(float(e.activations.max()) for e in exemplars)
                fits[UNIT[unit]] = fit_paper(unit, maximum, exemplars, context(), PLAIN)
            results = Oracle(subject, BASIS, concurrent=concurrent, batch_tokens=batch_tokens).run(fits)
            assert {unit: results[UNIT[unit]].to_dict() for unit in units} == alone


class TestAugmentedFit:
    def test_verified_substitutes_become_paths_of_their_own(self):
        graph = fit(
            "C with D within three",
            [(X, D, Y, C)],
            options=PaperOptions(),
            augmenter=FakeAugmenter({D: [(X, D), (Y,)], C: [(A,)]}),
        )
        assert paths(graph) == {(C, IGNORE, D): 1.0}
        assert graph.roots[C].children[IGNORE].children[D].end.support == 2  # (X, D, Y, C) as well

    def test_a_substitute_for_the_key_token_adds_its_own_root(self):
        subject, augmenter = FakeSubject(), FakeAugmenter({Z: [(token,) for token in FILLERS]})
        graph = fit("scattered", [(Z,)], options=PaperOptions(), augmenter=augmenter, maximum=1.0)
        true = {(t,): float(subject.direct("scattered", (t,))[0]) for t in FILLERS}
        assert true[Z,] == 1.0
        assert paths(graph) == {path: value for path, value in true.items() if value >= 0.5}

    def test_a_text_that_was_pruned_to_half_strength_holds_its_variants_to_half(self):
        # E alone gives 3 of 4, E after G 1 of 4: variants of (E) need 3/8 of 4 = 1.5.
        graph = fit(
            "graded E", [(F, E)], options=PaperOptions(), maximum=4.0, augmenter=FakeAugmenter({E: [(X, E), (G, E)]})
        )
        assert paths(graph) == {(E,): 1.0}
        assert graph.roots[E].end.support == 2

    def test_a_window_as_long_as_the_context_can_be_augmented(self):
        subject = FakeSubject(n_ctx=5)  # with the BOS, full
        graph = fit(
            "C with D within three",
            [(D, X, Y, C)],
            options=PaperOptions(),
            subject=subject,
            augmenter=FakeAugmenter({D: [(X, D)], C: [(X, C)]}),
        )
        assert paths(graph) == {(C, IGNORE, IGNORE, D): 1.0}


class TestRefusals:
    def test_a_unit_that_never_fires(self):
        with pytest.raises(UnitError, match="maximum activation > 0, found 0"):
            run(fit_paper("dead", 0.0, [exemplar(FakeSubject(), "never", (A, B))], context()), "never")

    def test_a_unit_without_exemplar_from_the_threshold_on(self):
        weak = exemplar(FakeSubject(), "A", (A, B))
        with pytest.raises(UnitError, match=r"unit weak: expected an exemplar .* found 1 below it"):
            run(fit_paper("weak", 9.0, [weak], context()), "A")
        with pytest.raises(UnitError, match="found 0 below it"):
            run(fit_paper("none", 9.0, [], context()), "A")

    def test_one_bad_unit_stops_no_other(self):
        subject = FakeSubject()
        good = exemplar(subject, "A", (X, A))
        fits = {
            UNIT["never"]: fit_paper("never", 0.0, [], context(), PLAIN),
            UNIT["A"]: fit_paper("A", 1.0, [good], context(), PLAIN),
            UNIT["B after A"]: fit_paper("foreign", 1.0, [good], context(), PLAIN),
        }
        results = Oracle(subject, BASIS).run(fits)
        assert isinstance(results[UNIT["never"]], UnitError)
        assert isinstance(results[UNIT["B after A"]], UnitError)
        assert paths(results[UNIT["A"]]) == {(A,): 1.0}

    @pytest.mark.parametrize(
        "bad",
        [
            {"keep": 0.0},
            {"keep": 1.5},
            {"activation_threshold": -1.0},
            {"importance_threshold": 2.0},
            {"max_after": -1},
        ],
    )
    def test_options_out_of_range(self, bad):
        with pytest.raises(InputError, match=f"option {next(iter(bad))}"):
            PaperOptions(**bad)


def test_rounding_between_two_batches_loses_no_key_token():
    class Rounding(FakeSubject):
        """The wider the batch, the smaller the last digit: what padding does to a real model."""

        def activations(self, ids, sites):
            found = super().activations(ids, sites)
            return {site: x * (1 - 1e-6 * (ids.shape[1] > 3)) for site, x in found.items()}

    subject = Rounding()
    at_the_limit = Exemplar((X, E, Z, Z, Z), np.array([0, 6, 0, 0, 0], dtype=np.float32))  # E alone gives exactly half
    graph = run(fit_paper("graded E", 6.0, [at_the_limit], context(), PLAIN), "graded E", subject)
    assert paths(graph) == {(E,): 1.0}
