"""One training step of a dictionary, ours beside others', on the same batch in one run.

    python benchmarks/sae_step.py                                       # ours, the dense floor, the crossover
    python benchmarks/sae_step.py --peers PEERS/bin/python              # beside SAELens, dictionary_learning, sparsify
    python benchmarks/sae_step.py --reference-steps 200                 # the tied step against plain autograd

PEERS is an environment of its own, since SAELens and TransformerLens 4 do not import together:

    python -m venv PEERS && PEERS/bin/pip install sae-lens==6.51.1 transformer-lens==3.9.0 torch \\
        natsort simple-parsing schedulefree && PEERS/bin/pip install --no-deps dictionary-learning eai-sparsify

The batch is random, d 576 to 4608 features, 4096 rows, float32, one thread; biases are set so that about 100 features
are active on a row, as in a trained dictionary (a sparse step depends on that, a dense one does not). Figures are CPU
seconds of the process that makes the step, the best of interleaved rounds, because other work may share the machine.
Floor: the five matrix products of a dense tied step alone. Memory: the largest resident set.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.training.architectures.registry import architectures
from saelens_n2g.training.architectures.tied import TiedObjective
from saelens_n2g.training.objective import Objective, Start

BIAS = -2.03
"""Of every feature: unit rows and Gaussian batches are then active with probability 0.021."""


class Peers:
    """The other implementations, in a process of another environment."""

    def __init__(self, python: Path, batch: torch.Tensor, n: int, threads: int) -> None:
        self._file = tempfile.NamedTemporaryFile(suffix=".pt")  # noqa: SIM115  (closed with the process)
        torch.save(batch, self._file.name)
        script = Path(__file__).with_name("sae_step_peers.py")
        self._process = subprocess.Popen(
            [str(python), str(script), self._file.name, str(n), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("[", "{")) or line[:1].isdigit():
                return json.loads(line)
        raise SystemExit("the peers' process ended; its own message stands above")

    def seconds(self, name: str, steps: int) -> float:
        """CPU seconds a step."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {steps}\n")
        self._process.stdin.flush()
        return float(self._answer()) / steps


def objective(name: str, d: int, n: int) -> Objective:
    """One of ours, about 100 features active, moving little."""
    made = architectures()[name].build(Start(d=d, n=n, alpha=1e-4, lr=1e-5))
    if name in ("tied", "relu", "gated", "jumprelu"):
        bias: torch.Tensor = made.bias if isinstance(made, TiedObjective) else made.parameters["bias"]  # type: ignore[attr-defined]
        with torch.no_grad():
            bias.fill_(BIAS)
    return made


def timed(step: Callable[[], Any], steps: int) -> float:
    """CPU seconds a step."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def floor(batch: torch.Tensor, n: int) -> Callable[[], None]:
    """Five products of the size of a dense tied step, into buffers."""
    rows, d = batch.shape
    w, code, error, grad = torch.randn(n, d), torch.zeros(rows, n), torch.zeros(rows, d), torch.zeros(n, d)

    def products() -> None:
        torch.mm(batch, w.T, out=code)
        torch.mm(code, w, out=error)
        torch.mm(error, w.T, out=code)
        torch.mm(code.T, error, out=grad)
        torch.mm(code.T, batch, out=grad)

    return products


def compare(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Seconds a step of everything, best of the rounds."""
    d, n, rows = arguments.d, arguments.n, arguments.batch
    batch = torch.randn(rows, d, generator=torch.Generator().manual_seed(0))
    steps: dict[str, Callable[[int], float]] = {}
    notes: dict[str, float] = {}
    for name in architectures():
        made = objective(name, d, n)
        notes[f"ours: {name}"] = float(made.step(batch).l0)
        steps[f"ours: {name}"] = lambda k, made=made: timed(lambda: made.step(batch), k)  # type: ignore[misc]
    dense = objective("tied", d, n)
    dense.densest = -1.0  # type: ignore[attr-defined]
    notes["ours: tied, all dense"] = float(dense.step(batch).l0)
    steps["ours: tied, all dense"] = lambda k: timed(lambda: dense.step(batch), k)
    products = floor(batch, n)
    steps["floor: five products"] = lambda k: timed(products, k)
    if arguments.peers is not None:
        peers = Peers(arguments.peers, batch, n, arguments.threads)
        for name in peers.names:
            steps[name] = lambda k, name=name: peers.seconds(name, k)  # type: ignore[misc]
    best = dict.fromkeys(steps, float("inf"))
    for round_ in range(arguments.rounds):
        for name, step in steps.items():
            best[name] = min(best[name], step(arguments.steps))
        console.print(f"round {round_ + 1} of {arguments.rounds}", style="dim")
    ours, products_alone = best["ours: tied"], best["floor: five products"]
    return [
        {
            "step": name,
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            "tied_is_faster": seconds / ours,
            "of_floor": products_alone / seconds,
            "l0": notes.get(name),
        }
        for name, seconds in best.items()
    ]


