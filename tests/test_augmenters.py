"""Augmenters: the subject's infilling against its definition, BERT with a tiny one trained on the spot."""

import math

import pytest
import torch
from fakes import BOS, ID, STOP, VOCABULARY, A, B, C, D, FakeAugmenter, FakeSubject, context, exemplar, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import masked_lm
from saelens_n2g.graphs.augmenters import Several, Spellings, SubjectInfill
from saelens_n2g.graphs.masked_lm import MaskedLanguageModel, augmenter_for, cased_like, word_at
from saelens_n2g.graphs.oracle import Augmenter
from saelens_n2g.graphs.paper import fit_paper
from saelens_n2g.graphs.questions import Masked, Substitute

TOKENS = (A, B, C, D)
LIKELY = st.fixed_dictionaries({token: st.permutations(TOKENS) for token in TOKENS})
ROWS = st.lists(
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=6).flatmap(
        lambda tokens: st.builds(Masked, st.just(tuple(tokens)), st.integers(0, len(tokens) - 1))
    ),
    max_size=8,
)


def log_probability(subject, text, token) -> float:
    """Of `token` after `text`, from the logits of that text alone."""
    logits = subject.logits(torch.tensor([[*subject.front(), *text]]))[0, -1].double()
    return float(torch.log_softmax(logits, -1)[token])


def defined(subject, row, *, top, candidates, min_probability, max_right):
    """p(c | left) p(right | left, c) over the likeliest `candidates`, normalised: token -> probability."""
    left, right = row.tokens[: row.position], row.tokens[row.position + 1 :][:max_right]
    if not left:
        return {}
    proposed = sorted(TOKENS, key=lambda c: -log_probability(subject, left, c))[:candidates]
    weight = {}
    for c in proposed:
        if c != row.tokens[row.position]:
            after = sum(log_probability(subject, (*left, c, *right[:i]), t) for i, t in enumerate(right))
            weight[c] = math.exp(log_probability(subject, left, c) + after)
    posterior = {c: w / sum(weight.values()) for c, w in weight.items()}
    best = sorted(posterior, key=lambda c: (-round(posterior[c], 6), c))[:top]
    return {c: posterior[c] for c in best if posterior[c] >= min_probability}


class TestSubjectInfill:
    @settings(deadline=None)
    @given(
        LIKELY, ROWS, st.integers(1, 4), st.integers(0, 3), st.sampled_from((1, 12, 1024)), st.sampled_from((BOS, None))
    )
    @example(  # both rows lead to the text A B C B, once with two tokens on the right and once with one
        likely=dict.fromkeys(TOKENS, TOKENS),
        rows=[Masked((A, D, C, B), 1), Masked((A, B, D, B), 2)],
        candidates=4,
        max_right=3,
        batch_tokens=1024,
        bos=BOS,
    )
    def test_is_its_definition(self, likely, rows, candidates, max_right, batch_tokens, bos):
        subject = FakeSubject(bos, likely=likely)
        options = {"top": 9, "candidates": candidates, "min_probability": 0.01, "max_right": max_right}
        found = SubjectInfill(subject, batch_tokens=batch_tokens, **options).substitutes(rows)
        for row, substitutes in zip(rows, found, strict=True):
            expected = defined(subject, row, **options)
            assert {s.replacement: s.probability for s in substitutes} == {
                (c,): pytest.approx(p, abs=1e-5) for c, p in expected.items()
            }
            assert all((s.start, s.stop) == (row.position, row.position + 1) for s in substitutes)
            probabilities = [s.probability for s in substitutes]
            assert probabilities == sorted(probabilities, reverse=True)

    def test_top_and_probability_cut(self):
        subject = FakeSubject(likely={A: (B, C, D)})  # 4/7, 2/7 and 1/7
        row = [Masked((A, A), 1)]
        assert [s.replacement for s in SubjectInfill(subject, candidates=3, top=2).substitutes(row)[0]] == [(B,), (C,)]
        cut = SubjectInfill(subject, candidates=3, min_probability=0.2).substitutes(row)[0]
        assert [s.replacement for s in cut] == [(B,), (C,)]

    @pytest.mark.parametrize("bos", [BOS, None])
    def test_nothing_is_proposed_or_run_without_a_token_to_the_left(self, bos):
        subject = FakeSubject(bos, likely={BOS: (A, B)})
        assert SubjectInfill(subject).substitutes([Masked((C, D), 0), Masked((A,), 0)]) == [[], []]
        assert subject.logit_rows == 0

    def test_tokens_that_are_no_readable_text_are_never_proposed(self):
        subject = FakeSubject(likely={A: (ID["\n"], ID["\ufffd"], B)})
        found = SubjectInfill(subject, candidates=1).substitutes([Masked((A, C), 1)])[0]
        assert [s.replacement for s in found] == [(B,)]

    def test_is_an_augmenter_and_its_name_holds_its_settings(self):
        infill = SubjectInfill(FakeSubject(), top=2, candidates=7, max_right=3)
        assert isinstance(infill, Augmenter)
        assert infill.name == "subject infill (top 2 of 7, p >= 0.001, 3 tokens to the right)"


