"""Exemplars against a plain statement: strongest first, said once, none of test repeats fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.corpus import Windows
from saelens_n2g.exemplars import CONTEXT, SAME, SHINGLE, Exemplar, choose_exemplars, exemplar, is_duplicate

WIDTH = 24


def windows(rows: list[list[int]], bos: int | None = 0) -> Windows:
    """Windows of the given scored tokens, each its own document."""
    front = [] if bos is None else [bos]
    tokens = np.full((len(rows), WIDTH + 1), 1, dtype=np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(front) + len(row)] = front + row
    lengths = np.array([len(front) + len(row) for row in rows], dtype=np.int32)
    return Windows(tokens, lengths, np.arange(len(rows), dtype=np.int32), tuple(map(str, range(len(rows)))), bos, "")


def grid(text: Windows, values: list[list[float]]) -> np.ndarray:
    out = np.zeros(text.tokens.shape, dtype=np.float32)
    out[text.mask] = [v for row in values for v in row]
    return out


def distinct(n: int, length: int = 16) -> list[list[int]]:
    """Rows that share no token."""
    return [list(range(100 * (i + 1), 100 * (i + 1) + length)) for i in range(n)]


def same_text(a: Exemplar, b: Exemplar) -> bool:
    """Near-duplicates as the module's constants say them, in sets of slices."""

    def shingles(tokens: tuple[int, ...]) -> set[tuple[int, ...]]:
        return {tokens[i : i + SHINGLE] for i in range(len(tokens)) if i + SHINGLE <= len(tokens)}

    def key(e: Exemplar) -> int:
        return e.activations.tolist().index(max(e.activations.tolist()))

    mine, theirs = shingles(a.tokens), shingles(b.tokens)
    alike = bool(mine and theirs) and len(mine & theirs) / len(mine | theirs) >= SAME
    ends = [e.tokens[key(e) - CONTEXT : key(e) + 1] if key(e) >= CONTEXT else None for e in (a, b)]
    return alike or (ends[0] is not None and ends[0] == ends[1])


def naive(text: Windows, values: np.ndarray, rows: list[int], top: int, taken: list[Exemplar]) -> list[Exemplar]:
    found = []
    for row in sorted(rows, key=lambda r: (-values[r].max(), r)):
        new = exemplar(text, values, row)
        if len(found) < top and values[row].max() > 0 and not any(same_text(new, other) for other in taken):
            found.append(new)
            taken.append(new)
    return found


TOKEN_ROWS = st.lists(st.lists(st.integers(2, 4), min_size=4, max_size=WIDTH), min_size=2, max_size=10)


@given(TOKEN_ROWS, st.data(), st.integers(1, 4), st.sampled_from([0, None]))
def test_choice_is_the_naive_one(rows, data, top, bos):
    text = windows(rows, bos)
    strength = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    values = grid(text, [data.draw(st.lists(strength, min_size=len(r), max_size=len(r))) for r in rows])
    test_rows = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=len(rows) - 1)))
    fit_rows = [r for r in range(len(rows)) if r not in test_rows]
    found = choose_exemplars(text, values, np.array(fit_rows), np.array(test_rows), top=top, random=3)
    taken: list[Exemplar] = []
    assert [e.window for e in found.fit] == [e.window for e in naive(text, values, fit_rows, top, taken)]
    assert [e.window for e in found.test] == [e.window for e in naive(text, values, test_rows, top, taken)]
    for e in (*found.fit, *found.test, *found.random):
        assert list(e.tokens) == rows[e.window], "no BOS, no padding"
        assert e.activations.tolist() == values[e.window][text.mask[e.window]].tolist()
        assert e.activations.dtype == np.float32
    for e in found.test:
        assert not any(same_text(e, other) for other in found.fit)


