"""The parts that a comparison is composed of: settings and their keys, the drawing of windows, scores of one unit."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import SITE, UNITS, VOCABULARY, A, B, C, D, FakeSubject, exemplar
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from saelens_n2g import progress
from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.commands.settings import config_of, parse_unit
from saelens_n2g.commands.text import coloured
from saelens_n2g.comparison import vocabulary
from saelens_n2g.comparison.config import BASES, RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.fitting import mask_id
from saelens_n2g.comparison.results import EXPLAINERS, GRADED, METRICS, TEXTS
from saelens_n2g.comparison.scores import Observed, TextScores
from saelens_n2g.comparison.selection import values_of
from saelens_n2g.comparison.units import UnitRule
from saelens_n2g.comparison.workspace import Workspace, draw_windows
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.exemplars import ExemplarSet
from saelens_n2g.explanations.tables import BackoffTable, TokenTable
from saelens_n2g.graphs.graph import IGNORE, Graph
from saelens_n2g.graphs.paper import PaperOptions
from saelens_n2g.graphs.vocabulary import alone
from saelens_n2g.progress import Reporter
from saelens_n2g.provenance import PACKAGES, provenance
from saelens_n2g.scoring import average_precision
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RunConfig(bases=("neurons", "knots")), "knots"),
        (lambda: RunConfig(bases=()), "option bases"),
        (lambda: RunConfig(exemplars=0), "option exemplars"),
        (lambda: RunConfig(layer=-1), "site layer"),
        (lambda: RunConfig(method="guess"), "method 'guess': expected one of paper, .*suffix"),
        (
            lambda: RunConfig(method="suffix", options=PaperOptions()),
            "options of method 'suffix': expected SuffixOptions",
        ),
        (lambda: TextConfig(tokens=0), "option tokens"),
        (lambda: TextConfig(read=0), "option tokens"),
        (lambda: TextConfig(test_share=1.0), "option test_share"),
        (lambda: TextConfig(test_share=float("nan")), "option test_share"),
    ],
)
def test_settings_that_cannot_be(make, named):
    with pytest.raises(InputError, match=named):
        make()


def test_settings_are_json_values_as_they_are():
    value = RunConfig().as_json()
    assert json.loads(json.dumps(value)) == value


BASE = RunConfig(method="paper")
STAGES = [("text", None), ("dictionary", None), *(("explain", name) for name in BASES), ("report", None)]
ALL_BASES = {f"explain {name}" for name in BASES}
CHANGES = {
    "corpus": (replace(BASE, text=TextConfig(corpus="a.txt")), {"text", "dictionary", "report", *ALL_BASES}),
    "model": (replace(BASE, subject=SubjectConfig(model="gpt2")), {"text", "dictionary", "report", *ALL_BASES}),
    "seed": (replace(BASE, seed=1), {"text", "dictionary", "report", *ALL_BASES}),
    "layer": (replace(BASE, layer=2), {"dictionary", "report", *ALL_BASES}),
    "stream": (replace(BASE, stream="resid_pre"), {"dictionary", "report", *ALL_BASES}),
    "rule": (replace(BASE, rule=UnitRule(units=3)), {"report", *ALL_BASES}),
    "method": (replace(BASE, method="suffix"), {"report", *ALL_BASES}),
    "options": (replace(BASE, options=PaperOptions(keep=0.4)), {"report", *ALL_BASES}),
    "the defaults said": (replace(BASE, options=BASE.method_options), set()),
    "exemplars": (replace(BASE, exemplars=3), {"report", *ALL_BASES}),
    "augmenter": (replace(BASE, augmenter="none"), {"report", *ALL_BASES}),
    "mask": (replace(BASE, mask="pad"), {"report", *ALL_BASES}),
    "training": (replace(BASE, training=replace(BASE.training, alpha=1.0)), {"dictionary", "report", "explain sae"}),
    "samples": (replace(BASE, training=replace(BASE.training, samples=5000)), {"dictionary", "report", "explain sae"}),
    "bases": (replace(BASE, bases=("sae", "ica")), {"report"}),
    "logging": (replace(BASE, training=replace(BASE.training, log_every=7, wandb="disabled")), set()),
    "nothing": (RunConfig(method="paper"), set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_redoes_what_it_decides_and_no_more(change):
    other, expected = CHANGES[change]
    redone = {f"{s} {b}" if b else s for s, b in STAGES if BASE.key(s, b) != other.key(s, b)}
    assert redone == expected


def test_an_augmenter_decides_nothing_where_nothing_is_augmented():
    one, other = (RunConfig(augmenter=name) for name in ("auto", "none"))
    assert [one.key(s, b) for s, b in STAGES] == [other.key(s, b) for s, b in STAGES]


def test_no_two_stages_share_a_key():
    assert len({BASE.key(stage, basis) for stage, basis in STAGES}) == len(STAGES)


def test_a_dictionary_from_elsewhere_is_known_by_its_weights(tmp_path):
    given = replace(BASE, dictionary=str(tmp_path))
    keys = [given.key("explain", "sae")]
    for content in (b"one", b"two"):
        (tmp_path / "sae_weights.safetensors").write_bytes(content)
        keys.append(given.key("explain", "sae"))
    assert len(set(keys)) == 3
    assert given.key("explain", "pca") == BASE.key("explain", "pca")


def test_sites_of_bases():
    config = RunConfig(layer=3, neurons="mlp_out", stream="resid_mid")
    assert config.site("neurons") == Site(3, "mlp_out")
    assert {config.site(name) for name in BASES[1:]} == {Site(3, "resid_mid")}


@pytest.mark.parametrize(
    ("unit", "layer", "neurons", "stream"),
    [("4.attn_out/neurons/7", 4, "attn_out", "resid_post"), ("2.resid_mid/pca/0", 2, "mlp_post", "resid_mid")],
)
def test_a_unit_decides_layer_site_and_basis(unit, layer, neurons, stream):
    config = config_of(unit=unit, layer=9, method="paper", augmenter="none", tokens=77)
    site, basis, _ = parse_unit(unit)
    assert (config.layer, config.neurons, config.stream, config.bases) == (layer, neurons, stream, (basis,))
    assert config.site(basis) == site
    assert (config.text.tokens, config.method_options.augment) == (77, False)


# --- text -----------------------------------------------------------------------------------------------------


def windows(lengths: list[int]) -> Windows:
    """Windows with BOS 0 of the given numbers of scored tokens."""
    tokens = np.ones((len(lengths), max(lengths) + 1), dtype=np.int32)
    tokens[:, 0] = 0
    ids = tuple(map(str, range(len(lengths))))
    return Windows(tokens, np.array(lengths, dtype=np.int32) + 1, np.arange(len(lengths), dtype=np.int32), ids, 0, "")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 60), st.integers(0, 3))
def test_windows_are_drawn_until_there_are_tokens_enough(lengths, tokens, seed):
    every = windows(lengths)
    drawn = draw_windows(every, tokens, seed)
    rows = drawn.document.tolist()
    assert rows == sorted(set(rows)), "in their old order, none twice"
    assert drawn.n_tokens >= min(tokens, every.n_tokens)
    assert drawn.n_tokens < tokens + max(lengths)
    assert draw_windows(every, tokens, seed).fingerprint() == drawn.fingerprint()


def test_all_windows_where_there_are_no_more():
    every = windows([3, 4])
    assert draw_windows(every, 7, 0) is every
    assert len(draw_windows(every, 4, 0)) < 3


def test_the_drawing_has_a_seed():
    every = windows([1] * 30)
    assert len({tuple(draw_windows(every, 5, seed).document.tolist()) for seed in range(6)}) == 6


def test_stage_records(tmp_path):
    config, other = RunConfig(), RunConfig(exemplars=3)
    one, two = (Workspace(c, tmp_path, Reporter(quiet=True)) for c in (config, other))
    assert not one.finished("explain", "sae")
    one.finish("explain", "sae")
    assert one.finished("explain", "sae")
    assert not one.finished("explain", "pca")
    assert one.finished("explain", "sae")
    assert not two.finished("explain", "sae")
    assert not one.finished("explain", "sae"), "others have begun to replace it"
    one.finish("text")
    assert two.finished("text"), "the same text for both"
    (tmp_path / "stages" / "text.json").write_text('{"key"')
    with pytest.raises(ArtefactError, match=r"stages/text\.json"):
        one.finished("text")


# --- units ----------------------------------------------------------------------------------------------------


class FakeModel(FakeSubject, Subject):
    """The fake where a `Subject` is asked for by type."""

    pad_id = VOCABULARY.index("<pad>")


def test_neurons_are_picked_out_of_the_kept_columns_and_rectified(tmp_path):
    rule = UnitRule(units=2, pool=3, seed=4)
    wanted = rule.candidates(50).tolist()
    kept = sorted(wanted)
    stored = np.arange(18, dtype=np.float32).reshape(3, 6) - 8
    workspace = Workspace(RunConfig(rule=rule), tmp_path, Reporter(quiet=True))
    workspace.__dict__["neurons"] = stored  # as if harvested
    values = values_of(workspace, NeuronBasis(Site(0, "mlp_post"), 50), wanted)
    for at, index in enumerate(wanted):
        assert values[:, at].tolist() == [max(v, 0.0) for v in stored[:, kept.index(index)].tolist()]


@pytest.mark.parametrize("kept", [0, 2**20])
def test_the_vocabulary_is_heard_once_a_site_and_says_the_same(monkeypatch, kept):
    monkeypatch.setattr(vocabulary, "KEPT", kept)
    rng = np.random.default_rng(3)
    parts = [torch.from_numpy(rng.normal(size=size).astype(np.float32)) for size in ((5, len(UNITS)), 5, len(UNITS))]
    bases = [NeuronBasis(SITE, len(UNITS)), AffineBasis("pca", SITE, "rectified", *parts)]
    subject, heard = FakeSubject(), []
    once = vocabulary.Vocabulary(subject)
    for basis in bases:
        heard.append(once.hear(basis, [4, 0, 2], len(UNITS)))
    calls = subject.calls
    expected = [alone(FakeSubject(), basis, [4, 0, 2]) for basis in bases]
    for found, wanted in zip(heard, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert wanted.max() > 0
    assert calls == (1 if kept else 2)
    other = NeuronBasis(Site(1, "resid_post"), len(UNITS))
    assert once.hear(other, [0], len(UNITS)).shape == (1, subject.d_vocab)
    assert subject.calls == calls + 1, "of another site the last one says nothing"


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("auto", VOCABULARY.index(" _")), ("pad", VOCABULARY.index("<pad>")), (" A", A), ("the", VOCABULARY.index("the"))],
)
def test_what_a_masked_token_becomes(mask, expected):
    assert mask_id(FakeModel(), mask) == expected


def test_masks_that_are_no_one_token():
    with pytest.raises(InputError, match="option mask"):
        mask_id(FakeModel(), " A B")
    unable = FakeModel()
    unable.encode = lambda _text: [1, 2]
    assert mask_id(unable, "auto") == unable.pad_id


ROWS = [
    [A, B, C, A, B, D],
    [C, C, A, B, A, C],
    [B, A, B, D, D, A],
    [C, D, C, D, C, D],
    [A, B, A, B, B, A],
    [D, A, B, C, B, B],
]


def test_scores_of_a_unit_are_those_of_its_tokens_counted_one_by_one():
    """Unit: B after A. The graph knows that, and a wildcard path of D, which is wrong."""
    subject = FakeSubject()
    tokens = np.array([[0, *row] for row in ROWS], dtype=np.int32)
    text = Windows(tokens, np.full(6, 7, np.int32), np.arange(6, dtype=np.int32), tuple("abcdef"), 0, "")
    fit, test = np.array([0, 1, 2]), np.array([3, 4, 5])
    seen = [exemplar(subject, "B after A", row) for row in ROWS]
    values = np.zeros((6, 7), dtype=np.float32)
    values[:, 1:] = [e.activations for e in seen]
    assert values.max() == 2.0
    graph = Graph("u", 2.0)
    graph.add([(B, 1.0), (A, 1.0)], 1.0)
    graph.add([(D, 1.0), (IGNORE, 0.0), (D, 1.0)], 0.75)
    chosen = ExemplarSet((seen[0], seen[2]), (seen[4], seen[5]), (), 0)
    texts, observed = TextScores(text, fit, test, subject.string), Observed(values, 2.0, chosen, 0.5)
    scores = {"graph": texts.graph(observed, graph), **texts.tables(observed)}
    assert set(scores) == set(EXPLAINERS)
    assert all(set(scores[e].metrics[t]) == {*METRICS, *GRADED} for e in EXPLAINERS for t in TEXTS)

    def truth(row: list[int]) -> list[bool]:
        return [i > 0 and row[i] == B and row[i - 1] == A for i in range(len(row))]

    known = {
        "graph": graph,
        "token_table": TokenTable.fit([ROWS[0], ROWS[2]], [truth(ROWS[0]), truth(ROWS[2])], string=subject.string),
        "backoff_table": BackoffTable.fit([ROWS[0], ROWS[2]], [truth(ROWS[0]), truth(ROWS[2])], string=subject.string),
        "backoff_table_corpus": BackoffTable.fit(ROWS[:3], [truth(r) for r in ROWS[:3]], string=subject.string),
    }
    for name, explanation in known.items():
        for which, rows in (("held_out", ROWS[4:]), ("random", ROWS[3:])):
            pairs = [
                (actual, bool(guess >= 0.5))
                for row in rows
                for actual, guess in zip(truth(row), explanation.predict(row), strict=True)
            ]
            tp, fp, fn = (pairs.count(p) for p in ((True, True), (False, True), (True, False)))
            assert scores[name].counts[which] == (tp, fp, fn, pairs.count((False, False)))
            found = scores[name].metrics[which]
            assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn)), (name, which)
            assert found["recall"] == pytest.approx(tp / (tp + fn))
            assert found["precision"] == (pytest.approx(tp / (tp + fp)) if tp + fp else None)
            graded = [explanation.predict(row) for row in rows]
            actual = [np.array(truth(row), dtype=np.float32) for row in rows]
            assert found["correlation"] == pytest.approx(
                np.corrcoef(np.concatenate(graded), np.concatenate(actual))[0, 1]
            )
            assert found["auprc"] == average_precision(np.concatenate(actual) > 0, np.concatenate(graded))
    assert scores["graph"].metrics["held_out"]["f1"] == 1.0
    assert scores["graph"].metrics["random"]["precision"] < 1.0, "the wrong path must cost something"


# --- what is shown --------------------------------------------------------------------------------------------


def reporter(*, quiet: bool = False) -> tuple[Reporter, io.StringIO]:
    out = io.StringIO()
    return Reporter(quiet=quiet, console=Console(file=out, force_terminal=False, width=40)), out


def test_piped_progress_is_one_line_per_event_without_control_characters():
    report, out = reporter()
    with report.stage("read [red]some[/red] long title that does not fit into forty columns", "tokens") as tick:
        for done in range(101):
            tick(done, 100)
    first, last = out.getvalue().splitlines()
    assert first == "read [red]some[/red] long title that does not fit into forty columns ..."
    assert re.fullmatch(r"read .* columns: \d+\.\d s", last)


def test_long_stages_say_how_far_they_are(monkeypatch):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    report, out = reporter()
    with report.stage("train") as tick:
        for done in range(101):
            tick(done, 100)
    said = [int(re.fullmatch(r"train: (\d+) %", line)[1]) for line in out.getvalue().splitlines()[1:-1]]
    assert len(said) == 3
    assert all(b - a >= 25 for a, b in zip([0, *said], said, strict=False))


def test_quiet_says_remarks_only():
    report, out = reporter(quiet=True)
    with report.stage("read") as tick:
        tick(1, 2)
    report.note("a remark")
    assert out.getvalue() == "a remark\n"


def test_a_stage_that_fails_does_not_say_that_it_ended():
    report, out = reporter()
    with pytest.raises(InputError), report.stage("read"):
        raise InputError("a", "b", "c")
    assert out.getvalue() == "read ...\n"


def test_a_bar_on_a_terminal_leaves_one_line():
    out = io.StringIO()
    report = Reporter(console=Console(file=out, force_terminal=True, width=80, color_system=None))
    with report.stage("read", "tokens") as tick:
        tick(3, 10)
    assert re.search(r"read: \d+\.\d s\n$", out.getvalue())


def test_colours_follow_values():
    text = coloured([" a", "b\n", "c"], np.array([0.0, 1.0, 2.0], dtype=np.float32))
    assert text.plain == " ab⏎\nc"
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles["b⏎\n"] == styles["c"] == "black on rgb(255,45,45)"
    assert styles.get(" a", "") == ""


def test_provenance_has_versions_and_neither_time_nor_place():
    one = provenance(subject={"model": "x"}, corpus={"source": "y"}, config={"seed": 0})
    assert set(one) == {"subject", "corpus", "config", "versions", "threads"}
    assert set(one["versions"]) == set(PACKAGES)
    assert all(re.match(r"\d+\.", v) for v in one["versions"].values())
    assert json.loads(json.dumps(one)) == one == provenance(**{k: one[k] for k in ("subject", "corpus", "config")})


def test_settings_without_options_are_those_of_the_command_line():
    assert config_of() == RunConfig()
