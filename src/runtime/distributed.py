"""One job over many processes: their ranks, and the messages between them.

torchrun starts the processes and sets RANK, LOCAL_RANK and WORLD_SIZE; without it there is one process. Small messages
(a stop, scores, a saved state) go over a gloo group on the CPU, gradients on GPUs over NCCL.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


@dataclasses.dataclass(frozen=True)
class World:
    """The processes of a training; by default there is only this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine: the GPU to use."""
    control: Any = None
    """Process group of messages between CPUs."""

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, which writes files and shows progress."""
        return self.rank == 0

    def own(self, device: torch.device) -> torch.device:
        """This process's own GPU where several processes share a machine; the device itself otherwise."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" and self.size > 1 else device

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum(0.0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must call this."""
        return self.sum(float(flag)) > 0 if self.size > 1 else flag

    def sum(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return total.item()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]


@contextmanager
def connected() -> Iterator[World]:
    """Join the processes started by torchrun; leave them at the end. Alone when there is no torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    on_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        control = dist.new_group(backend="gloo") if on_gpu else dist.group.WORLD
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, control)
    finally:
        dist.destroy_process_group()


def print_once(text: str) -> None:
    """Print on rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        print(text)