class TestSpellings:
    def proposals(self, text, augmenter=None):
        (found,) = (augmenter or Spellings(FakeSubject())).substitutes([Masked((A, ID[text], B), 1)])
        assert all((s.start, s.stop) == (1, 2) for s in found)
        assert sum(s.probability for s in found) == pytest.approx(float(bool(found)))
        return [VOCABULARY[s.replacement[0]] for s in found]

    def test_the_same_word_in_other_cases_and_without_its_space(self):
        assert self.proposals(" cat") == ["cat", " Cat", " CAT"]
        assert self.proposals("cat") == [" cat", " Cat", " CAT"]
        assert self.proposals(" The") == [" the", "the", "The"]
        assert self.proposals(" CAT") == [" cat", "cat", " Cat"]

    @pytest.mark.parametrize("text", [" _", ".", "\n", " (", "\ufffd", "<pad>", " A"])
    def test_nothing_for_what_is_no_word_or_has_no_other_spelling(self, text):
        assert self.proposals(text) == []

    def test_a_tokenizer_that_puts_spaces_in_front_is_written_with(self):
        class Prefixing(FakeSubject):
            def encode(self, text):
                return super().encode(" " + text)

        assert self.proposals("cat", Spellings(Prefixing())) == [" cat", " Cat", " CAT"]

    def test_only_what_the_subject_fires_on_gets_into_a_graph(self):
        subject, unit = FakeSubject(), "scattered"
        true = {ID[i]: float(subject.direct(unit, (ID[i],))[0]) for i in ("the", " the", "The", " The")}
        fit = fit_paper("u", 1.0, [exemplar(subject, unit, (ID["the"],))], context())
        graph = run(fit, unit, subject, Spellings(subject))
        assert set(graph.roots) == {i for i, activation in true.items() if activation >= 0.5}
        assert set(graph.roots) == {ID["the"], ID[" The"]}


class TestSeveral:
    def test_proposals_come_in_turn_and_once(self):
        first, second = FakeAugmenter({A: [(B,), (C,)]}), FakeAugmenter({A: [(C,), (D, D)], B: [(A,)]})
        both = Several([first, second])
        found = both.substitutes([Masked((A, B), 0), Masked((A, B), 1)])
        assert [[s.replacement for s in row] for row in found] == [[(B,), (C,), (D, D)], [(A,)]]
        assert both.name == "fake + fake"
        assert isinstance(both, Augmenter)


