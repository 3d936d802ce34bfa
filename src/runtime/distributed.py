"""One job in several processes: their ranks, and the messages between them.

torchrun starts the processes and sets RANK, LOCAL_RANK and WORLD_SIZE; without it there is one process. Small messages
(a stop, scores, a saved state) go through a gloo group on the CPU, gradients on GPUs through NCCL.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ..errors import FlexiASTError
from .lifetime import end_with_launcher

TIMEOUT = 720.0
"""Minutes that processes wait for one another by default: rank 0 may measure, or write, that long on its own."""
STORE_TIMEOUT = 60.0
"""Seconds in which torchrun's store, which is there before the processes are, has to answer."""


class LostProcess(FlexiASTError):
    """Another process of the job has ended or did not answer in time."""


@dataclasses.dataclass(frozen=True)
class World:
    """The processes of a job; by default only this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine: the GPU to use."""
    control: Any = None
    """Process group for messages between CPUs."""

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, which writes files and shows progress."""
        return self.rank == 0

    def own(self, device: torch.device) -> torch.device:
        """This process's own GPU if the job has several processes; otherwise the device itself."""
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

    def on_rank0_only(self, enter: Callable[[], AbstractContextManager[None]]) -> ExitStack:
        """Enter a context on rank 0 only; a FlexiASTError from entering it is raised in every process."""
        context = ExitStack()
        self.on_rank0(lambda: context.enter_context(enter()))
        return context

    def on_rank0(self, action: Callable[[], Any]) -> Any:
        """Run `action` on rank 0; its result is returned, or its FlexiASTError raised, in every process."""
        value, error = None, None
        if self.is_rank0:
            try:
                value = action()
            except FlexiASTError as raised:
                error = raised
        value, error = self.broadcast((value, error))
        if error is not None:
            raise error
        return value


@contextmanager
def connected(timeout: float = TIMEOUT) -> Iterator[World]:
    """Join the processes that torchrun has started, and leave them at the end. Without torchrun, this one is alone.

    timeout: minutes that a process waits for another one. Raises LostProcess if one has ended or does not answer in
    that time. If torchrun itself dies, so that nothing looks after the processes, each stops as if by SIGTERM.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
        _require_launcher()
    on_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        torch.cuda.set_device(local_rank)
    limit = datetime.timedelta(minutes=timeout)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=limit)
        control = dist.new_group(backend="gloo", timeout=limit) if on_gpu else dist.group.WORLD
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, control)
    except RuntimeError as error:
        if (lost := _lost_process(error, timeout)) is None:
            raise
        raise lost from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _require_launcher() -> None:
    """Raise LostProcess if torchrun died before this process knew it: its store does not answer."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    end = time.monotonic() + STORE_TIMEOUT
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=STORE_TIMEOUT).close()
            return
        except OSError as error:
            if isinstance(error, ConnectionRefusedError) or time.monotonic() > end:
                raise LostProcess(
                    f"the launcher of this job is gone: its store at {host}:{port} does not answer"
                    f" ({error.strerror or error}); start the job again"
                ) from None
            time.sleep(1)


def _lost_process(error: RuntimeError, timeout: float) -> LostProcess | None:
    """An error of gloo, NCCL or their store about a process that is gone or silent, in one line; None for others."""
    text = str(error)
    if not (isinstance(error, dist.DistError) or re.search(r"gloo|NCCL|[Cc]onnection (closed|reset)|TCPStore", text)):
        return None
    if re.search(r"[Tt]imed? ?out", text):
        return LostProcess(
            f"a process of this job has waited {timeout:g} minutes for another one (dist_timeout); if that one was at"
            " work, allow more"
        )
    reason = re.sub(r"^\[[^]]*\] *", "", text.splitlines()[0])[:200]
    return LostProcess(f"another process of this job has ended ({reason}); its own message says why")


def is_rank0() -> bool:
    """Whether this process is torchrun's first, or the only one."""
    return os.environ.get("RANK", "0") == "0"
