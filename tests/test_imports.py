"""Published exemplars: every format says the same, damage is named, tokens are aligned or refused."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeSubject
from hypothesis import given
from hypothesis import strategies as st
from published import (
    LAYER,
    neuronpedia_feature,
    neuronpedia_lines,
    neuroscope,
    openai_record,
    strongest,
    windows,
    write_delphi,
    write_json_lines,
)
from safetensors.numpy import load_file, save_file
from tiny import PlainModel

from saelens_n2g.errors import ArtefactError, InputError, N2GError, UnitError
from saelens_n2g.exemplars import is_duplicate
from saelens_n2g.imports import files
from saelens_n2g.imports.align import MARKS, Aligner, Misaligned
from saelens_n2g.imports.choice import COUNTS, choose
from saelens_n2g.imports.formats import all_formats, format_of, published
from saelens_n2g.imports.gather import gather, listed
from saelens_n2g.imports.published import PublishedText, PublishedUnit
from saelens_n2g.subject import Tokenizer

UNIT = 5


@pytest.fixture(scope="module")
def model(tiny_model) -> PlainModel:
    return PlainModel(tiny_model)


@pytest.fixture(scope="module")
def found(model):
    return windows(model)


@pytest.fixture(scope="module")
def aligner(tiny_model) -> Aligner:
    return Aligner(Tokenizer.load(str(tiny_model)), 0)


@pytest.fixture
def made(tmp_path, found) -> dict[str, Path]:
    """One neuron's texts in every format and container."""
    top = strongest(found, UNIT)
    (tmp_path / "pretty").write_text(json.dumps(neuroscope(top, UNIT), indent=2))
    return {
        "neuroscope": write_json_lines(tmp_path / "a.bin", [neuroscope(top, UNIT)]),
        "neuroscope bare": write_json_lines(tmp_path / "b", [neuroscope(top, UNIT, envelope=False)]),
        "neuroscope pretty": tmp_path / "pretty",
        "neuroscope list": write_json_lines(tmp_path / "c", [[neuroscope(top, UNIT), neuroscope(top, 6)]]),
        "neuroscope lines": write_json_lines(tmp_path / "d", [neuroscope(top, UNIT), neuroscope(top, 6)]),
        "neuronpedia export": write_json_lines(tmp_path / "batch-0.jsonl.gz", neuronpedia_lines(top, UNIT)),
        "neuronpedia feature": write_json_lines(tmp_path / "e.json", [neuronpedia_feature(top, UNIT)]),
        "openai": write_json_lines(tmp_path / "f.json", [openai_record(top, UNIT)]),
        "delphi": write_delphi(tmp_path / "cache", top, [UNIT, 6]),
    }


def text(strings, activations, ids=None, which="top") -> PublishedText:
    return PublishedText("here", np.array(activations, dtype=np.float32), strings and tuple(strings), ids, which)


# --- formats ------------------------------------------------------------------------------------------------------


def test_every_format_is_recognised_by_content(made):
    for name, path in made.items():
        kind = format_of(path)
        assert kind is not None
        assert kind.name == name.split()[0]
    assert {name.split()[0] for name in made} == set(all_formats())


def test_all_formats_say_the_same_of_a_unit(made, found, aligner):
    """Tokens exactly; activations too, but for delphi's half precision and for what it does not store."""
    top = strongest(found, UNIT)
    for name, path in made.items():
        units = [one for one in published(path) if one.index == UNIT]
        assert {one.layer for one in units} == {LAYER}
        texts = [text for one in units for text in one.texts]
        told = {}
        for one in texts:
            aligned = aligner.align(one, marks=units[0].marks)
            assert aligned.how == "exact"
            told[aligned.ids] = aligned.activations
        expected = [w for w in top if name != "delphi" or w.neurons[:, UNIT].max() > 1e-5]
        assert set(told) == {tuple(w.ids) for w in expected}, name
        for w in expected:
            true = w.neurons[:, UNIT]
            if name == "delphi":
                np.testing.assert_allclose(told[tuple(w.ids)], np.maximum(true, 0), atol=2e-3)
            else:
                np.testing.assert_array_equal(told[tuple(w.ids)], true)


def test_sets_and_maxima_are_kept(made):
    (record,) = published(made["openai"])
    assert [text.which for text in record.texts[-4:]] == ["quantile 0", "quantile 1", "random", "random"]
    (feature,) = published(made["neuronpedia feature"])
    assert (feature.maximum, feature.model, feature.source) == (9.5, "tiny", "1-mlp")
    (unit,) = published(made["neuroscope"])
    assert unit.maximum == pytest.approx(max(text.activations[1:].max() for text in unit.texts))