class TestWordAt:
    @pytest.mark.parametrize(
        ("pieces", "position", "expected"),
        [
            (["the", " cat", " sat"], 1, (1, 2, " ", "cat", "")),
            (["the", " cat"], 0, (0, 1, "", "the", "")),
            (["the", " un", "kind", " cat"], 1, (1, 3, " ", "unkind", "")),
            (["the", " un", "kind", " cat"], 2, (1, 3, " ", "unkind", "")),
            ([" it", " don", "'", "t", "."], 2, (1, 4, " ", "don't", "")),
            ([" it", " don", "\u2019", "t", "."], 3, (1, 4, " ", "don\u2019t", "")),
            ([" (", "cat", ")."], 1, (1, 2, "", "cat", "")),
            ([" (", "cat", ")."], 0, None),
            ([" (", "cat", ")."], 2, None),
            (["'", "cat", "'"], 1, (1, 2, "", "cat", "")),
            (["'", "cat", "'"], 0, None),
            (["'", "cat", "'"], 2, None),
            (["x", ".com", "/"], 1, (1, 2, ".", "com", "")),
            (['"cat', "s,"], 1, (0, 2, '"', "cats", ",")),
            ([" a.b", "c"], 0, (0, 2, " a.", "bc", "")),
            ([" 19", "84"], 0, (0, 2, " ", "1984", "")),
            ([" caf", "\ufffd", "\ufffd", " x"], 0, None),
            ([" caf", "\ufffd", "\ufffd", " x"], 1, None),
            ([" caf", "\ufffd", "\ufffd", " x"], 3, (3, 4, " ", "x", "")),
            ([" ", "cat"], 0, None),
            (["\n", "", "cat"], 1, None),
            ([" हि", "न्दी"], 0, (0, 2, " ", "हिन्दी", "")),
            (["_", "cat"], 1, (1, 2, "", "cat", "")),
        ],
    )
    def test_finds_the_word_and_the_tokens_that_spell_it(self, pieces, position, expected):
        assert word_at(pieces, position) == expected

    @given(st.lists(st.text("ab' .\ufffd", max_size=3), min_size=1, max_size=6), st.data())
    def test_tokens_spell_the_word_with_what_stands_around_it(self, pieces, data):
        position = data.draw(st.integers(0, len(pieces) - 1))
        word = word_at(pieces, position)
        assert (word is None) >= (not any(c.isalnum() or c == "'" for c in pieces[position]))
        if word is not None:
            assert word.start <= position < word.stop
            assert "".join(pieces[word.start : word.stop]) == word.before + word.text + word.after
            assert word.text.strip("'") == word.text != ""
            whole, at = "".join(pieces), len("".join(pieces[: word.start]) + word.before)
            while at > 0 and (whole[at - 1].isalnum() or whole[at - 1] == "'"):
                at -= 1
            assert whole[at:].lstrip("'").startswith(word.text)  # nothing of the word was left on its left


@pytest.mark.parametrize(
    ("original", "expected"),
    [("cat", "dog"), ("Cat", "Dog"), ("CAT", "DOG"), ("I", "Dog"), ("i", "dog"), ("don't", "dog"), ("McX", "doG"),
     ("iPhone", "doG"), ("1984", "doG"), ("B2B", "DOG"), ("'T", "Dog")],
)  # fmt: skip
def test_casing_follows_the_original(original, expected):
    assert cased_like(original, "doG") == expected


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HELPER = (*SPECIAL, "the", "cat", "dog", "sat", "ran", "red", "blue", "house", "it", "unkind", "zebra", "##s", "7", ".")
HELPER_ID = {piece: i for i, piece in enumerate(HELPER)}
SENTENCES = (  # a slot per sentence, with what may stand in it
    ("the {} sat", ("cat", "dog", "zebra")),
    ("the {} dog sat", ("unkind", "red")),
    ("red {} house", ("blue", "dog", "##s", "7", ".", "[UNK]")),
    ("it {} house .", ("sat", "ran")),
)


