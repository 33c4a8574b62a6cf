"""Weighing and simplifying: what is left of the candidates answers as what is left out would have."""

import numpy as np
from fakes import A, B, C
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.graphs.elements import IGNORE, START, gap, is_gap
from saelens_n2g.graphs.evidence import FitText
from saelens_n2g.graphs.graph import End, Graph, Node
from saelens_n2g.graphs.weighing import Candidate, Weighing, Weights

TOKENS = (A, B, C)
EXACT = [(A,), (A, B), (A, START), (A, C), (B, A), (A, B, C), (A, B, C, A), (A, B, START)]
LOOSE = [
    (A, IGNORE, B),
    (A, gap(2), B),
    (A, gap(2), START),
    (B, IGNORE, IGNORE, C),
    (A, IGNORE, START),
    (A, B, gap(3), C),
]
ROWS = st.lists(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=7), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


def text_of(rows: list[list[int]]) -> FitText:
    width = max(map(len, rows))
    mask = np.array([[i < len(row) for i in range(width)] for row in rows])
    return FitText(np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.int64), mask)


def weighed(rows: list[list[int]], seed: int, candidates: list[tuple[int, ...]], **weights: float) -> Weighing:
    """Random activations, random answers to some of the candidates."""
    rng, text = np.random.default_rng(seed), text_of(rows)
    values = rng.random(text.tokens.shape).astype(np.float32)
    weighing = Weighing(text, values, Weights(**weights))
    for path in candidates:
        if rng.random() < 0.6:
            weighing.hear(path, (rng.random(3) ** rng.choice([0.3, 1.0, 3.0])).tolist())
    weighing.weigh()
    return weighing


def everything(weighing: Weighing) -> Graph:
    """Every candidate as a path of its own; it fires if its share says so. What matches anything ends no path."""
    graph = Graph("unit", 1.0)

    def enter(level: dict[int, Node], candidates: dict[int, Candidate]) -> None:
        for element, candidate in candidates.items():
            node = level[element] = Node(element, 1.0)
            if element != IGNORE and not is_gap(element):
                node.end = End(float(candidate.share >= weighing.weights.decision))
            enter(node.children, candidate.children)

    enter(graph.roots, weighing.roots)
    return graph


def answers(graph: Graph, rows: list[list[int]]) -> list[list[bool]]:
    found = [[graph.matches(row, i) for i in range(len(row))] for row in rows]
    return [[bool(matches) and matches[-1].activation >= 0.5 for matches in row] for row in found]


@settings(max_examples=80, deadline=None)
@given(ROWS, ROWS, SEEDS, st.integers(0, 2))
def test_what_is_kept_of_exact_candidates_answers_as_all_of_them(rows, others, seed, order):
    weighing = weighed(rows, seed, EXACT, order=order)
    assert answers(weighing.graph("unit", 1.0), rows + others) == answers(everything(weighing), rows + others)


@settings(max_examples=100, deadline=None)
@given(ROWS, ROWS, SEEDS, st.integers(0, 2))
def test_what_is_simplified_answers_as_before(rows, others, seed, order):
    """With wildcards and gaps too, where paths overlap in other ways than one being the longer of two."""
    weighing = weighed(rows, seed, EXACT + LOOSE, order=order)
    assert answers(weighing.graph("unit", 1.0), rows + others) == answers(weighing.kept("unit", 1.0), rows + others)


@settings(max_examples=100, deadline=None)
@given(ROWS, SEEDS)
def test_what_is_kept_is_a_graph_that_can_be_stored(rows, seed):
    graph = weighed(rows, seed, EXACT + LOOSE).graph("unit", 1.0)
    assert Graph.from_dict(graph.to_dict()).to_dict() == graph.to_dict()
    for node, _, _ in graph.walk():
        assert node.children or node.end is not None
        if node.end is not None:
            assert 0.0 <= node.end.activation <= 1.0
            assert 0 <= node.end.support <= node.end.seen