def test_strongest_first_and_equal_ones_by_row():
    text = windows(distinct(5))
    values = grid(text, [[peak] + [0.1] * 15 for peak in (1.0, 3.0, 2.0, 3.0, 0.5)])
    found = choose_exemplars(text, values, np.arange(5), np.array([], dtype=int), top=4)
    assert [e.window for e in found.fit] == [1, 3, 2, 0]
    assert (found.test, found.random, found.duplicates) == ((), (), 0)


def test_near_duplicates_are_left_out_and_counted():
    row = distinct(1, 20)[0]
    nearly = [*row[:15], 1, 2, 3, 4, 5]  # 11 of 16 + 5 shingles are the same
    other = [*row[:10], *range(50, 60)]  # 6 of 26
    text = windows([row, nearly, other, row])
    values = grid(text, [[peak] * 20 for peak in (4.0, 3.0, 2.0, 1.0)])
    found = choose_exemplars(text, values, np.array([0, 1, 2]), np.array([3]), top=3, random=1)
    assert [e.window for e in found.fit] == [0, 2]
    assert found.test == (), "a test window that repeats a fit window is none"
    assert found.duplicates == 2
    assert [e.window for e in found.random] == [3], "random windows are the population, repeats included"


def test_the_same_passage_up_to_the_key_token_is_a_duplicate():
    passage = list(range(10, 10 + CONTEXT + 1))
    one = Exemplar((*range(50, 56), *passage), np.eye(1, 6 + CONTEXT + 1, 5 + CONTEXT + 1, dtype=np.float32)[0])
    two = Exemplar((*passage, *range(70, 90)), np.eye(1, CONTEXT + 21, CONTEXT, dtype=np.float32)[0])
    elsewhere = Exemplar(two.tokens, np.eye(1, CONTEXT + 21, CONTEXT + 5, dtype=np.float32)[0])
    assert is_duplicate(two, [one])
    assert not is_duplicate(elsewhere, [one])
    assert not is_duplicate(one, [])


def test_short_windows_are_no_duplicates_by_default():
    """Too short for a shingle or a passage: nothing is known, so nothing is thrown away."""
    one, two = (Exemplar((5, 6), np.array([1.0, 0.0], dtype=np.float32)) for _ in range(2))
    assert not is_duplicate(one, [two])


def test_fewer_windows_than_asked_for():
    text = windows(distinct(4))
    values = grid(text, [[peak] * 16 for peak in (1.0, 0.0, 2.0, 0.0)])
    found = choose_exemplars(text, values, np.array([0, 1]), np.array([2, 3]), top=20, random=20)
    assert ([e.window for e in found.fit], [e.window for e in found.test]) == ([0], [2])
    assert sorted(e.window for e in found.random) == [2, 3]


def test_a_unit_that_is_zero_everywhere_has_random_windows_only():
    text = windows(distinct(4))
    found = choose_exemplars(text, grid(text, [[0.0] * 16] * 4), np.array([0, 1]), np.array([2, 3]))
    assert (found.fit, found.test, len(found.random)) == ((), (), 2)


def test_random_windows_depend_on_the_seed_alone():
    text = windows(distinct(30))
    weak, strong = (grid(text, [[v] * 16] * 30) for v in (0.1, 5.0))

    def drawn(values, seed: int) -> list[int]:
        found = choose_exemplars(text, values, np.arange(10), np.arange(10, 30), random=6, seed=seed)
        return [e.window for e in found.random]

    assert drawn(weak, 1) == drawn(strong, 1), "the same for every unit"
    assert len({tuple(drawn(weak, seed)) for seed in range(5)}) == 5
    assert len(set(drawn(weak, 1))) == 6
    assert set(drawn(weak, 1)) <= set(range(10, 30))


@pytest.mark.parametrize(("values", "peak"), [([0, 2, 1], 1), ([3, 3, 1], 0), ([0, 0, 0], 0)])
def test_the_key_token_is_the_first_of_the_largest(values, peak):
    assert Exemplar((7, 8, 9), np.array(values, dtype=np.float32)).peak == peak