def crossover(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Sparse against dense tied steps by the share of active features."""
    d, n, rows = arguments.d, arguments.n, arguments.batch
    batch = torch.randn(rows, d, generator=torch.Generator().manual_seed(0))
    out = []
    for bias in (-2.4, -2.03, -1.65, -1.28, -1.04, -0.84):
        seconds, active = {}, 0.0
        for way, densest in (("sparse", 1.0), ("dense", -1.0)):
            made = objective("tied", d, n)
            assert isinstance(made, TiedObjective)
            made.bias.fill_(bias)
            made.densest = densest
            active = float(made.step(batch).l0) / n
            seconds[way] = min(timed(lambda made=made: made.step(batch), 1) for _ in range(arguments.rounds))  # type: ignore[misc]
        out.append({"active": active, **seconds})
    return out


def reference(arguments: argparse.Namespace) -> dict[str, float]:
    """Loss after some steps on a stream of batches, beside autograd's from the same start."""
    d, n, rows = arguments.d, arguments.n, arguments.batch
    draws = torch.Generator().manual_seed(1)
    planted = torch.nn.functional.normalize(torch.randn(2 * d, d, generator=draws), dim=1)
    start = Start(d=d, n=n, alpha=3e-3, lr=1e-3, seed=2)
    made = TiedObjective(start)
    encoder, bias = made.encoder.clone().requires_grad_(), made.bias.clone().requires_grad_()
    adam = torch.optim.Adam([encoder, bias], lr=start.lr)
    found = {"ours": 0.0, "autograd": 0.0, "l0": 0.0}
    for _ in range(arguments.reference_steps):
        code = torch.rand(rows, 2 * d, generator=draws) * (torch.rand(rows, 2 * d, generator=draws) < 0.02)
        y = 4 * code @ planted
        w = encoder / encoder.norm(dim=1, keepdim=True)
        features = torch.relu(y @ w.T + bias)
        loss = (features @ w - y).square().mean() + start.alpha * features.sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        metrics = made.step(y)
        found = {"ours": metrics.loss.item(), "autograd": loss.item(), "l0": metrics.l0.item()}
    return {**found, "relative_difference": abs(found["ours"] / found["autograd"] - 1)}


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    """A table of figures."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if column == "step" else "right")
    for row in rows:
        table.add_row(*("" if v is None else v if isinstance(v, str) else f"{v:,.4g}" for v in row.values()))
    console.print(table)


def main() -> None:
    """Measure, print, write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of an environment with the peers")
    parser.add_argument("--d", type=int, default=576)
    parser.add_argument("--n", type=int, default=4608)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="highest", choices=["highest", "high", "medium"])
    parser.add_argument("--crossover", action="store_true", help="also sparse against dense by density")
    parser.add_argument("--reference-steps", type=int, default=0, help="also this many steps beside autograd")
    parser.add_argument("--json", type=Path)
    arguments, console = parser.parse_args(), Console(width=None if sys.stdout.isatty() else 120)
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision(arguments.precision)
    found: dict[str, Any] = {"steps": compare(arguments, console)}
    show(f"{arguments.batch} rows, {arguments.d} -> {arguments.n}", found["steps"], console)
    if arguments.crossover:
        found["crossover"] = crossover(arguments)
        show("tied step by density", found["crossover"], console)
    if arguments.reference_steps:
        found["reference"] = reference(arguments)
        show(f"loss after {arguments.reference_steps} steps", [found["reference"]], console)
    found["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"largest resident set: {found['peak_memory_mib']:,.0f} MiB")
    if arguments.json is not None:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
