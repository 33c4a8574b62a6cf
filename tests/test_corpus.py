"""Loading, cutting and splitting of text, on small files and a tokenizer that gives one id per character."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g import corpus
from saelens_n2g.corpus import Document, Windows, load_documents, split_documents, tokenise
from saelens_n2g.errors import ArtefactError, InputError


def by_character(text: str) -> list[int]:
    """Ids from 10 up, so that 0 and 1 are free for BOS and padding."""
    return [10 + ord(c) for c in text]


def by_word(text: str) -> list[int]:
    return [10 + len(word) for word in text.split()]


def cut(documents: list[Document], **options) -> Windows:
    return tokenise(
        documents, options.pop("encode", by_character), **{"bos_id": 0, "pad_id": 1, "source": "test"} | options
    )


# --- loading --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    (root / "deep").mkdir(parents=True)
    (root / "b.txt").write_text("one\r\nline\n")
    (root / "c.txt").write_text("first\n<|endoftext|>\nsecond\n<|endoftext|>\n \n")
    rows = [{"text": "alpha", "id": "A"}, {"text": "beta"}, {"text": ""}]
    (root / "deep" / "a.jsonl").write_text("\ufeff" + "\n\n".join(json.dumps(r) for r in rows))
    (root / "readme.md").write_text("not a corpus file")
    return root


def test_text_file_is_one_document_or_separated_ones(folder: Path):
    # Bytes that open() leaves alone: a text file written with \r\n reads like one written with \n.
    (folder / "b.txt").write_bytes(b"one\r\nline\n")
    assert list(load_documents(str(folder / "b.txt"))) == [("b.txt", "one\nline\n")]
    assert list(load_documents(str(folder / "c.txt"))) == [("c.txt#0", "first\n"), ("c.txt#1", "second\n")]


def test_jsonl_takes_ids_or_makes_them(folder: Path):
    assert list(load_documents(str(folder / "deep" / "a.jsonl"))) == [("A", "alpha"), ("a.jsonl:3", "beta")]


@pytest.mark.parametrize("name", ["c.txt", "deep/a.jsonl"])
def test_gzip_reads_like_the_plain_file(folder: Path, name: str):
    plain = list(load_documents(str(folder / name)))
    zipped = folder / f"{name}.gz"
    zipped.write_bytes(gzip.compress((folder / name).read_bytes()))
    assert [d.text for d in load_documents(str(zipped))] == [d.text for d in plain]


def test_folder_is_its_files_in_order_of_their_paths(folder: Path):
    ids = [d.id for d in load_documents(str(folder))]
    assert ids == ["b.txt", "c.txt#0", "c.txt#1", "A", "deep/a.jsonl:3"]
    assert [d.id for d in load_documents(str(folder), limit=2)] == ids[:2]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_local_dataset_of_hugging_face_format(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_dict({"text": ["alpha", "", "beta", None], "body": ["x", "y", "z", "w"], "n": [1] * 4})
    root = tmp_path / "data"
    root.mkdir()
    path = str(root / f"test.{suffix}")
    rows.to_json(path) if suffix == "jsonl" else rows.to_parquet(path)
    assert list(load_documents(f"hf:{root}:test")) == [("test/0", "alpha"), ("test/2", "beta")]
    assert [d.text for d in load_documents(f"hf:{root}:test#body", limit=3)] == ["x", "y", "z"]
    with pytest.raises(InputError, match=r"row 0: expected text in field 'n', found int"):
        next(load_documents(f"hf:{root}:test#n"))
    with pytest.raises(InputError, match=r"row 0: expected a field 'nope', found only body, n, text"):
        next(load_documents(f"hf:{root}:test#nope"))
    with pytest.raises(InputError, match=r"split train, found .*train"):
        next(load_documents(f"hf:{root}"))
    with pytest.raises(InputError, match="configuration other"):
        next(load_documents(f"hf:{root}@other:test"))


def test_embedded_names_lead_to_the_embedded_texts(monkeypatch: pytest.MonkeyPatch):
    from saelens_n2g import embedded

    monkeypatch.setattr(embedded, "wikipedia_documents", lambda: iter([Document("w", "prose")]))
    monkeypatch.setattr(embedded, "python_documents", lambda: iter([Document("p", "code")]))
    assert [next(load_documents(s)).id for s in ("embedded", "embedded:wikipedia", "embedded:python")] == [
        "w",
        "w",
        "p",
    ]


def test_a_new_kind_of_corpus_is_one_registered_function(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "LOADERS", dict(corpus.LOADERS))

    @corpus.loader("upper")
    def load(rest: str):
        yield Document(rest, rest.upper())

    assert list(load_documents("upper:abc")) == [("abc", "ABC")]


BAD_FILES = {
    "empty.txt": (b" \n ", r"at least one document with text, found none"),
    "latin.txt": (b"good\nb\xe9d", r"latin.txt, line 2: expected UTF-8, found byte 0xe9"),
    "latin.jsonl": (b'{"text": "caf\xe9"}', r"line 1: expected UTF-8"),
    "torn.jsonl": (b'{"text": "a"}\n{"te', r"torn.jsonl, line 2: expected a JSON object with `text`"),
    "other.jsonl": (b'{"text": "a"}\n\n{"txt": "b"}', r"line 3: .* found fields \['txt'\]"),
    "number.jsonl": (b'{"text": 3}', r"line 1: .* found fields \['text'\]"),
    "list.jsonl": (b"[1]", r"line 1: .* found list"),
    "short.txt.gz": (gzip.compress(b"some text that is long enough" * 50)[:-20], r"a file that can be read"),
    "plain.txt.gz": (b"not gzip at all", r"a file that can be read"),
    "page.html": (b"<p>", r"a name ending in \.txt, \.jsonl \(or \.gz of these\), found page\.html"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_line_that_names_file_and_line(tmp_path: Path, name: str):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(load_documents(str(tmp_path / name)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["nowhere.txt", "foo:bar", "hf:", "hf:name@", "embedded:latin", ""])
def test_unknown_specs(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        list(load_documents(spec))


def test_limit_must_be_positive(folder: Path):
    with pytest.raises(InputError, match="limit of documents"):
        load_documents(str(folder), limit=0)


# --- windows --------------------------------------------------------------------------------------------------

texts = st.lists(st.text(alphabet="abc \n", max_size=70), min_size=1, max_size=6)


@settings(deadline=None)
@given(texts, st.integers(2, 20), st.sampled_from([None, 0, 5]), st.integers(1, 20))
def test_windows_hold_every_document_in_order_up_to_its_dropped_tail(texts, width, bos_id, min_tokens):
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    room = width - (bos_id is not None)
    least = min(min_tokens, room)
    # Independent statement: of a text of t tokens the last t % room stay only if they are enough.
    kept = [len(t) - (len(t) % room if len(t) % room < least else 0) for t in texts]
    if sum(kept) == 0:
        with pytest.raises(InputError, match="text of test"):
            cut(documents, width=width, bos_id=bos_id, min_tokens=min_tokens)
        return
    windows = cut(documents, width=width, bos_id=bos_id, min_tokens=min_tokens)
    assert windows.document_ids == tuple(str(i) for i, k in enumerate(kept) if k)
    assert windows.dropped_tokens == sum(map(len, texts)) - sum(kept)
    assert windows.n_tokens == sum(kept) == windows.mask.sum()
    for index, name in enumerate(windows.document_ids):
        mine = windows.document == index
        scored = windows.tokens[mine][windows.mask[mine]]
        assert scored.tolist() == by_character(texts[int(name)])[: kept[int(name)]]
    if bos_id is not None:
        assert (windows.tokens[:, 0] == bos_id).all()
        assert not windows.mask[:, 0].any()
    assert (windows.tokens[np.arange(width) >= windows.lengths[:, None]] == 1).all()
    assert (windows.tokens.dtype, windows.lengths.dtype, windows.document.dtype) == (np.int32,) * 3


def test_bos_of_id_zero_is_a_bos():
    assert cut([Document("a", "x" * 20)], width=8, bos_id=0).tokens[0].tolist() == [0, *[130] * 7]
    assert cut([Document("a", "x" * 20)], width=8, bos_id=None).tokens[0].tolist() == [130] * 8


def test_max_tokens_ends_after_the_window_that_reaches_it():
    documents = [Document("a", "x" * 25), Document("b", "y" * 100), Document("c", "z" * 100)]
    seen: list[int] = []
    windows = cut(documents, width=11, min_tokens=5, max_tokens=41, report=seen.append)
    assert windows.lengths.tolist() == [11, 11, 6, 11, 11]  # 25 tokens of a, then b's first 20
    assert windows.document_ids == ("a", "b")
    assert seen == [25, 45]
    assert cut(documents, width=11, max_tokens=1).n_tokens == 10


def test_max_tokens_leaves_later_documents_unread():
    def documents():
        yield Document("a", "x" * 30)
        raise AssertionError("read on")

    assert cut(documents(), width=11, max_tokens=30).n_tokens == 30


def test_documents_of_one_id_are_one_document():
    windows = cut([Document("a", "x" * 20), Document("b", "y" * 20), Document("a", "z" * 20)], width=21)
    assert (windows.document.tolist(), windows.document_ids) == ([0, 1, 0], ("a", "b"))


def test_long_documents_are_encoded_piecewise_to_the_same_ids(monkeypatch: pytest.MonkeyPatch):
    text = "\n".join("word " * (i % 7) + "end" for i in range(200))
    whole = cut([Document("a", text)], width=10, encode=by_word)
    pieces: list[str] = []

    def encode(piece: str) -> list[int]:
        pieces.append(piece)
        return by_word(piece)

    monkeypatch.setattr(corpus, "PIECE", 100)
    assert cut([Document("a", text)], width=10, encode=encode).fingerprint() == whole.fingerprint()
    assert "".join(pieces) == text
    assert len(pieces) > 10


@pytest.mark.parametrize("options", [{"width": 1}, {"min_tokens": 0}, {"max_tokens": 0}])
def test_impossible_limits(options):
    with pytest.raises(InputError, match=next(iter(options)).replace("width", "window width")):
        cut([Document("a", "x" * 50)], **options)


def test_text_too_short_for_a_window_is_said():
    with pytest.raises(InputError, match="at least 16 tokens in one document, found 7 tokens in all"):
        cut([Document("a", "x" * 4), Document("b", "y" * 3)])


@pytest.fixture
def windows() -> Windows:
    return cut([Document(f"d{i}", chr(97 + i) * (30 + 7 * i)) for i in range(8)], width=16, min_tokens=3)


def test_save_and_load_give_the_same_windows(windows: Windows, tmp_path: Path):
    windows.save(tmp_path / "w")
    back = Windows.load(tmp_path / "w")
    for name in ("tokens", "lengths", "document"):
        mine, theirs = getattr(windows, name), getattr(back, name)
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    for name in ("document_ids", "bos_id", "source", "dropped_tokens"):
        assert getattr(windows, name) == getattr(back, name)
    assert windows.fingerprint() == back.fingerprint()
    windows.save(tmp_path / "again")
    for file in (tmp_path / "w").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("file", ["windows.safetensors", "windows.json"])
def test_damaged_and_missing_windows_are_refused(windows: Windows, tmp_path: Path, file: str):
    with pytest.raises(ArtefactError, match="nothing there"):
        Windows.load(tmp_path / "w")
    windows.save(tmp_path / "w")
    data = bytearray((tmp_path / "w" / file).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w" / file).write_bytes(data)
    with pytest.raises(ArtefactError, match=file):
        Windows.load(tmp_path / "w")


def test_another_artefact_is_no_windows(tmp_path: Path):
    from saelens_n2g.jobs.artefacts import publishing

    with publishing(tmp_path / "w", {"format": "something else"}) as work:
        (work / "x").write_text("x")
    with pytest.raises(ArtefactError, match="format 'saelens-n2g/windows', version 1"):
        Windows.load(tmp_path / "w")


def test_arrays_that_do_not_fit_together_are_refused(windows: Windows):
    tokens, lengths, document, ids = windows.tokens, windows.lengths, windows.document, windows.document_ids
    with pytest.raises((InputError, TypeError), match="lengths"):  # TypeError where shapes are checked at run time
        Windows(tokens, lengths[1:], document, ids, 0, "x")
    with pytest.raises(InputError, match="1 to 16"):
        Windows(tokens, lengths + 1, document, ids, 0, "x")
    with pytest.raises(InputError, match="document indices"):
        Windows(tokens, lengths, document, ids[1:], 0, "x")


def test_fingerprint_tells_contents_and_not_provenance(windows: Windows):
    everything = np.arange(len(windows))
    assert windows.subset(everything).fingerprint() == windows.fingerprint()
    assert windows.subset(everything[::-1]).fingerprint() != windows.fingerprint()
    options = {"width": 16, "min_tokens": 3}
    base = cut([Document("a", "x" * 40)], **options).fingerprint()
    assert cut([Document("a", "x" * 40)], source="elsewhere", **options).fingerprint() == base
    assert cut([Document("b", "x" * 40)], **options).fingerprint() != base
    assert cut([Document("a", "x" * 39)], **options).fingerprint() != base
    # The same rows, once with the first token read as BOS and once as text.
    rows = (np.zeros((1, 4), np.int32), np.array([4], np.int32), np.array([0], np.int32), ("a",))
    assert Windows(*rows, 0, "").fingerprint() != Windows(*rows, None, "").fingerprint()


def test_subset_keeps_rows_and_their_documents(windows: Windows):
    rows = np.array([5, 2])
    part = windows.subset(rows)
    np.testing.assert_array_equal(part.tokens, windows.tokens[rows])
    np.testing.assert_array_equal(part.mask, windows.mask[rows])
    assert [part.document_ids[d] for d in part.document] == [windows.document_ids[d] for d in windows.document[rows]]


# --- splitting ------------------------------------------------------------------------------------------------


def names(windows: Windows, rows: np.ndarray) -> set[str]:
    return {windows.document_ids[d] for d in windows.document[rows]}


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=15), st.floats(0.05, 0.95), st.integers(0, 5), st.randoms())
def test_split_is_by_document_near_its_share_and_blind_to_order(sizes, share, seed, random):
    documents = [Document(f"doc {i}", "x" * size) for i, size in enumerate(sizes)]
    options = {"width": 12, "min_tokens": 1}
    windows = cut(documents, **options)
    fit, test = split_documents(windows, test_share=share, seed=seed)
    assert sorted([*fit, *test]) == list(range(len(windows)))
    assert len(fit) > 0
    assert len(test) > 0
    assert not names(windows, fit) & names(windows, test)
    # A document stays out only if the test side then lacks at most half its size, and goes in with as little excess.
    found = windows.subset(test).n_tokens
    assert abs(found - share * sum(sizes)) <= max(sizes)
    random.shuffle(documents)
    shuffled = cut(documents, **options)
    assert names(shuffled, split_documents(shuffled, test_share=share, seed=seed)[1]) == names(windows, test)


def test_split_of_many_documents_meets_its_share_and_varies_with_the_seed():
    windows = cut([Document(str(i), "x" * (50 + i)) for i in range(100)], width=32)
    sides = [split_documents(windows, seed=seed)[1] for seed in range(4)]
    for test in sides:
        assert windows.subset(test).n_tokens / windows.n_tokens == pytest.approx(0.25, abs=0.01)
    assert len({tuple(side.tolist()) for side in sides}) == 4
    np.testing.assert_array_equal(split_documents(windows, seed=2)[1], sides[2])


def test_a_giant_document_does_not_swamp_the_test_side():
    documents = [Document("giant", "x" * 9000), *(Document(str(i), "x" * 100) for i in range(30))]
    windows = cut(documents, width=32, min_tokens=1)
    for seed in range(10):
        assert "giant" not in names(windows, split_documents(windows, seed=seed)[1])


def test_split_needs_two_documents_and_a_share():
    one = cut([Document("a", "x" * 500)])
    with pytest.raises(InputError, match="at least 2, found 1"):
        split_documents(one)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="test_share"):
            split_documents(one, test_share=share)
