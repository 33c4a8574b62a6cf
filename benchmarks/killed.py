"""A training run killed again and again at random moments, beside one that is left alone.

    python benchmarks/killed.py                    # twenty times kill -9, then to the end
    python benchmarks/killed.py --kills 50 --architecture topk

Says how many steps were lost at each kill (those since the last checkpoint) and whether the weights, the metrics and
the firing rates are those of the undisturbed run, byte for byte. Exit status 1 if they are not.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.jobs.artefacts import committed
from saelens_n2g.training import TrainingConfig, train

STEPS, EVERY, BATCH, D = 4000, 25, 256, 48


def run(folder: Path, architecture: str) -> None:
    """What is killed: a run that says each step."""
    torch.set_num_threads(1)
    options = {"k": 6} if architecture in ("topk", "batchtopk", "matryoshka") else {}
    if architecture in ("tied", "relu", "gated"):
        options = {"resample_every": 100_000}
    config = TrainingConfig(
        architecture=architecture,
        options=options,
        samples=STEPS * BATCH,
        batch=BATCH,
        alpha=2e-2,
        checkpoint_every=EVERY,
        dead_window=50_000,
        wandb="disabled",
    )
    rows = torch.randn(20_000, D, generator=torch.Generator().manual_seed(0)).exp()
    about = SaeMetadata("random", "blocks.0.hook_resid_post", 128, prepend_bos=True)
    train(config, rows, folder, metadata=about, on_step=lambda step, *_: print(step, flush=True))


def started(folder: Path, architecture: str) -> "subprocess.Popen[str]":
    """The run in a process of its own."""
    call = [sys.executable, __file__, "--run", str(folder), "--architecture", architecture]
    return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)


def last_step(process: "subprocess.Popen[str]") -> int:
    """The last step that a process that has ended told of; 0 for none."""
    assert process.stdout is not None
    lines = [line for line in process.stdout.read().split("\n")[:-1] if line.isdecimal()]
    return int(lines[-1]) if lines else 0


def kept(folder: Path) -> int:
    """Steps of the newest whole checkpoint."""
    places = [place for place in (folder / "checkpoints").glob("step-*") if committed(place) is not None]
    return max((int(place.name.removeprefix("step-")) for place in places), default=0)


def main() -> int:
    """Kill, finish, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--architecture", default="tied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run, given.architecture)
        return 0
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place) / "alone", Path(place) / "killed"
        assert started(alone, given.architecture).communicate() is not None
        lost, reached = [], 0
        for _ in range(given.kills):
            process = started(killed, given.architecture)
            assert process.stdout is not None
            process.stdout.readline()  # it is past its imports
            time.sleep(draw.uniform(0.0, 0.4))
            process.kill()
            step = max(last_step(process), reached)
            process.wait()
            reached = kept(killed)
            lost.append(step - reached)
            if (killed / "sae").exists():
                print("it came to its end before it was killed as often: more steps are needed")
                return 1
        started(killed, given.architecture).communicate()
        files = ["metrics.jsonl", "sae/sae_weights.safetensors", "sae/sparsity.safetensors", "sae/cfg.json"]
        same = {name: (alone / name).read_bytes() == (killed / name).read_bytes() for name in files}
    print(f"killed {given.kills} times, the last time after step {reached:,} of {STEPS:,}; checkpoints every {EVERY}")
    print(f"steps lost: at most {max(lost)}, on average {sum(lost) / len(lost):.1f}")
    print(", ".join(f"{name}: {'the same' if equal else 'DIFFERS'}" for name, equal in same.items()))
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