def helper_tokenizer(vocabulary):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    around = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    built.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=built, **names)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """The folder of a real BERT architecture, taught the four sentences."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(HELPER), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForMaskedLM(config).train()
    inputs, targets = [], []
    for sentence, words in SENTENCES:
        for word in words:
            ids = [HELPER_ID[p] for p in ["[CLS]", *sentence.format("[MASK]").split(), "[SEP]"]]
            inputs.append(torch.tensor(ids))
            targets.append(torch.tensor([HELPER_ID[word] if i == HELPER_ID["[MASK]"] else -100 for i in ids]))
    batch = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        model(input_ids=batch, attention_mask=(batch != 0).long(), labels=labels).loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    helper_tokenizer(HELPER_ID).save_pretrained(folder)
    return str(folder)


def ids_of(*texts):
    return tuple(ID[text] for text in texts)


def words_of(substitutes):
    return {"".join(VOCABULARY[t] for t in s.replacement) for s in substitutes}


class TestMaskedLanguageModel:
    @pytest.fixture
    def model(self, bert):
        return MaskedLanguageModel.load(bert, FakeSubject(), min_probability=0.02)

    def test_proposes_what_the_helper_learnt(self, model):
        found = model.substitutes([Masked(ids_of(" the", " cat", " sat"), 1)])[0]
        assert found == [Substitute(1, 2, ids_of(" dog"), pytest.approx(1 / 3, abs=0.1))]  # zebra cannot be written
        assert isinstance(model, Augmenter)

    @pytest.mark.parametrize(
        ("tokens", "position", "span", "expected"),
        [
            (("the", " cat", " sat"), 1, (1, 2), {" dog"}),
            (("The", " Cat", " sat"), 1, (1, 2), {" Dog"}),
            (("the", " CAT", " sat"), 1, (1, 2), {" DOG"}),
            (("the", " un", "kind", " dog", " sat"), 1, (1, 3), {" red"}),
            (("the", " un", "kind", " dog", " sat"), 2, (1, 3), {" red"}),
            (("the", " red", " dog", " sat"), 1, (1, 2), {" unkind"}),
            (("red", " blue", " house"), 1, (1, 2), {" dog"}),  # neither piece, number, point nor special token
            ((" it", " don", "'", "t", " house", "."), 2, (1, 4), {" sat", " ran"}),
        ],
    )
    def test_whole_words_in_the_spacing_and_casing_of_the_original(self, model, tokens, position, span, expected):
        found = model.substitutes([Masked(ids_of(*tokens), position)])[0]
        assert words_of(found) == expected
        assert {(s.start, s.stop) for s in found} == {span}
        assert all(s.probability >= 0.02 for s in found)

    def test_a_word_of_several_tokens_replaces_one(self, model):
        found = model.substitutes([Masked(ids_of("the", " red", " dog", " sat"), 1)])[0]
        assert [s.replacement for s in found] == [ids_of(" un", "kind")]

    def test_a_word_without_space_before_it_gets_none(self, model):
        tokens = ids_of("the", " (", "cat", " sat")
        found = MaskedLanguageModel(model.model, model.tokenizer, FakeSubject(), "x", top=9).substitutes(
            [Masked(tokens, 2)]
        )
        assert words_of(found[0]) <= {word for word in VOCABULARY if word[0] != " "} | {"unkind"}
        assert found[0]

    def test_tokens_of_no_word_get_nothing(self, model):
        tokens = ids_of("the", " cat", "\ufffd", ".", "\n", " (", "'")
        assert model.substitutes([Masked(tokens, i) for i in range(1, 7)]) == [[]] * 6

    def test_many_rows_at_once_are_answered_as_one_by_one(self, model):
        rows = [
            Masked(ids_of("the", " cat", " sat"), 1),
            Masked((STOP,), 0),
            Masked(ids_of("the", " un", "kind", " dog", " sat"), 2),
            Masked(ids_of(" it", " sat", " house", "."), 1),
            Masked(ids_of("the", " cat", " sat"), 1),
        ]
        model.batch_tokens = 12
        together = model.substitutes(rows)
        for row, found in zip(rows, together, strict=True):
            alone = model.substitutes([row])[0]
            assert [s[:3] for s in found] == [s[:3] for s in alone]
            assert [s.probability for s in found] == pytest.approx([s.probability for s in alone], abs=1e-5)
        assert model.substitutes([]) == []

    @pytest.mark.parametrize("position", [0, 1, 20, 38, 39])
    def test_long_texts_are_cut_around_the_mask(self, model, position):
        seen = []
        hook = model.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        tokens = [ID[" cat"], ID[" dog"]] * 20
        model.substitutes([Masked(tuple(tokens), position)])
        hook.remove()
        ids = seen[0][0].tolist()
        assert len(ids) == 14  # two of the sixteen positions are left alone
        at = ids.index(HELPER_ID["[MASK]"])
        words = [HELPER_ID["cat"], HELPER_ID["dog"]] * 20
        assert (ids[0], ids[-1]) == (HELPER_ID["[CLS]"], HELPER_ID["[SEP]"])
        assert ids[1:at] == words[position - (at - 1) : position]
        assert ids[at + 1 : -1] == words[position + 1 : position + 1 + 12 - at]

    def test_a_tokenizer_that_puts_spaces_in_front_is_written_with(self, bert):
        class Spacing(FakeSubject):
            def encode(self, text):
                return super().encode(" " + text)

        model = MaskedLanguageModel.load(bert, Spacing(), min_probability=0.02)
        assert words_of(model.substitutes([Masked(ids_of("the", " cat", " sat"), 1)])[0]) == {" dog"}

    def test_name_holds_model_and_settings(self, model, bert):
        assert model.name == f"masked language model {bert} (top 5, p >= 0.02)"

    def test_byte_level_helpers_mark_what_begins_a_word(self, tmp_path):
        """An untrained RoBERTa finds everything equally likely, so all that may be proposed is."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

        pieces = (
            "<s>",
            "<pad>",
            "</s>",
            "<mask>",
            "the",
            "\u0120the",
            "\u0120cat",
            "dog",
            "\u0120dog",
            "\u01207",
            "s",
            "\u0120\u00c3\u00a9",
        )
        built = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<pad>"))
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.decoder = decoders.ByteLevel()
        built.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=built, bos_token="<s>", eos_token="</s>", pad_token="<pad>", mask_token="<mask>"
        )
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        config = RobertaConfig(vocab_size=20, max_position_embeddings=12, pad_token_id=1, **sizes)
        RobertaForMaskedLM(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        model = MaskedLanguageModel.load(str(tmp_path), FakeSubject(), top=20)
        found = model.substitutes([Masked(ids_of("the", " house", " sat"), 1)])[0]
        assert words_of(found) == {" the", " cat", " dog"}


class TestLoading:
    def refused(self, name):
        with pytest.raises(InputError, match="local folder") as caught:
            MaskedLanguageModel.load(name, FakeSubject())
        assert "\n" not in str(caught.value)
        assert "`subject`" in str(caught.value)
        return str(caught.value)

    def test_unknown_without_network(self):
        assert "no-such/bert" in self.refused("no-such/bert")

    def test_a_folder_of_another_kind(self, tmp_path):
        from transformers import GPT2Config

        self.refused(str(tmp_path))
        GPT2Config(n_layer=1).save_pretrained(tmp_path)
        helper_tokenizer(HELPER_ID).save_pretrained(tmp_path)
        self.refused(str(tmp_path))

    def test_truncated_weights(self, bert, tmp_path):
        from pathlib import Path
        from shutil import copytree

        folder = copytree(bert, tmp_path / "cut")
        weights = Path(folder) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:2000])
        self.refused(str(folder))

    def test_weights_without_the_fill_mask_head(self, bert, tmp_path):
        from transformers import BertModel

        BertModel.from_pretrained(bert, add_pooling_layer=False).save_pretrained(tmp_path)
        helper_tokenizer(HELPER_ID).save_pretrained(tmp_path)
        assert "no weights for cls.predictions" in self.refused(str(tmp_path))

    def test_a_tokenizer_without_mask(self, bert):
        model = MaskedLanguageModel.load(bert, FakeSubject())
        model.tokenizer.mask_token = None
        with pytest.raises(InputError, match="mask token"):
            MaskedLanguageModel(model.model, model.tokenizer, FakeSubject(), "x")


