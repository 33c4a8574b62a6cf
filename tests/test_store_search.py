"""Search: against every unit asked by itself, and with strings that mean harm."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.structure import normal_form
from saelens_n2g.store.grammar import And, BasisIs, LayerIs, Not, Or, Query, Term, parse
from saelens_n2g.store.postings import SCALE
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.writer import Writer

WORDS = [
    "the",
    "york",
    "new",
    "a,b",
    '"',
    "<script>",
    ":",
    "or",
    "not",
    "\n",
    " ",
    "ärger",
    "(x)",
    "\\",
    "layer=3",
    "'",
]
QUICK = settings(max_examples=150, deadline=None, derandomize=True, database=None)
LAYERS = [("a", "neurons", 0), ("a", "neurons", 3), ("a", "sae", 3), ("a", "sae", 4), ("b", "neurons", 0)]


class Known(NamedTuple):
    """A unit as it was written."""

    model: str
    basis: str
    layer: int
    index: int
    tokens: Mapping[tuple[int, str], float]


def units() -> list[Known]:
    """Some two hundred, each word in every role by itself, together, or not at all; two blocks of one layer."""
    found = []
    for place, (model, basis, layer) in enumerate(LAYERS):
        for i in range(40):
            index = i * 7 if place != 2 else 65_500 + i * 2
            seed = hash((place, i)) & 0xFFFFFF
            tokens = {}
            for at, word in enumerate(WORDS):
                case = (seed >> at) % 5
                tokens |= {(0, word): ((seed + at) % 9) / 8} if case in (1, 3) else {}
                tokens |= {(1, word): ((seed + 2 * at) % 9) / 8} if case in (2, 3) else {}
            found.append(Known(model, basis, layer, index, tokens))
    return found


EVERYONE = units()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "atlas.db"
    with Writer(path) as writer, writer.batch():
        source = writer.source(SourceFacts(checksum="c", name="", kind="comparison", total=len(EVERYONE)))
        for one in EVERYONE:
            model = writer.model(ModelFacts(name=one.model, n_layers=5, config={}))
            basis = writer.basis(model, BasisFacts(name=one.basis, kind="mlp_post", title=""))
            layer = writer.layer(basis, LayerFacts(layer=one.layer, width=1 << 17, identity=""))
            writer.unit(layer, source, UnitFacts(index=one.index, figures={}, bodies={}, tokens=one.tokens))
    with Store.open(path) as opened:
        yield opened


# --- against a plain statement --------------------------------------------------------------------------------


def holds(node: Query, unit: Known) -> bool:
    """Whether a unit is found, asked by itself."""
    match node:
        case Term(role, text):
            roles = {"activating": (0,), "important": (1,), "any": (0, 1)}[role]
            return any((r, normal_form(text)) in unit.tokens for r in roles)
        case LayerIs(low, high):
            return low <= unit.layer <= high
        case BasisIs(name):
            return unit.basis == name
        case Not(part):
            return not holds(part, unit)
        case And(parts):
            return all(holds(part, unit) for part in parts)
        case Or(parts):
            return any(holds(part, unit) for part in parts)


def strength(node: Query, unit: Known) -> float:
    """What a unit is sorted by: the terms that find it, but not behind a not and not in a part that does not."""
    match node:
        case Term(role, text) if holds(node, unit):
            roles = {"activating": (0,), "important": (1,), "any": (0, 1)}[role]
            return max(round(unit.tokens.get((r, normal_form(text)), 0) * SCALE) / SCALE for r in roles)
        case And(parts) | Or(parts) if holds(node, unit):
            return sum(strength(part, unit) for part in parts)
    return 0.0


def written(node: Query, draw: st.DrawFn) -> str:
    """The query as somebody may write it: with parentheses, and with the words for it that there are."""
    match node:
        case Term(role, text):
            plain = text and not set(text) & set(' ,()"\n\t\\')
            return f"{role}:{text if plain and draw(st.booleans()) else json.dumps(text)}"
        case LayerIs(low, high):
            return f"layer={low}..{high}" if low != high or draw(st.booleans()) else f"layer={low}"
        case BasisIs(name):
            return f"basis={name}"
        case Not(part):
            return f"not ({written(part, draw)})"
        case And(parts):
            return draw(st.sampled_from([", ", ",", " and ", " AND ", " "])).join(
                f"({written(p, draw)})" for p in parts
            )
        case Or(parts):
            return draw(st.sampled_from([" or ", " Or "])).join(f"({written(part, draw)})" for part in parts)


TERMS: st.SearchStrategy[Query] = (
    st.builds(
        Term, st.sampled_from(["activating", "important", "any"]), st.sampled_from([*WORDS, "The", " New ", "no"])
    )
    | st.builds(LayerIs, st.integers(0, 5), st.integers(0, 5))
    | st.builds(BasisIs, st.sampled_from(["sae", "neurons", "none"]))
)


def grown(smaller: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    several = st.lists(smaller, min_size=2, max_size=4).map(tuple)
    return st.builds(Not, smaller) | st.builds(And, several) | st.builds(Or, several)


TREES = st.recursive(TERMS, grown, max_leaves=8)


@QUICK
@given(TREES, st.data(), st.sampled_from([None, "a", "b"]), st.integers(0, 9), st.integers(0, 30))
def test_search_finds_what_every_unit_says_by_itself(store, tree, data, model, limit, offset):
    query = written(tree, data.draw)
    expected = [unit for unit in EVERYONE if model in (None, unit.model) and holds(tree, unit)]
    expected.sort(key=lambda unit: unit[:4])
    found = store.search(query, model=model, limit=1000)
    assert found.total == len(expected)
    assert [address(hit.unit) for hit in found.hits] == [unit[:4] for unit in expected]
    assert [hit.strength for hit in found.hits] == pytest.approx([strength(tree, unit) for unit in expected])
    page = store.search(query, model=model, limit=limit, offset=offset)
    assert page == (found.total, found.hits[offset : offset + limit])
    strongest = store.search(query, model=model, sort="strength", limit=1000)
    assert list(strongest.hits) == sorted(found.hits, key=lambda hit: -hit.strength)


def address(unit) -> tuple[str, str, int, int]:
    return unit.model, unit.basis, unit.layer, unit.index


def test_the_units_say_something():
    """Some of everything, or the test above would prove nothing."""
    for word in WORDS:
        roles = [sum((role, word) in unit.tokens for unit in EVERYONE) for role in (0, 1)]
        both = sum({(0, word), (1, word)} <= unit.tokens.keys() for unit in EVERYONE)
        assert min(roles) > both > 0
        assert max(roles) < len(EVERYONE)


# --- grammar --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("any:the", Term("any", "the")),
        ("activating:the,important:a", And((Term("activating", "the"), Term("important", "a")))),
        ("any:The ", Term("any", "The")),
        ('any:"a, \\"b\\"\\n\\u00e4"', Term("any", 'a, "b"\nä')),
        ("any: the", Term("any", "the")),
        ("ANY::", Term("any", ":")),
        ("any:or or any:not", Or((Term("any", "or"), Term("any", "not")))),
        ("any:a any:b or any:c", Or((And((Term("any", "a"), Term("any", "b"))), Term("any", "c")))),
        ("any:a,(any:b or any:c)", And((Term("any", "a"), Or((Term("any", "b"), Term("any", "c")))))),
        ("not not layer=3", Not(Not(LayerIs(3, 3)))),
        ("not(any:a)and(layer=1..5)", And((Not(Term("any", "a")), LayerIs(1, 5)))),
        ('basis="tied-R4"', BasisIs("tied-R4")),
        ("any:日本 any:<script>", And((Term("any", "日本"), Term("any", "<script>")))),
        ("any:orange", Term("any", "orange")),
        ("any:a andy", None),
    ],
)
def test_what_queries_mean(query, tree):
    if tree is None:
        with pytest.raises(InputError):
            parse(query)
    else:
        assert parse(query) == tree


@pytest.mark.parametrize(
    ("query", "position", "expected"),
    [
        ("", 1, "activating:TOKEN"),
        ("the", 1, "activating:TOKEN"),
        ("any:", 5, "a token"),
        ("any:a,", 7, "activating:TOKEN"),
        ("any:a or", 9, "activating:TOKEN"),
        ("any:a, any:(", 12, "in quotes"),
        ("(any:a", 7, '")"'),
        ("any:a)", 6, "an end"),
        ("any:a unknown:b", 7, "activating:TOKEN"),
        ("layer=x", 7, "a layer such as 3"),
        ("layer=1..", 7, "a layer such as 3"),
        ("layer=-1", 7, "a layer such as 3"),
        ("layer=9999999999", 7, "a layer such as 3"),
        ('any:"open', 5, "a token"),
        (r'any:"\x41"', 5, "uXXXX"),
        (r'any:"\ud800"', 5, "whole characters"),
        ("any:\udcff", 5, "whole characters"),
        ("not " * 30 + "any:a", 81, "20 levels"),
        ("(" * 30 + "any:a", 21, "20 levels"),
        ("any:a " * 70, 385, "64 terms"),
    ],
)
def test_what_cannot_be_read_is_shown_with_its_place(query, position, expected):
    with pytest.raises(InputError) as caught:
        parse(query)
    assert caught.value.found.endswith(f"at position {position}")
    assert expected in caught.value.expected
    assert len(str(caught.value)) < 250


def test_queries_have_an_end():
    with pytest.raises(InputError, match="2000 letters"):
        parse("any:" + "a" * 2000)


MARKS = [
    "any:",
    "activating:",
    "important:",
    "layer=",
    "basis=",
    "(",
    ")",
    ",",
    '"',
    "\\",
    " or ",
    " and ",
    " not ",
    "3",
]
HARM = ["\x00", "\ud800", "\u202e", "🙂", "%", "';--", "\\u12", "1e9", "٣", ".."]
PIECES = st.sampled_from([*MARKS, *WORDS, *HARM])


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=60) | st.lists(PIECES, max_size=25).map("".join))
@example("any:\x00")
@example('any:"\\u0000"')
@example("layer=٣")
@example("not " * 20 + "any:a")
@example("basis='; DROP TABLE units; --")
@example("any:a" + ")" * 50)
def test_strings_that_mean_harm_give_results_or_say_where_they_are_wrong(store, query):
    try:
        found, refused = store.search(query, limit=5), None
    except InputError as error:
        found, refused = None, error
    if found is None:
        assert "position" in refused.found
        assert len(refused.found) < 200
    else:
        assert 0 <= found.total <= len(EVERYONE)
        assert len(found.hits) == min(found.total, 5)


def test_what_cannot_be_asked(store):
    for options in ({"limit": -1}, {"limit": 10**6}, {"offset": -1}, {"sort": "f1"}, {"model": "none"}):
        with pytest.raises(InputError):
            store.search("any:the", **options)
