"""Parallel: one dictionary learnt by several processes, each of which has all of it and a part of every batch.

    torchrun --nproc-per-node 4 script.py         # where script.py calls `train`, and nothing else is different

    with group_from_environment("cuda") as group: # what `train` does by itself
        rows = group.part(batch);  ...;  group.mean_(gradients)

The loss is a mean over rows, so with parts of equal size the gradient of the whole batch is the mean of the parts'
gradients: a step of R processes is the step of one process on the same batch, up to the order of additions. One step
sends one buffer, the gradients with the metrics behind them. What chooses over a batch (BatchTopK, Matryoshka) chooses
over the process's own part of it. Gradients are averaged here and not by torch's DistributedDataParallel, which
listens to autograd: those of the tied dictionary are written by hand.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for every process that it starts."""


PATIENCE = timedelta(hours=24)
"""How long a process waits for others. One may read text and run the model for hours while the others wait; one that
ends is noticed at once, whatever this says."""


class Group(ABC):
    """The processes that train together, as one of them sees it. All must call the same methods in the same order."""

    rank: int
    """Number of this process, from 0."""
    size: int
    """Number of processes."""

    @property
    def is_writer(self) -> bool:
        """Whether this process writes files and reports; one of them does."""
        return self.rank == 0

    def part(self, batch: Float[Tensor, "b d"]) -> Float[Tensor, "part d"]:
        """This process's rows of a batch whose size the number of processes divides: a view."""
        own = len(batch) // self.size
        assert own * self.size == len(batch), f"{len(batch)} rows for {self.size} processes"
        return batch[self.rank * own : (self.rank + 1) * own]

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over processes."""
        self.sum_(tensors)
        if self.size > 1:
            for tensor in tensors:
                tensor.div_(self.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(self.gather(int(flag)))

    def barrier(self) -> None:
        """Return when all processes have called it."""
        self.gather(0)

    @contextmanager
    def writer_first(self) -> Iterator[None]:
        """A block that the writing process goes through before the others begin it: what it makes is there for them.
        Where it fails, the others go on waiting until whoever started them ends them, as torchrun does."""
        if not self.is_writer:
            self.barrier()
        yield
        if self.is_writer:
            self.barrier()

    def agree(self, thing: str, value: Any) -> None:
        """Raises `InputError` in every process unless the JSON `value` of all is that of the first."""
        found = self.gather(int.from_bytes(bytes.fromhex(fingerprint(value)), signed=True))
        if apart := [str(rank) for rank, other in enumerate(found) if other != found[0]]:
            raise InputError(
                f"{thing} of {self.size} processes", "the same in all", f"others in {', '.join(apart)} than in 0"
            )

    def named(self, device: torch.device) -> str:
        """What the settings call a device: of several processes each has a GPU of its own number."""
        return str(device if self.size == 1 else device.type)

    @abstractmethod
    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over processes, bit for bit the same in all."""

    @abstractmethod
    def gather(self, value: int) -> list[int]:
        """An integer (64 bits) of every process, by rank."""

    @abstractmethod
    def device(self, name: str) -> str:
        """The device of this process, where the settings say `name`. Raises `InputError` if it cannot be shared."""


class Single(Group):
    """One process: there is nothing to be done."""

    rank, size = 0, 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """See `Group.sum_`."""

    def gather(self, value: int) -> list[int]:
        """See `Group.gather`."""
        return [value]

    def device(self, name: str) -> str:
        """See `Group.device`."""
        return name


SINGLE = Single()
"""The group of a process by itself."""


