"""Packing and running: trees of rows say what the rows say, and both ways through a model give the same."""

import numpy as np
import pytest
import torch
from fakes import BASIS, BOS, SITE, UNIT, A, B, C, D, E, FakeSubject
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.packing import LONGEST, can_pack, lines, pack
from saelens_n2g.graphs.questions import ask_activations
from saelens_n2g.graphs.running import SLACK, Costs, Row, Runner, batches

ROW = st.lists(st.integers(0, 3), min_size=1, max_size=7).map(tuple)
ROWS = st.lists(ROW, min_size=1, max_size=12, unique=True)


class Packable(FakeSubject):
    """A subject that answers packs by reading each place's text back out of the mask: the definition."""

    dtype = torch.float32
    packed_calls = 0

    def texts(self, ids, mask):
        """Per place of the lines, in order, the text that a token there can see."""
        for line, seen in zip(ids.tolist(), mask, strict=True):
            for allowed in seen:
                yield tuple(line[k] for k in np.flatnonzero(allowed.numpy()))

    def activations_at(self, ids, site, at, *, positions, mask):
        self.packed_calls, self.tokens = self.packed_calls + 1, self.tokens + ids.numel()
        texts = list(self.texts(ids, mask))
        depths = positions.flatten().tolist()
        assert all(depths[i] == len(texts[i]) - 1 for i in at.tolist())
        rows = [super(Packable, self).activations(torch.tensor([texts[i]]), [site])[site][0, -1] for i in at.tolist()]
        return torch.stack(rows) if rows else torch.zeros(0, BASIS.width)


@given(ROWS, st.integers(1, 30))
def test_every_row_is_a_path_and_every_prefix_a_node(rows, line):
    packed = pack(rows, line)
    for row, number, nodes in zip(rows, packed.pack, packed.nodes, strict=True):
        own = packed.packs[number]
        assert tuple(own.ids[node] for node in nodes) == row
        assert [own.depth[node] for node in nodes] == list(range(len(row)))
        assert [own.parent[node] for node in nodes] == [-1, *nodes[:-1]]
    assert all(len(p.ids) <= max(line, *map(len, rows)) for p in packed.packs)
    whole = pack(rows, 10**6)
    assert len(whole.packs) == 1
    assert len(whole.packs[0].ids) == len({row[:n] for row in rows for n in range(1, len(row) + 1)})


@given(ROWS, st.integers(1, 30))
def test_a_place_sees_what_stands_before_it_in_its_row(rows, line):
    packed = pack(rows, line)
    ids, positions, mask = lines(packed.packs, 9)
    for row, number, nodes in zip(rows, packed.pack, packed.nodes, strict=True):
        for n, node in enumerate(nodes):
            seen = np.flatnonzero(mask[number, node].numpy())
            assert sorted(seen) == sorted(nodes[: n + 1])
            assert [int(ids[number, k]) for k in sorted(seen, key=positions[number].__getitem__)] == list(row[: n + 1])
    for number, p in enumerate(packed.packs):
        rest = range(len(p.ids), ids.shape[1])
        assert (ids[number, len(p.ids) :] == 9).all()
        assert all(np.flatnonzero(mask[number, k].numpy()).tolist() == [k] for k in rest)


@given(st.lists(st.integers(1, 300)).map(sorted), st.integers(1, 2000))
def test_batches_keep_to_their_limit_and_pad_little(sizes, limit):
    found = list(batches(sizes, lambda n: n, limit))
    assert [n for batch in found for n in batch] == sizes
    for batch in found:
        padded = len(batch) * batch[-1]
        assert len(batch) == 1 or padded <= limit
        assert padded - sum(batch) <= max(SLACK, sum(batch) // 8)


class TestCanPack:
    def test_a_subject_whose_attention_follows_the_mask(self):
        asked = []
        assert can_pack(Packable(n_ctx=64), SITE, asked.append)
        assert len(asked) == 3
        assert can_pack(Packable(n_ctx=5), SITE)

    def test_a_subject_that_looks_at_everything_before(self):
        class Blind(Packable):
            def activations_at(self, ids, site, at, *, positions, mask):  # noqa: ARG002
                texts = list(self.texts(ids, torch.ones_like(mask).tril()))
                rows = [FakeSubject.activations(self, torch.tensor([texts[i][-self.n_ctx :]]), [site]) for i in at]
                return torch.stack([found[site][0, -1] for found in rows])

        assert not can_pack(Blind(n_ctx=64), SITE)

    @pytest.mark.parametrize("error", [TypeError, RuntimeError])
    def test_a_subject_that_takes_no_mask(self, error):
        class Refusing(Packable):
            def activations_at(self, *_, **__):
                raise error("no attention_mask")

        assert not can_pack(Refusing(), SITE)

    def test_another_shape(self):
        class Wide(Packable):
            def activations_at(self, *args, **options):
                return super().activations_at(*args, **options)[:, :2]

        assert not can_pack(Wide(), SITE)


class TestRunner:
    @settings(deadline=None)
    @given(ROWS, st.sampled_from((1, 13, 1024)), st.sampled_from((BOS, None)))
    def test_both_ways_give_the_wanted_places(self, rows, batch_tokens, bos):
        wanted = [Row(row, range(i % len(row), len(row))) for i, row in enumerate(rows)]
        for subject in (FakeSubject(bos), Packable(bos)):
            runner, found = Runner(subject, SITE, batch_tokens, Costs()), {}
            runner.packs = isinstance(subject, Packable)
            for batch, x in runner.run(wanted):
                for row, values in zip(batch, x.split([len(row.at) for row in batch]), strict=True):
                    found[row.tokens] = values[:, UNIT["B after A"]].tolist()
            for row in wanted:
                assert found[row.tokens] == subject.direct("B after A", row.tokens)[list(row.at)].tolist()

    @pytest.mark.parametrize("subject", [FakeSubject(), Packable()])
    def test_nothing_may_be_wanted_of_a_row(self, subject):
        ((batch, x),) = Runner(subject, SITE, 1024, Costs()).run([Row((A, B), [])])
        assert (batch, tuple(x.shape)) == ([Row((A, B), [])], (0, BASIS.width))

    def test_what_rows_share_is_run_once(self):
        subject = Packable()
        runner = Runner(subject, SITE, 1024, Costs())
        runner.packs = True
        rows = [Row(row, [len(row) - 1]) for row in ((A, B, C), (A, B, D), (A,), (E,))]
        list(runner.run(rows))
        assert (runner.costs.calls, runner.costs.tokens) == (1, 6)  # BOS, A, B, C, D, E

    def test_long_rows_go_the_plain_way(self):
        subject = Packable(n_ctx=4 * LONGEST)
        runner = Runner(subject, SITE, 1024, Costs())
        runner.packs = True
        list(runner.run([Row((A,) * LONGEST, [0])]))
        assert (subject.packed_calls, subject.calls) == (0, 1)
        list(runner.run([Row((A,) * (LONGEST - 1), [0])]))  # with the BOS, just short enough
        assert subject.packed_calls == 1

    def test_a_subject_is_tried_once_and_what_that_costs_is_counted(self):
        subject = Packable()
        oracle = Oracle(subject, BASIS)
        for _ in range(2):
            oracle.run({UNIT["A"]: ask_activations([(A,)])})
        assert oracle.costs.calls == 3 + 2
        with pytest.raises(InputError, match="token ids"):
            Oracle(Packable(n_ctx=4), BASIS).run({0: ask_activations([(A,) * 9])})