def test_only_units_that_are_wanted_are_read(made):
    assert [one.index for one in published(made["delphi"])] == [UNIT, 6]
    assert [one.index for one in published(made["delphi"], lambda index: index == 6)] == [6]
    assert [one.index for one in published(made["neuroscope lines"], lambda index: index == 6)] == [6]


def test_latents_of_a_later_split_are_counted_from_its_start(tmp_path, found):
    path = write_delphi(tmp_path, strongest(found, 40), [40], first=32)
    assert load_file(path)["locations"][:, 2].max() == 8
    assert [one.index for one in published(path)] == [40]


# --- damage -------------------------------------------------------------------------------------------------------


def broken(change) -> dict:
    value = {
        "neuron_index": {"layer": 0, "neuron": 1},
        "texts": [{"tokens": ["a", "b"], "activations": [0.0, 1.0], "max_range": 1.0}],
    }
    change(value)
    return value


BROKEN = {
    "lengths": lambda v: v["texts"][0]["tokens"].append("c"),
    "empty": lambda v: v["texts"][0].update(tokens=[], activations=[]),
    "nan": lambda v: v["texts"][0].update(activations=[0.0, float("nan")]),
    "infinite": lambda v: v["texts"][0].update(activations=[0.0, float("inf")]),
    "larger than float32": lambda v: v["texts"][0].update(activations=[0.0, 1e300]),
    "text for a number": lambda v: v["texts"][0].update(activations=[0.0, "1"]),
    "truth for a number": lambda v: v["texts"][0].update(activations=[0.0, True]),
    "number for a token": lambda v: v["texts"][0].update(tokens=["a", 1]),
    "half a character": lambda v: v["texts"][0].update(tokens=["a", "\ud800"]),
    "no list": lambda v: v["texts"][0].update(tokens="ab"),
    "text is no object": lambda v: v.update(texts=[3]),
    "texts are no list": lambda v: v.update(texts={}),
    "negative index": lambda v: v["neuron_index"].update(neuron=-1),
    "huge index": lambda v: v["neuron_index"].update(neuron=2**40),
    "fractional layer": lambda v: v["neuron_index"].update(layer=0.5),
    "no layer": lambda v: v["neuron_index"].pop("layer"),
    "ids too few": lambda v: v["texts"][0].update(ids=[1]),
    "ids negative": lambda v: v["texts"][0].update(ids=[1, -1]),
    "range": lambda v: v["texts"][0].update(max_range="much"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_record_is_named(name, tmp_path):
    good = broken(lambda _: None)
    path = write_json_lines(tmp_path / "x.jsonl", [good, broken(BROKEN[name])])
    with pytest.raises(ArtefactError, match="line 2") as error:
        list(published(path))
    assert str(path) in str(error.value)
    assert "expected" in str(error.value)
    assert "found" in str(error.value)


def test_a_record_of_another_format_is_named(tmp_path, found):
    top = strongest(found, UNIT)
    path = write_json_lines(tmp_path / "x", [neuroscope(top, UNIT), openai_record(top, UNIT)])
    with pytest.raises(ArtefactError, match="line 2: expected a record of format neuroscope"):
        list(published(path))


def test_files_that_are_cut_short_or_nested_too_deep(tmp_path, made):
    whole = made["neuronpedia export"].read_bytes()
    for name, data in {
        "gzip": whole[: len(whole) // 2],
        "json": made["neuroscope"].read_bytes()[:500],
        "last line": gzip.decompress(whole)[:-40],
        "deep": b"[" * 100_000,
        "bytes": b'{"a": "\xff"}\n',
        "digits": b'{"a": ' + b"9" * 10_000 + b"}\n",
        "safetensors": made["delphi"].read_bytes()[:-10],
    }.items():
        path = tmp_path / f"cut-{name}"
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match=str(path)):
            list(published(path))


def test_pickles_are_no_format(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(pickle.dumps({"neuron_index": 1, "texts": []}))
    assert format_of(path) is None
    with pytest.raises(InputError, match="found something else"):
        listed([path])


def test_long_lines_and_documents_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LINE", 1000)
    monkeypatch.setattr(files, "WHOLE", 2000)
    (tmp_path / "line").write_text(json.dumps({"a": "b" * 2000}))
    (tmp_path / "document").write_text("[\n" + '"a",\n' * 1000 + '"b"]')
    for name in ("line", "document"):
        with pytest.raises(ArtefactError, match="at most"):
            list(published(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("locations", np.zeros((3, 2), dtype=np.uint16)),
        ("locations", np.full((3, 3), 99, dtype=np.uint16)),
        ("locations", np.zeros((3, 3), dtype=np.float32)),
        ("activations", np.zeros(2, dtype=np.float16)),
        ("activations", np.array([1, np.nan, 2], dtype=np.float16)),
        ("activations", np.zeros(3, dtype=np.int64)),
        ("tokens", np.zeros(4, dtype=np.int64)),
        ("tokens", np.full((2, 4), -1, dtype=np.int64)),
        ("tokens", None),
    ],
)
def test_a_cache_whose_tensors_do_not_go_together_is_refused(name, array, tmp_path):
    good = {
        "locations": np.array([[0, 1, 2], [1, 3, 2], [1, 0, 0]], dtype=np.uint16),
        "activations": np.array([1, 2, 3], dtype=np.float16),
        "tokens": np.zeros((2, 4), dtype=np.int64),
    }
    path = tmp_path / "0_9.safetensors"
    save_file(good, path)
    assert [one.index for one in published(path)] == [0, 2]
    path.unlink()
    save_file({k: v for k, v in {**good, name: array}.items() if v is not None}, path)
    with pytest.raises(ArtefactError, match=r"0_9\.safetensors"):
        list(published(path))


FIELDS = (
    "texts", "tokens", "activations", "values", "index", "layer", "modelId", "neuron_index", "neuron", "neuron_id",
    "most_positive_activation_records",
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3)


def nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)


@given(st.recursive(LEAVES, nested, max_leaves=20))
def test_no_value_breaks_a_reader(value):
    for kind in all_formats().values():
        if kind.recognises(value):
            try:
                list(kind.read(value, "here", lambda _: True))
            except N2GError:
                continue


# --- gathering ----------------------------------------------------------------------------------------------------


def test_a_folder_is_searched_and_what_is_passed_over_is_told(tmp_path, made):
    (tmp_path / "cache" / "README.md").write_text("read me")
    read = gather(listed([tmp_path / "cache"]))
    assert [one.texts > 0 for one in read.files if one.format == "delphi"] == [True]
    others = {one.name for one in read.files if one.format is None}
    assert {name.rpartition("/")[2] for name in others} == {"README.md", "config.json"}
    made["delphi"].unlink()
    with pytest.raises(InputError, match="expected some of neuroscope"):
        listed([tmp_path / "cache"])
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "nowhere"):
        with pytest.raises(InputError):
            listed([path])


def test_records_of_one_unit_are_put_together(made):
    read = gather(listed([made["neuronpedia export"]]))
    ((address, unit),) = read.units.items()
    assert address == (LAYER, UNIT)
    assert len(unit.texts) == 20
    peaks = [text.peak for text in unit.texts]
    assert peaks == sorted(peaks, reverse=True)


def test_two_sources_at_a_layer_are_refused(tmp_path, found):
    one, other = neuronpedia_lines(found[:1], 3)[0], neuronpedia_lines(found[:1], 4)[0]
    path = write_json_lines(tmp_path / "x", [one, other | {"layer": "1-res-16k"}])
    with pytest.raises(InputError, match="one source"):
        gather(listed([path]))
    path = write_json_lines(tmp_path / "x", [one, other | {"layer": "2-res-16k"}])
    with pytest.raises(InputError, match="1-mlp 1' and"):  # two layers are not made one
        gather(listed([path]), layer=0)
    assert list(gather(listed([path])).units) == [(1, 3), (2, 4)]


def test_a_layer_that_is_not_stated_must_be_given(tmp_path, found):
    path = write_json_lines(tmp_path / "x", [neuronpedia_lines(found[:1], 3)[0] | {"layer": "mlp"}])
    with pytest.raises(InputError, match="--layer"):
        gather(listed([path]))
    assert list(gather(listed([path]), layer=2).units) == [(2, 3)]


def test_units_can_be_chosen_and_limited(made):
    files_ = listed([made["neuroscope lines"]])
    assert list(gather(files_, indices=frozenset([6])).units) == [(LAYER, 6)]
    read = gather(files_, units=1)
    assert (list(read.units), read.passed) == ([(LAYER, UNIT)], 1)
    with pytest.raises(InputError, match=r"none of \[7\]"):
        gather(files_, indices=frozenset([6, 7]))


# --- alignment ----------------------------------------------------------------------------------------------------


def test_pieces_and_marks_of_the_vocabulary_are_tokens_too(found, aligner):
    """As the vocabulary spells them, and as SAEDashboard shows that."""
    tokenizer = aligner.tokenizer.tokenizer
    for w in found[:20]:
        pieces = tokenizer.convert_ids_to_tokens(w.ids)
        assert any(piece.startswith("Ġ") for piece in pieces)
        acts = np.arange(len(pieces), dtype=np.float32)
        for strings in (pieces, [p.replace("Ġ", " ").replace("Ċ", "\n") for p in pieces]):
            aligned = aligner.align(text(strings, acts), marks=True)
            assert (aligned.ids, aligned.how) == (tuple(w.ids), "exact")
            np.testing.assert_array_equal(aligned.activations, acts)


def test_other_tokens_are_aligned_by_characters(aligner):
    """Checked against the definition: the largest activation of the published tokens that share a character."""
    strings = ["The c", "at", " sat on", " th", "e mat in", " New Yo", "rk."]
    acts = [0.0, 3.0, 1.0, 5.0, 2.0, 0.5, 4.0]
    aligned = aligner.align(text(strings, acts))
    assert aligned.how == "characters"
    joined = "".join(strings)
    by_character = [a for one, a in zip(strings, acts, strict=True) for _ in one]
    assert aligned.ids == tuple(aligner.tokenizer.encode(joined))
    at = 0
    for token, value in zip(aligned.ids, aligned.activations, strict=True):
        n = len(aligner.tokenizer.string(token))
        assert value == max(by_character[at : at + n])
        at += n
    assert at == len(joined)


def test_marks_are_undone_only_where_the_format_has_them(aligner):
    strings, acts = ["▁The", "▁cat", "▁sat↵"], [0.0, 1.0, 0.0]
    aligned = aligner.align(text(strings, acts), marks=True)
    assert aligner.tokenizer.tokenizer.decode(aligned.ids) == " The cat sat\n"
    with_marks = aligner.align(text(strings, acts))  # a byte-level vocabulary can spell anything
    assert aligner.tokenizer.tokenizer.decode(with_marks.ids) != " The cat sat\n"


def test_the_bos_is_taken_off_once_whichever_way(aligner):
    for strings, how in ((["<s>", " the", " cat"], "exact"), (["<s>", " th", "e cat"], "characters")):
        aligned = aligner.align(text(strings, [9.0, 0.0, 1.0]))
        assert aligned.how == how
        assert 0 not in aligned.ids
        assert aligned.activations.max() == 1.0
    assert aligner.align(text(None, [9.0, 9.0, 1.0], ids=(0, 0, 300))).ids == (0, 300)
    with pytest.raises(Misaligned, match="beside the BOS"):
        aligner.align(text(["<s>"], [1.0]))


def test_what_cannot_be_aligned_is_refused():
    """A vocabulary of fifty tokens cannot spell everything."""
    subject = FakeSubject()

    class Few(Tokenizer):
        def __init__(self) -> None:
            super().__init__(self)
            self.string, self.encode = subject.string, subject.encode

        def __len__(self) -> int:
            return subject.d_vocab

        def convert_ids_to_tokens(self, ids):
            return [subject.string(t) for t in ids]

        def decode(self, ids, **_):
            return "".join(map(subject.string, ids))

    aligner = Aligner(Few(), subject.bos_id)
    assert aligner.align(text([" red", " cat"], [1.0, 0.0])).how == "exact"
    assert aligner.align(text([" red c", "at"], [1.0, 0.0])).activations.tolist() == [1.0, 1.0]
    for strings, acts in (
        ([" green"], [1.0]),
        ([" red", "", " cat x"], [0.0, 1.0, 0.0]),
        (["", " red c", "at"], [1, 0, 0]),
    ):
        with pytest.raises(Misaligned):
            aligner.align(text(strings, acts))
    with pytest.raises(Misaligned, match="token ids from 0"):
        aligner.align(text(None, [1.0], ids=(10_000,)))


def test_parts_of_a_character_are_tokens_of_it_all(aligner):
    aligned = aligner.align(text(["a ", "\u20acx", " b"], [1.0, 3.0, 2.0]))
    strings = [aligner.tokenizer.string(t) for t in aligned.ids]
    assert strings.count("\ufffd") >= 2
    assert {float(a) for s, a in zip(strings, aligned.activations, strict=True) if s == "\ufffd"} == {3.0}


def test_characters_that_were_lost_are_not_guessed(aligner):
    """Parts of a character, published as text, may have been anything."""
    for strings in ([" the", "\ufffd", "\ufffd"], [" th", "e\ufffd"]):
        with pytest.raises(Misaligned, match="U\\+FFFD"):
            aligner.align(text(strings, np.arange(len(strings))))


def test_a_letter_is_not_taken_for_a_byte(aligner):
    """`¡` is how a byte-level vocabulary spells the byte A1."""
    assert "¡" in aligner.tokenizer.tokenizer.get_vocab()
    for marks in (False, True):
        aligned = aligner.align(text(["¡", " the"], [1.0, 0.0]), marks=marks)
        assert aligner.tokenizer.tokenizer.decode(aligned.ids) == "¡ the"
        assert aligned.how == "characters"


def test_ids_count_only_where_they_mean_the_strings(found, aligner):
    w = found[0]
    acts = np.ones(len(w.ids))
    assert aligner.align(text(w.strings, acts, ids=tuple(w.ids))).ids == tuple(w.ids)
    wrong = tuple(t + 1 for t in w.ids)
    assert aligner.align(text(w.strings, acts, ids=wrong)).ids == tuple(w.ids)


@given(st.text(min_size=1, max_size=30), st.booleans(), st.data())
def test_any_cut_of_a_text_is_aligned_or_refused(aligner, whole, marks, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    acts = [float(i % 3) if part else 0.0 for i, part in enumerate(parts)]
    try:
        aligned = aligner.align(text(parts, acts), marks=marks and not set(whole) & set(MARKS))
    except Misaligned:
        return
    assert len(aligned.ids) == len(aligned.activations)
    assert aligner.tokenizer.tokenizer.decode(aligned.ids) in (whole, whole.removeprefix("<s>"))
    assert set(aligned.activations.tolist()) <= set(acts)
    if not whole.startswith("<s>"):
        assert aligned.activations.max() == max(acts)


# --- choice -------------------------------------------------------------------------------------------------------


def of(texts) -> PublishedUnit:
    return PublishedUnit("here", LAYER, UNIT, "", tuple(texts))


def chosen(aligner, texts, **options):
    return choose("u", of(texts), aligner, **{"room": 60, "top": 5, "test_share": 0.5, "seed": 0, **options})


def test_texts_are_split_once_and_nothing_is_lost(found, aligner):
    texts = [text(w.strings, w.neurons[:, UNIT]) for w in strongest(found, UNIT, 40)]
    copies = [*texts, text(["<s>", *texts[0].strings], [0.0, *texts[0].activations]), text([" the"], [-1.0])]
    copies.append(text(texts[3].strings * 4, np.tile(texts[3].activations, 4)))
    copies += [text((*one.strings[:-1], " mat"), one.activations) for one in texts[:6]]  # but for the last token
    got = chosen(aligner, copies)
    sides = got.exemplars.fit, got.exemplars.test
    assert [len(side) for side in sides] == [5, 5]
    assert not any(is_duplicate(e, sides[0]) for e in sides[1])
    assert all((e.activations >= 0).all() for side in sides for e in side)
    n = got.counts
    assert set(n) == set(COUNTS)
    assert n["texts"] == 49 == n["exact"] + n["characters"] + n["misaligned"]
    assert n["texts"] == sum(n[k] for k in ("misaligned", "too_long", "silent", "duplicates", "beyond", "fit", "test"))
    assert n["too_long"] == 1
    assert n["silent"] >= 1
    assert n["duplicates"] >= 6
    assert got.maximum == max(e.activations.max() for e in got.exemplars.fit)


def test_the_split_depends_on_the_texts_and_the_seed_alone(found, aligner):
    texts = [text(w.strings, w.neurons[:, UNIT]) for w in strongest(found, UNIT, 30)]

    def test_side(order, seed=0):
        return {e.tokens for e in chosen(aligner, order, seed=seed, top=20).exemplars.test}

    assert test_side(texts) == test_side(texts[::-1])
    assert test_side(texts) != test_side(texts, seed=1)
    assert len(chosen(aligner, texts, top=20, test_share=0.2).exemplars.test) < len(test_side(texts))


def test_a_split_that_was_published_is_kept(found, aligner):
    top = strongest(found, UNIT, 10)
    texts = [text(w.strings, w.neurons[:, UNIT], which="fit" if i % 3 else "test") for i, w in enumerate(top)]
    got = chosen(aligner, texts, top=20)
    assert {e.window % 3 for e in got.exemplars.test} == {0}
    assert 0 not in {e.window % 3 for e in got.exemplars.fit}


def test_a_unit_needs_a_text_on_either_side(found, aligner):
    for texts in ([text(found[0].strings, np.ones(len(found[0].ids)))], [text([" the"], [0.0])] * 3, []):
        with pytest.raises(UnitError, match="one to fit and one to test"):
            chosen(aligner, texts)