class Processes(Group):
    """The processes of torch's default process group, which must have been started."""

    def __init__(self, local_rank: int) -> None:
        """`local_rank`: number of this process on its machine, which is that of its GPU."""
        self.rank, self.size, self._local_rank = dist.get_rank(), dist.get_world_size(), local_rank
        self._buffers: dict[tuple[torch.dtype, torch.device, int], Tensor] = {}

    @torch.no_grad()
    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """See `Group.sum_`. One buffer is sent for all tensors of a type and device; it is kept for the next time."""
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for (dtype, device), same in kinds.items():
            sizes = [tensor.numel() for tensor in same]
            key = (dtype, device, sum(sizes))
            if key not in self._buffers:
                self._buffers[key] = torch.empty(sum(sizes), dtype=dtype, device=device)
            flat = torch.cat([tensor.reshape(-1) for tensor in same], out=self._buffers[key])
            dist.all_reduce(flat)
            for tensor, found in zip(same, flat.split(sizes), strict=True):
                tensor.copy_(found.view_as(tensor))

    def gather(self, value: int) -> list[int]:
        """See `Group.gather`. By way of the CPU, so that no GPU is waited for."""
        found = torch.zeros(self.size, dtype=torch.int64)
        found[self.rank] = value
        dist.all_reduce(found)
        return [int(other) for other in found.tolist()]

    def device(self, name: str) -> str:
        """See `Group.device`: `cuda` is the GPU of the process's number on its machine."""
        if name not in ("cpu", "cuda"):
            raise InputError(f"training option device of {self.size} processes", "cpu or cuda", repr(name))
        return f"cuda:{self._local_rank}" if name == "cuda" else name


@contextmanager
def group_from_environment(device: str = "cpu") -> Iterator[Group]:
    """The group that torchrun's variables tell of, started and ended with the block; `SINGLE` where there are none.

    device: what is trained on, as PyTorch names it. Sums go over gloo on CPUs and over NCCL on GPUs. A process group
    that is there already is used, and left as it is. Raises `InputError` for variables that are incomplete or no
    numbers, and where processes cannot reach one another.
    """
    if (given := _variables(os.environ)) is None:
        yield SINGLE
        return
    local_rank, cuda = given, device.startswith("cuda")
    if cuda:
        _check_gpu(local_rank)
        torch.cuda.set_device(local_rank)
    if dist.is_initialized():
        yield Processes(local_rank)
        return
    _start("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Processes(local_rank)
    finally:
        dist.destroy_process_group()


def _variables(environment: Mapping[str, str]) -> int | None:
    """The number of this process on its machine; None where it is alone."""
    if not all(name in environment for name in VARIABLES[:3]):
        return None
    if missing := [name for name in VARIABLES if name not in environment]:
        raise InputError("environment of several processes", f"all of {', '.join(VARIABLES)}", f"no {missing[0]}")
    values = []
    for name in VARIABLES[:3]:
        if not environment[name].isdecimal():
            raise InputError(f"environment variable {name}", "a whole number", repr(environment[name]))
        values.append(int(environment[name]))
    rank, size, local_rank = values
    if rank >= size:
        raise InputError("environment variable RANK", f"a number below WORLD_SIZE, {size}", str(rank))
    return local_rank if size > 1 else None


def _check_gpu(local_rank: int) -> None:
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            "processes that train on GPUs", "one for each GPU of a machine", f"more than {torch.cuda.device_count()}"
        )


@cache
def _rendezvous() -> tuple[Any, int, int]:
    """Where the processes meet, once in their lives: the first of them may be the one that keeps the store."""
    store, rank, size = next(iter(rendezvous("env://")))
    return store, rank, size


_groups = count()
"""Numbers the groups of this process, so that a second one does not read what the first left in the store."""


def _start(backend: str) -> None:
    # An optimiser imports this when it is first made. Imported while there is a process group, it holds on to the
    # group for ever: its threads then outlive the interpreter, and one finished run in six ended with SIGABRT.
    import torch._dynamo  # noqa: F401

    try:
        store, rank, size = _rendezvous()
        own = dist.PrefixStore(f"saelens_n2g/{next(_groups)}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).splitlines()[0]
        raise InputError("processes that train together", f"to meet at {where} by {backend}", reason) from error
