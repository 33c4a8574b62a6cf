"""Activations shortened in training: what that is by hand, and what it saves where a few are enormous."""

import json
from dataclasses import replace

import pytest
import torch

from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.errors import InputError
from saelens_n2g.training import TrainingConfig, train
from saelens_n2g.training.loop import job_of, train_several
from saelens_n2g.training.rows import RowStream, as_rows, shortened, statistics, stream_statistics
from saelens_n2g.training.run import Run

D = 24
METADATA = SaeMetadata("tiny", "blocks.0.hook_resid_post", 32, prepend_bos=True)
CONFIG = TrainingConfig(expansion=2.0, alpha=0.04, lr=1e-2, batch=256, samples=256 * 800, wandb="disabled", clip=5.0)


def rows(massive: int = 40, n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse combinations of known directions; to some rows one and the same enormous vector is added."""
    draws = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(32, D, generator=draws), dim=1)
    code = torch.rand(n, 32, generator=draws) * (torch.rand(n, 32, generator=draws) < 0.06)
    found = code @ directions + 0.5
    places = torch.randperm(n, generator=draws)[:massive]
    found[places] += 1000.0 * torch.nn.functional.normalize(torch.randn(D, generator=draws), dim=0)
    return directions, found


def test_rows_are_shortened_and_keep_their_direction():
    found = shortened(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_statistics_are_those_of_the_shortened_rows():
    _, x = rows()
    known = statistics(as_rows(x), clip=5.0)
    plain = x.double().mean(0)
    offset = x.double() - plain
    limit = 5.0 * offset.norm(dim=1).median()
    clipped = plain + offset * (limit / offset.norm(dim=1)).clamp(max=1.0)[:, None]
    assert known.limit == pytest.approx(limit.item())
    torch.testing.assert_close(known.mean, clipped.mean(0))
    assert known.mean_square == pytest.approx((clipped - clipped.mean(0)).square().sum(1).mean().item())
    assert known.mean_square < statistics(as_rows(x)).mean_square / 100
    stream = stream_statistics(RowStream(as_rows(x), batch=500), clip=5.0)
    torch.testing.assert_close(stream.mean, known.mean)
    assert (stream.limit, stream.mean_square) == (pytest.approx(known.limit), pytest.approx(known.mean_square))


def test_a_run_learns_from_shortened_rows_and_from_others_as_they_are(monkeypatch):
    _, x = rows()
    run, seen = Run(CONFIG, statistics(as_rows(x), clip=5.0)), []
    step = run.objective.step
    monkeypatch.setattr(run.objective, "step", lambda y: seen.append(y.clone()) or step(y))
    batch = torch.cat([x[:250], x[x.norm(dim=1).topk(6).indices]])
    run.step(batch)
    y = (batch - run.data.mean.float()) * run.scale
    limit = run.data.limit * run.scale
    long = y.norm(dim=1) > limit
    assert 0 < int(long.sum()) < 10
    torch.testing.assert_close(seen[0][~long], y[~long])
    torch.testing.assert_close(seen[0][long].norm(dim=1), torch.full((int(long.sum()),), limit))
    cosines = torch.nn.functional.cosine_similarity(seen[0][long], y[long])
    assert (cosines > 0.9999).all()


def test_a_few_enormous_rows_wreck_a_dictionary_unless_they_are_shortened(tmp_path):
    directions, x = rows()
    found = {}
    for clip in (0.0, 5.0):
        config = replace(CONFIG, clip=clip, checkpoint_every=0)
        result = train(config, x[:18_000], tmp_path / str(clip), metadata=METADATA, test_rows=x[18_000:])
        found[clip] = result.test.fvu_typical, (directions @ result.dictionary.W_dec.T).max(1).values.mean().item()
        stored = json.loads((result.folder / "cfg.json").read_text())
        assert stored["metadata"]["training"]["clip"] == clip
    assert found[0.0][0] > 0.5
    assert found[5.0][0] < 0.2
    assert found[5.0][1] > 0.9 > found[0.0][1] + 0.1


def test_what_cannot_be():
    with pytest.raises(InputError, match="training option clip"):
        replace(CONFIG, clip=-1.0)
    mostly = torch.zeros(10, 3)
    mostly[0], mostly[1] = 1.0, -1.0
    with pytest.raises(InputError, match="rows of which more than half differ"):
        statistics(as_rows(mostly), clip=2.0)


def test_dictionaries_of_one_pass_are_clipped_alike(tmp_path):
    _, x = rows(n=2000)
    config = replace(CONFIG, samples=2560)
    jobs = [job_of(replace(config, clip=clip), x, tmp_path / str(clip), metadata=METADATA) for clip in (0.0, 5.0)]
    with pytest.raises(InputError, match="training option clip of several jobs"):
        train_several(jobs)
