"""The method `suffix` against a plain statement of the published one, and the registry that it is found by."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fakes import BASIS, FILLERS, MASK, A, B, C, D, E, F, FakeSubject, G, context, exemplar, run
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.evidence import Evidence, FitText
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import (
    METHODS,
    all_methods,
    augments,
    find_method,
    register,
    without_augmentation,
)
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import PaperOptions, fit_paper
from saelens_n2g.graphs.questions import ask_activations
from saelens_n2g.graphs.suffix import SuffixOptions, covering, fit_suffix

X, Y, Z = FILLERS[:3]
UNITS = ("A", "B after A", "C with D within three", "graded E", "G, and H after G", "scattered")
ROWS = st.lists(st.sampled_from((A, B, C, D, E, F, G, X, Y)), min_size=1, max_size=9).map(tuple)


def fitted(unit: str, rows: list[tuple[int, ...]], subject: FakeSubject | None = None, **options) -> Graph:
    subject = subject or FakeSubject()
    shown = [exemplar(subject, unit, row) for row in rows]
    evidence = Evidence(max(float(e.activations.max()) for e in shown), shown)
    return run(fit_suffix(unit, evidence, context(), SuffixOptions(**options)), unit, subject)


def paths(graph: Graph) -> dict[tuple[int, ...], float]:
    """Elements of every path, key token first, with its value."""
    found, path = {}, list[int]()
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None:
            found[tuple(path)] = node.end.activation
    return found


# --- what comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "row", "expected"),
    [
        ("A", (X, Y, A), {(A,): 1.0}),
        ("B after A", (X, A, B, Y), {(B, A): 1.0}),
        ("C with D within three", (X, D, Y, Z, C), {(C, IGNORE, IGNORE, D): 1.0}),
        ("graded E", (X, F, E), {(E,): 0.75}),  # alone it keeps 3 of 4: the context that adds to it is not seen
        ("graded E", (F, E, X, E), {(E,): 0.75}),
    ],
)
def test_the_shortest_text_with_wildcards_is_the_path(unit, row, expected):
    assert paths(fitted(unit, [row])) == expected


def test_what_holds_at_the_start_alone_is_tied_to_it():
    subject = FakeSubject(bos_id=None)
    graph = fitted("first", [(X, Y), (A, A)], subject)
    assert paths(graph) == {(X, START): 1.0, (A, START): 1.0}
    assert graph.predict((X, X, A)).tolist() == [1.0, 0.0, 0.0]


def test_an_example_that_a_shorter_path_covers_is_counted_there():
    """Alone E says 3; after G it says 1, which F further back does not change: G is what halves it."""
    shown = [Exemplar((E,), np.array([3.0], dtype=np.float32)), Exemplar((F, E), np.array([0.0, 6.0], np.float32))]
    graph = run(fit_suffix("graded E", Evidence(6.0, shown), context()), "graded E")
    assert paths(graph) == {(E,): 0.5}
    assert graph.roots[E].end.support == 2


def test_a_weak_suffix_still_says_that_the_unit_fires():
    """The suffix keeps half of the activation, which of an exemplar of 0.8 of the maximum leaves 0.4."""
    shown = [Exemplar((X, E), np.array([0.0, 6.0], dtype=np.float32))]
    graph = run(fit_suffix("graded E", Evidence(7.5, shown), context()), "graded E")
    assert paths(graph) == {(E,): 0.5}


def test_what_a_graph_carries():
    graph = fitted("B after A", [(X, A, B)])
    assert graph.token_strings == {A: " A", B: " B"}
    assert graph.provenance["method"] == "suffix"
    assert graph.provenance["options"] == {"keep": 0.5, "importance_threshold": 0.5, "activation_threshold": 0.5}
    assert (graph.provenance["exemplars"], graph.provenance["mask"]) == (1, MASK)
    assert graph.provenance["subject"] == "fake"
    assert Graph.from_dict(graph.to_dict()) == graph


@pytest.mark.parametrize("maximum", [0.0, float("nan")])
def test_a_unit_that_never_fires_has_no_graph(maximum):
    with pytest.raises(UnitError, match="unit u: expected a maximum activation > 0"):
        run(fit_suffix("u", Evidence(maximum, [exemplar(FakeSubject(), "A", (A,))]), context()), "A")


def test_exemplars_without_firing_give_no_graph():
    shown = [exemplar(FakeSubject(), "A", (A, X))]
    with pytest.raises(UnitError, match=r"activation >= 1\.5, found 1 below it"):
        run(fit_suffix("u", Evidence(3.0, shown), context()), "A")


@pytest.mark.parametrize("name", ["keep", "importance_threshold", "activation_threshold"])
@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_options_that_cannot_be(name, value):
    with pytest.raises(InputError, match=f"option {name}"):
        SuffixOptions(**{name: value})


# --- against the published algorithm --------------------------------------------------------------------------


def published(subject: FakeSubject, unit: str, row: tuple[int, ...]) -> tuple[list[int | None], bool]:
    """The pattern of one exemplar, key token first, None for any token, and whether it is tied to the start."""
    whole = subject.direct(unit, row)
    key = int(whole.argmax())
    for n in range(1, key + 2):
        text = row[key + 1 - n : key + 1]
        own = subject.direct(unit, text)[-1]
        if own >= 0.5 * whole[key]:
            break
    pattern: list[int | None] = [text[-1]]
    for i in range(len(text) - 2, -1, -1):
        masked = subject.direct(unit, (*text[:i], MASK, *text[i + 1 :]))[-1]
        pattern.append(text[i] if 1 - masked / own >= 0.5 else None)
    tied = subject.direct(unit, (MASK, *text))[-1] < 0.5 * whole[key]
    while pattern[-1] is None and not tied:
        pattern.pop()
    return pattern, tied


def fires(pattern: list[int | None], tied: bool, text: tuple[int, ...], at: int) -> bool:
    if len(pattern) > at + 1 or (tied and len(pattern) != at + 1):
        return False
    return all(want in (None, text[at - back]) for back, want in enumerate(pattern))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(UNITS), st.lists(ROWS, min_size=1, max_size=5), ROWS, st.booleans())
def test_it_fires_where_a_pattern_of_the_published_method_matches(unit, rows, text, bos):
    subject = FakeSubject() if bos else FakeSubject(bos_id=None)
    peaks = [float(subject.direct(unit, row).max()) for row in rows]
    kept = [row for row, peak in zip(rows, peaks, strict=True) if 0.0 < 0.5 * max(peaks) <= peak]
    if not kept:
        return
    graph = fitted(unit, rows, subject)
    patterns = [published(subject, unit, row) for row in kept]
    expected = [any(fires(*pattern, text, at) for pattern in patterns) for at in range(len(text))]
    assert (graph.predict(text) >= 0.5).tolist() == expected
    assert sum(node.end.support for node, _, _ in graph.walk() if node.end) == len(kept), "no example is lost"


PATHS = st.lists(st.sampled_from((A, B, IGNORE)), max_size=3).flatmap(
    lambda inner: st.sampled_from(([A, *inner, B], [B, *inner, A], [A, *inner, START]))
)


@given(st.lists(PATHS, max_size=5), PATHS)
def test_a_path_is_covered_by_a_shorter_one_that_asks_for_no_more(known, path):
    graph = Graph("u", 1.0)
    for one in known:
        graph.add([(e, 1.0) for e in one], 1.0)
    covers = [
        q
        for q in known
        if len(q) < len(path) and all(e in (IGNORE, p) for e, p in zip(q, path, strict=False))
    ]  # fmt: skip
    found = covering(graph, path)
    if not covers:
        assert found is None
    else:
        assert found in covers
        assert len(found) == min(map(len, covers))


def test_many_exemplars_cost_few_calls():
    subject = FakeSubject()
    rows = [(x, y, A, B) for x in FILLERS for y in FILLERS]
    shown = [exemplar(subject, "B after A", row) for row in rows]
    oracle = Oracle(subject, BASIS)
    oracle.run({1: fit_suffix("u", Evidence(2.0, shown), context())})
    assert oracle.costs.calls <= 3
    assert oracle.costs.rows_run < 20, "what is alike is asked once"


# --- the registry ---------------------------------------------------------------------------------------------


def test_methods_are_found_by_name():
    assert {"paper", "suffix"} <= set(all_methods())
    for name, method in all_methods().items():
        assert method.name == name
        assert "\n" not in method.description
        assert method.settings() == method.options()
    assert find_method("suffix").options is SuffixOptions
    assert find_method("paper").options is PaperOptions
    with pytest.raises(InputError, match=r"method 'guess': expected one of paper, .*suffix.*, found 'guess'"):
        find_method("guess")


@pytest.mark.parametrize("options", [None, PaperOptions(augment=False, importance_threshold=0.5)])
def test_paper_out_of_the_registry_is_paper(options):
    options = options or PaperOptions(augment=False)
    shown = [exemplar(FakeSubject(), "B after A", (X, A, B)), exemplar(FakeSubject(), "B after A", (A, B, Y))]
    ours = find_method("paper").fit("u", Evidence(2.0, shown), context(), options)
    assert run(ours, "B after A") == run(fit_paper("u", 2.0, shown, context(), options), "B after A")


def test_without_options_the_defaults():
    shown = [exemplar(FakeSubject(), "A", (X, A))]
    graph = run(find_method("suffix").fit("u", Evidence(1.0, shown), context()), "A")
    assert graph == run(fit_suffix("u", Evidence(1.0, shown), context(), SuffixOptions()), "A")


def test_options_of_another_method_are_refused():
    with pytest.raises(InputError, match="options of method 'suffix': expected SuffixOptions, found PaperOptions"):
        find_method("suffix").fit("u", Evidence(1.0, []), context(), PaperOptions())


def test_augmentation_is_a_matter_of_the_options():
    assert augments(PaperOptions())
    assert not augments(without_augmentation(PaperOptions(keep=0.4)))
    assert without_augmentation(PaperOptions(keep=0.4)) == PaperOptions(keep=0.4, augment=False)
    assert not augments(SuffixOptions())
    assert without_augmentation(SuffixOptions(keep=0.4)) == SuffixOptions(keep=0.4)


@dataclass(frozen=True)
class Lookup:
    least: float = 0.5


def test_a_new_method_registers_itself_and_gets_the_text(monkeypatch):
    monkeypatch.setattr("saelens_n2g.graphs.methods.METHODS", dict(METHODS))

    @register("lookup", "tokens on which the unit fires", Lookup, needs_text=True)
    def fit_lookup(unit, evidence, context, options):  # noqa: ARG001
        yield from ask_activations([(A,)])
        graph = Graph(unit, evidence.max_activation)
        for token in sorted(set(evidence.text.tokens[evidence.activations >= options.least].tolist())):
            graph.add([(token, 1.0)], 1.0)
        return graph

    method = find_method("lookup")
    assert (method.needs_text, method.reads) == (True, ("text",))
    assert find_method("suffix").reads == find_method("paper").reads == ()
    tokens, values = np.array([[A, B], [C, A]]), np.array([[1.0, 0.0], [0.0, 0.6]], dtype=np.float32)
    evidence = Evidence(1.0, [], FitText(tokens, np.ones((2, 2), dtype=bool)), values)
    assert paths(run(method.fit("u", evidence, context()), "A")) == {(A,): 1.0}
    assert paths(run(method.fit("u", evidence, context(), Lookup(0.0)), "A")).keys() == {(A,), (B,), (C,)}
    with pytest.raises(InputError, match="evidence of unit u: expected fit text, which method 'lookup' reads"):
        method.fit("u", replace(evidence, text=None, activations=None), context())
    with pytest.raises(AssertionError, match="registered twice"):
        register("lookup", "again", Lookup)(fit_lookup)
