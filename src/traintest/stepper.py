"""One optimizer step on one batch: micro-batches that fit the memory, DDP, gradients that are not finite.

Dimensions: B clips of this process, N tokens of a clip.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..classifier.audio_classifier import AudioClassifier
from ..models.geometry import PatchSize
from ..runtime.device import is_out_of_memory
from ..runtime.distributed import World
from .micro_batches import cut, token_counts
from .objective import Inputs, Objective
from .optim import build_optimizers
from .options import MemoryLimits, OptimConfig

logger = logging.getLogger(__name__)


Outcome = Literal["used", "rescaled", "not finite"]
"""Of a batch: `rescaled` if a gradient was too large for float16 at the scale of the loss, which is then smaller."""


class TooLargeError(Exception):
    """The memory does not suffice for so many clips at a patch size."""

    def __init__(self, patch: PatchSize, clips: int) -> None:
        super().__init__(f"{clips} clips at patch size {patch}")
        self.patch, self.clips = patch, clips


class Stepper:
    """Takes a model from one batch to new weights."""

    def __init__(
        self,
        model: AudioClassifier,
        objective: Objective,
        world: World,
        optim: OptimConfig,
        limits: MemoryLimits,
        compile: bool = False,
    ) -> None:
        self.model, self.objective, self.world, self.limits = model, objective, world, limits
        self.clip_norm = optim.clip_norm
        self.optimizers = build_optimizers(model, optim)
        self.most_clips: dict[PatchSize, int] = {}
        """Clips per forward pass that fit the memory, by patch size; learnt from failures."""
        self.updating = False
        """Whether the weights may be on their way to those of the next step; the caller says when it is counted."""
        self.scaler = torch.amp.GradScaler(objective.device.type, enabled=objective.precision == "fp16")
        """Keeps small gradients in the range of float16; without it, does nothing."""
        if compile:
            compile_blocks(model)
        self.network: nn.Module = model

    @contextlib.contextmanager
    def sharing_gradients(self) -> Iterator[None]:
        """Average the gradients of all processes in the steps taken inside.

        DDP is gone when this ends: if it outlived the process group, it would be the last to own it and wait, with the
        GIL held, for a thread of gloo that waits for the GIL.
        """
        if self.world.size == 1:
            yield
            return
        # Buffers are constants of the front end; there is nothing to broadcast.
        self.network = DistributedDataParallel(self.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        try:
            yield
        finally:
            self.network = self.model
            gc.collect()

    @property
    def learning_rate(self) -> float:
        """The rate of the first parameter group, as last set."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def step(self, inputs: Inputs, patches: Sequence[PatchSize], lr_factor: float) -> tuple[float, Outcome]:
        """Train on this process's share of the batch, in as many parts as there are patch sizes.

        Returns the loss of the whole batch and what became of it: a loss or gradient that is not finite leaves
        weights and optimizer as they were. If it may be finite at a smaller scale of the loss, that is what comes next.
        """
        if not self.model.training:
            self.model.train()
        loss = self._gradients(inputs, patches)
        scale = self.scaler.get_scale()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if self.scaler.is_enabled():
            self.scaler.update()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return loss, "rescaled" if math.isfinite(loss) and scale > 1 else "not finite"
        if self.clip_norm:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_norm, norm)
        self.updating = True
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * lr_factor
            optimizer.step()
        return loss, "used"

    def _gradients(self, inputs: Inputs, patches: Sequence[PatchSize]) -> float:
        """Fill the gradients, in smaller micro-batches if the memory does not suffice; returns the batch's mean loss.

        Over several processes a backward pass that shares its gradients cannot be repeated alone. It is the last one,
        so that what does not fit has failed in an earlier one, unless there is only one.
        """
        while True:
            try:
                total = self._accumulate(inputs, self._passes(inputs, patches))
                break
            except TooLargeError as error:
                patch, clips = error.patch, (error.clips + 1) // 2
            # Outside the except clause, so that the failed pass's tensors are free before the next one.
            self.most_clips[patch] = clips
            logger.warning("out of memory at patch size %s: from now on %d clips at once", patch, clips)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.world.size > 1:
            dist.all_reduce(total)
        return total.item()

    def _passes(self, inputs: Inputs, patches: Sequence[PatchSize]) -> list[tuple[PatchSize, Inputs]]:
        """The batch cut into one part for each patch size, and those into micro-batches."""
        parts = inputs.parts(-(-len(inputs.targets) // len(patches)))
        return [
            (patch, micro_batch)
            for patch, part in zip(patches, parts, strict=False)  # a small batch may have fewer parts
            for micro_batch in self.micro_batches(part, patch)
        ]

    def _accumulate(self, inputs: Inputs, passes: Sequence[tuple[PatchSize, Inputs]]) -> Tensor:
        """Add up the gradients of all passes; returns this process's share of the loss.

        Raises TooLargeError if the memory does not suffice for one of them.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=inputs.targets.device)
        for index, (patch, part) in enumerate(passes):
            alone = self.world.size > 1 and index + 1 < len(passes)
            clips = len(part.targets)
            try:
                with self.network.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
                    loss = self.objective(self.network, part, patch) * (clips / self.limits.batch_size)
                    # Data parallelism takes the mean over processes.
                    self.scaler.scale(loss * self.world.size).backward()
            except RuntimeError as error:
                if not is_out_of_memory(error) or clips == 1:
                    raise
                raise TooLargeError(patch, clips) from None
            total += loss.detach()
        return total

    def micro_batches(self, inputs: Inputs, patch: PatchSize) -> Iterator[Inputs]:
        """The clips, shortest first, in parts as large as `micro_batch`, `token_budget` and the memory allow."""
        inputs = inputs.by_length()
        tokens = token_counts(self.model.config, patch, inputs.frames)
        clips = len(tokens)
        most = min(self.limits.micro_batch or clips, self.most_clips.get(patch, clips))
        return inputs.cut(cut(tokens, most, self.limits.token_budget))

    def state_dict(self) -> list[dict[str, Any]]:
        """States of the optimizers."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Put the optimizers back; raises ValueError if they do not match."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def compile_blocks(model: AudioClassifier) -> None:
    """Compile each transformer block, one graph per number of tokens, that is per patch size.

    The blocks are alike, so that one graph serves them all; resizing stays outside, with its cached matrices.
    """
    torch._dynamo.config.recompile_limit = 256  # the default of 8 is below the number of patch sizes
    for block in model.blocks:
        block.compile(dynamic=False)
