"""Case studies of one unit: on a tiny model, against plain transformers with hooks by hand."""

import shutil

import numpy as np
import pytest
import torch
from tiny import HIDDEN, LAYERS, VOCABULARY, write_model
from transformers import AutoModelForCausalLM

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.directions import ica_basis, pca_basis
from saelens_n2g.bases.formats import SaeMetadata, save_saelens
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.causal.cases import (
    CaseUnit,
    ablation,
    context_ablation,
    downstream,
    histogram,
    last_streams,
)
from saelens_n2g.commands import cases as cases_command
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

SITE, LATER = Site(0, "resid_post"), Site(2, "resid_post")
ROWS, WIDTH = 7, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def subject(folder):
    return Subject.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def windows():
    """Rows of several lengths, more than one forward pass takes."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, VOCABULARY, (ROWS, WIDTH)).astype(np.int32)
    lengths = rng.integers(6, WIDTH + 1, ROWS).astype(np.int32)
    tokens[:, 0] = 0
    tokens[np.arange(WIDTH) >= lengths[:, None]] = 1
    return Windows(tokens, lengths, np.zeros(ROWS, dtype=np.int32), ("one",), 0, "test")


def dictionary(seed: int) -> Dictionary:
    """Untied, so that reading and writing are along different directions."""
    generator = torch.Generator().manual_seed(seed)
    encoder, decoder = (torch.randn(40, HIDDEN, generator=generator) for _ in range(2))
    decoder = torch.nn.functional.normalize(decoder, dim=1)
    return Dictionary(encoder.T.contiguous(), torch.full((40,), -0.5), decoder, torch.zeros(HIDDEN))


@pytest.fixture(scope="module")
def unit():
    return CaseUnit.of(sae_basis(SITE, dictionary(0)), 3, HIDDEN)


class Plain:
    """The model run on one text without padding, with unit 3 of `dictionary(0)` taken out or not."""

    def __init__(self, model) -> None:
        self.model, self.one = model, dictionary(0)

    def code(self, x):
        return ((x @ self.one.W_enc)[..., 3] + self.one.b_enc[3]).clamp(min=0)

    def run(self, ids: list[int], *, out: bool):
        """Its activation at every position, the streams behind the last two blocks, logits."""
        seen = {}

        def change(_, __, output):
            x = output[0] if isinstance(output, tuple) else output
            c = self.code(x)
            c[:, 0] = 0
            seen["code"] = c[0]
            if not out:
                return None
            y = x - c[..., None] * self.one.W_dec[3]
            return (y, *output[1:]) if isinstance(output, tuple) else y

        def keep(_, __, output):
            seen["later"] = (output[0] if isinstance(output, tuple) else output)[0]

        blocks = self.model.model.layers
        handles = [blocks[0].register_forward_hook(change), blocks[2].register_forward_hook(keep)]
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0]
        for handle in handles:
            handle.remove()
        return seen["code"], seen["later"], logits.double().log_softmax(-1)


@pytest.fixture(scope="module")
def texts(windows):
    return [row[:n].tolist() for row, n in zip(windows.tokens, windows.lengths, strict=True)]


# --- units ----------------------------------------------------------------------------------------------------


def test_taking_a_direction_out_leaves_nothing_to_read_off():
    x = torch.randn(2, 100, HIDDEN, generator=torch.Generator().manual_seed(0))
    rows = x.flatten(0, 1)
    bases = [
        pca_basis(SITE, rows, rows.mean(0)),
        ica_basis(SITE, rows, rows.mean(0), max_iter=20),
        NeuronBasis(SITE, HIDDEN, split=True),
    ]
    scored = torch.ones(2, 100, dtype=torch.bool)
    for basis in bases:
        for index in (0, basis.n_features - 1):
            unit = CaseUnit.of(basis, index, HIDDEN)
            before = unit.values(x)
            assert (before > 0).any()
            torch.testing.assert_close(before, basis.encode(x)[..., index])
            after = unit.without(x, scored)
            assert unit.values(after).max() < 1e-4 * before.max()
            assert torch.equal(after[before == 0], x[before == 0])


def test_only_scored_positions_are_changed(unit):
    x = torch.randn(2, 5, HIDDEN, generator=torch.Generator().manual_seed(0))
    scored = torch.zeros(2, 5, dtype=torch.bool)
    scored[1] = True
    found = unit.without(x, scored)
    assert torch.equal(found[0], x[0])
    c = ((x[1] @ dictionary(0).W_enc)[:, 3] - 0.5).clamp(min=0)
    assert (c > 0).any()
    torch.testing.assert_close(found[1], x[1] - c[:, None] * dictionary(0).W_dec[3])


def test_units_that_there_are_not(unit):
    with pytest.raises(InputError, match="0 to 39, found 40"):
        CaseUnit.of(unit.basis, 40, HIDDEN)


# --- histogram ------------------------------------------------------------------------------------------------


def test_histogram_by_hand():
    tokens = ["a", "b", "a", "c", "d", "a", "b", "e"]
    values = np.array([1.0, 2.0, 4.0, 0.0, 3.9, 0.5, 2.0, 1.5], dtype=np.float32)
    found = histogram(tokens, values, bins=4, named=2)
    assert found.edges == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert found.counts == {"a": (1, 1, 0, 1), "b": (0, 0, 2, 0)}
    assert found.others == (0, 1, 0, 1)
    assert (found.firing, found.positions) == (7, 8)
    assert list(found.counts) == ["a", "b"], "most frequent first"
    with pytest.raises(InputError, match="one above 0"):
        histogram(tokens, np.zeros(8, dtype=np.float32))


# --- effects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_ablation_is_what_plain_transformers_say(subject, unit, windows, texts, plain, floor):
    model = Plain(plain)
    changes, following, kls = [], [], []
    for ids in texts:
        (code, _, before), (_, _, after) = model.run(ids, out=False), model.run(ids, out=True)
        for at in torch.nonzero(code > floor).flatten().tolist():
            if at + 1 < len(ids):
                changes.append(after[at] - before[at])
                following.append((after[at] - before[at])[ids[at + 1]].item())
                kls.append((before[at].exp() * (before[at] - after[at])).sum().item())
    mean = torch.stack(changes).mean(0)
    found = ablation(subject, unit, windows, top=5, floor=floor)
    assert found.positions == len(changes) > 5
    assert found.kl == pytest.approx(np.mean(kls), rel=1e-3)
    assert found.next_token == pytest.approx(np.mean(following), rel=1e-3, abs=1e-6)
    order = mean.argsort().tolist()
    assert [t for t, _ in found.lowered] == order[:5]
    assert [t for t, _ in found.raised] == order[::-1][:5]
    for token, value in (*found.lowered, *found.raised):
        assert value == pytest.approx(mean[token].item(), rel=1e-3, abs=1e-5)


def test_context_ablation_leaves_one_token_out_at_a_time(subject, unit, texts, plain):
    model, seen = Plain(plain), 0
    for ids in texts:
        code = model.run(ids, out=False)[0]
        if not (code > 0).any():
            continue
        seen += 1
        peak = int(code.argmax())
        first = max(1, peak - 4)
        kept = [
            model.run([*ids[:i], *ids[i + 1 : peak + 1]], out=False)[0][-1] / code[peak] for i in range(first, peak)
        ]
        found = context_ablation(subject, unit, ids[1:], reach=4)
        assert (found.tokens, found.peak, found.first) == (tuple(ids[1:]), peak - 1, first - 1)
        assert found.activation == pytest.approx(code[peak].item(), rel=1e-4)
        assert found.kept == pytest.approx([float(k) for k in kept], rel=1e-3, abs=1e-4)
    assert seen > 2


def test_context_ablation_of_a_first_token(subject, unit):
    for token in range(2, VOCABULARY):
        if unit.values(subject.activations(torch.tensor([[0, token]]), [SITE])[SITE])[0, 1] > 0:
            found = context_ablation(subject, unit, [token])
            assert (found.peak, found.first, found.kept) == (0, 0, ())
            return
    raise AssertionError("no token alone makes it fire")


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_downstream_is_what_plain_transformers_say(subject, unit, windows, texts, plain, floor):
    model, other = Plain(plain), dictionary(7)
    before, after = [], []
    for ids in texts:
        (code, x, _), (_, y, _) = model.run(ids, out=False), model.run(ids, out=True)
        before.append(other.encode(x[code > floor]))
        after.append(other.encode(y[code > floor]))
    base, change = torch.cat(before).mean(0), (torch.cat(after) - torch.cat(before)).mean(0)
    found = downstream(subject, unit, sae_basis(LATER, other), windows, top=6, floor=floor)
    assert found.positions == sum(map(len, before))
    sizes = [abs(c) for _, _, c in found.units]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= change.abs().sort(descending=True).values[6].item() - 1e-5
    for index, mean, moved in found.units:
        assert mean == pytest.approx(base[index].item(), rel=1e-3, abs=1e-5)
        assert moved == pytest.approx(change[index].item(), rel=1e-2, abs=1e-5)
    with pytest.raises(InputError, match=r"a layer behind 0\.resid_post, found 0\.resid_post"):
        downstream(subject, unit, sae_basis(SITE, other), windows)


def test_last_streams_are_those_where_it_fires(subject, unit, windows, texts, plain):
    model = Plain(plain)
    runs = [model.run(ids, out=False) for ids in texts]
    expected = torch.cat([x[code > 0] for code, x, _ in runs])
    assert LAYERS == 3, "behind the last block"
    torch.testing.assert_close(last_streams(subject, unit, windows), expected, rtol=1e-4, atol=1e-4)
    assert len(last_streams(subject, unit, windows, most=3)) == 3
    strong = torch.cat([x[code > 0.3] for code, x, _ in runs])
    assert 0 < len(strong) < len(expected)
    torch.testing.assert_close(last_streams(subject, unit, windows, floor=0.3), strong, rtol=1e-4, atol=1e-4)


def test_a_silent_unit_is_refused(subject, windows):
    silent = AffineBasis("far", SITE, "none", torch.eye(HIDDEN), torch.full((HIDDEN,), -1e6), torch.zeros(HIDDEN))
    unit = CaseUnit.of(silent, 0, HIDDEN)
    for call in (
        lambda: ablation(subject, unit, windows),
        lambda: context_ablation(subject, unit, [5, 6, 7]),
        lambda: downstream(subject, unit, sae_basis(LATER, dictionary(7)), windows),
        lambda: last_streams(subject, unit, windows),
    ):
        with pytest.raises(InputError, match="unit 0 of 'far'"):
            call()


# --- the commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path, tiny_model, tiny_corpus):
    """Two dictionaries of the tiny model, and the options of a study."""
    for layer in (0, 1):
        one = Dictionary.from_tied(torch.eye(HIDDEN), torch.zeros(HIDDEN), torch.zeros(HIDDEN))
        about = SaeMetadata(str(tiny_model), f"blocks.{layer}.hook_resid_post", 32, True)
        save_saelens(tmp_path / str(layer), one, about)
    return {
        "model": str(tiny_model), "corpus": str(tiny_corpus), "tokens": 3000, "width": 32, "device": "cpu",
        "dictionary": str(tmp_path / "0"), "later": str(tmp_path / "1"), "pattern": "^ York$", "windows": 2,
        "out": tmp_path / "out", "reporter": Reporter(quiet=True),
    }  # fmt: skip


def refused(*_, **__):
    raise AssertionError("a finished case needs no model")


@pytest.mark.model
@pytest.mark.parametrize("command", ["case", "best_case"])
def test_a_finished_case_is_not_done_again(given, command, monkeypatch, capsys, tmp_path):
    named = {"unit": "0.resid_post/sae/5"} if command == "case" else {}
    call = getattr(cases_command, command)
    path = call(**named, **given)
    first = capsys.readouterr()
    written = path.stat().st_mtime_ns
    assert not (given["out"] / "activations").exists()
    with monkeypatch.context() as patched:
        patched.setattr(Subject, "load", refused)
        assert call(**named, **given) == path
        again = capsys.readouterr()
        assert again.out == first.out
        assert path.stat().st_mtime_ns == written
        others = [{"windows": 3}, {"pattern": "^ Oslo$"}, {"later": None}, {"seed": 1}, {"tokens": 2000}]
        for other in [{"unit": "0.resid_post/sae/6"}, *others] if command == "case" else others:
            with pytest.raises(AssertionError, match="needs no model"):
                call(**{**named, **given, **other})
        for name in ("0", "1"):  # the same path, other weights
            shutil.copytree(tmp_path / name, tmp_path / "kept")
            save_saelens(tmp_path / name, dictionary(3), SaeMetadata("", f"blocks.{name}.hook_resid_post", 32, True))
            with pytest.raises(AssertionError, match="needs no model"):
                call(**named, **given)
            shutil.rmtree(tmp_path / name)
            (tmp_path / "kept").rename(tmp_path / name)
        assert call(**named, **given) == path
    assert path.stat().st_mtime_ns == written


@pytest.mark.model
def test_a_damaged_case_is_refused(given):
    path = cases_command.case(unit="0.resid_post/sae/5", **given)
    path.write_text(path.read_text().replace("A", "B"))
    with pytest.raises(ArtefactError, match=r"case\.md"):
        cases_command.case(unit="0.resid_post/sae/5", **given)
