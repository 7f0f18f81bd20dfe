"""Training in several processes started by torchrun: one for each GPU, or some on a CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process's place among the training processes."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, order: list[int]) -> list[int]:
        """This process's part of an epoch; all parts are equally long."""
        return order[self.rank : len(order) - len(order) % self.size : self.size]

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network, with gradients averaged over all processes."""
        return DistributedDataParallel(net) if self.size > 1 else net

    def wait(self) -> None:
        """Wait for all other processes."""
        if self.size > 1:
            distributed.barrier()

    def mean(self, value: float) -> float:
        """The mean of a value over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total.item()) / self.size

    def agreed(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """The first process's values, in every process."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return tuple(shared.tolist())


def speaks() -> bool:
    """Whether this process is the first or the only one. Works outside `joined` too."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun this process is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device=device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(distributed.get_rank(), size, device)
        distributed.barrier()  # a process that leaves early would break the others' connections
    finally:
        distributed.destroy_process_group()