class TestAugmenterFor:
    def test_by_name(self, bert):
        subject = FakeSubject()
        assert augmenter_for("none", subject) is None
        assert isinstance(augmenter_for("subject", subject), SubjectInfill)
        assert isinstance(augmenter_for("spellings", subject), Spellings)
        both = augmenter_for("spellings+subject", subject)
        assert isinstance(both, Several)
        assert both.name == f"{Spellings(subject).name} + {SubjectInfill(subject).name}"
        assert isinstance(augmenter_for(bert, subject), MaskedLanguageModel)
        with pytest.raises(InputError, match="no-such/bert"):
            augmenter_for("no-such/bert", subject)

    def test_auto_takes_bert_where_it_is_at_hand(self, bert, monkeypatch):
        monkeypatch.setattr(masked_lm, "BERT", bert)
        lines = []
        augmenter = augmenter_for("auto", FakeSubject(), report=lines.append)
        assert isinstance(augmenter, MaskedLanguageModel)
        assert lines == [f"augmenter: {augmenter.name}, as in the paper"]

    def test_auto_says_what_stands_in_for_bert_and_why(self, monkeypatch):
        monkeypatch.setattr(masked_lm, "BERT", "no-such/bert")
        lines, subject = [], FakeSubject()
        found = augmenter_for("auto", subject, report=lines.append)
        assert found is not None
        assert found.name == augmenter_for("spellings+subject", subject).name
        assert len(lines) == 1
        assert "since no-such/bert is not on this machine" in lines[0]
        assert "\n" not in lines[0]
