#!/usr/bin/env python3
"""Is a second look cheaper than a fresh one? Two ways that a cascade could save, tried on a flexible model.

    python egs/ablations/second_look.py MODEL --train TRAIN --val VAL --out DIR [--epochs 1] [--seed 0]

Early exit: a classifier of its own after every block, fitted on the training clips, so that a size can answer before
its last block. Coarse tokens: what the encoder made of a clip at 48 goes into the pass at a finer size as additional
tokens; trained for --epochs of the clips, beside a control that trains the model as it is with the same steps.
Validation accuracy and GFLOPs per clip go to early_exit.csv and coarse_tokens.csv. RESULTS.md has what we found.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from draws import write_rows
from quick import BATCH, Clips, batch_of, score
from torch import Tensor, nn
from variants import Variant

import flexiast
from flexiast import PatchSize
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.commands.guard import guarded
from flexiast.data.sampler import BatchSchedule
from flexiast.models.geometry import forward_flops
from flexiast.runtime.device import autocast
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.optim import build_optimizers, lr_factor
from flexiast.traintest.options import OptimConfig
from flexiast.traintest.patch_plan import fitting

logger = logging.getLogger(__name__)
SIZES = tuple(PatchSize(side, side) for side in (12, 16, 24, 32, 48))
COARSE = PatchSize(48, 48)
FINER = tuple(PatchSize(side, side) for side in range(12, 41))


class SecondLook(Variant):
    """A model whose pass at a fine size also sees the tokens of a coarse one."""

    def add(self, start: AudioClassifier) -> None:
        self.mark = nn.Parameter(torch.zeros(self.config.width))

    def look(self, log_mel: Tensor, fine: PatchSize, coarse: PatchSize) -> tuple[Tensor, Tensor]:
        """Logits (B, C) at the coarse size, and at the fine one with the coarse tokens in its sequence."""
        prefix = self.config.prefix_tokens
        seen = self.encode(log_mel, coarse)
        x = self.embed_patches(log_mel, fine)
        tokens = seen[:, prefix:] + self.mark
        x = torch.cat([x[:, :prefix], tokens.to(x.dtype), x[:, prefix:]], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.classify(seen, prefix), self.classify(self.norm(x), prefix + tokens.shape[1])

    def classify(self, x: Tensor, before: int) -> Tensor:
        """Logits (B, C) of tokens (B, N, D), the patches from `before` on."""
        pooled = x[:, : self.config.prefix_tokens] if self.config.pool == "cls" else x[:, before:]
        return self.head(self.head_norm(pooled.mean(dim=1)))


def train_both(model: SecondLook, clips: Clips, epochs: float, seed: int, with_tokens: bool) -> None:
    """Train at the coarse size and a random finer one in every step, with or without the coarse tokens."""
    schedule = BatchSchedule(len(clips.targets), BATCH, seed)
    steps = schedule.steps(epochs)
    optim = OptimConfig(lr=5e-4, warmup_steps=round(0.05 * steps))
    (optimizer,) = build_optimizers(model, optim)
    augment = AugmentConfig(0, 0, round(model.feature_config.frames / 10), 0.0, 0.0)
    sizes = fitting(FINER, model)
    draws = torch.Generator().manual_seed(seed)
    for step in range(steps):
        batch = batch_of(schedule, step, clips, model, augment, seed, taught=False)
        fine = sizes[int(torch.randint(len(sizes), (), generator=draws))]
        with autocast(model.kernel.device, "auto"):
            pair = model.look(batch.student, fine, COARSE) if with_tokens else apart(model, batch.student, fine)
        optimizer.zero_grad()
        torch.stack([F.cross_entropy(logits.float(), batch.targets) for logits in pair]).mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor(step, steps, 1.0, optim)
        optimizer.step()


def apart(model: SecondLook, log_mel: Tensor, fine: PatchSize) -> tuple[Tensor, Tensor]:
    """Logits of two passes that know nothing of each other."""
    return model(log_mel, COARSE), model(log_mel, fine)


def coarse_tokens(
    start: AudioClassifier, train: Clips, val: Clips, epochs: float, seed: int
) -> list[dict[str, object]]:
    """Rows: with and without the coarse tokens, each finer size, alone and averaged with the coarse answer."""
    rows: list[dict[str, object]] = []
    frames = start.feature_config.frames
    for with_tokens in (False, True):
        model = SecondLook.of(start)
        train_both(model, train, epochs, seed, with_tokens)
        for fine in fitting(SIZES[:-1], model):
            config = model.config
            extra = config.grid(COARSE, frames).tokens if with_tokens else 0
            finer = forward_flops(
                config.grid(fine, frames), fine, config.width, config.depth, config.mlp_ratio,
                config.prefix_tokens + extra, config.classes,
            )  # fmt: skip
            gflops = (config.flops(COARSE, frames) + finer) / 1e9
            coarse, alone, averaged = score(val, model.eval(), partial(answers, model, fine, with_tokens))
            row = {
                "coarse_tokens": with_tokens,
                "seed": seed,
                "patch_size": str(fine),
                "gflops_of_both": f"{gflops:.4f}",
            }
            rows.append(row | {"coarse": f"{coarse:.4f}", "fine": f"{alone:.4f}", "averaged": f"{averaged:.4f}"})
            logger.info("%s", rows[-1])
    return rows


def answers(model: SecondLook, fine: PatchSize, with_tokens: bool, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, C) at the coarse size, at the fine one, and the sum of both."""
    coarse, finer = model.look(log_mel, fine, COARSE) if with_tokens else apart(model, log_mel, fine)
    return coarse, finer, coarse.float().softmax(1) + finer.float().softmax(1)


def early_exit(model: AudioClassifier, train: Clips, val: Clips) -> list[dict[str, object]]:
    """Rows: accuracy after each block at each size, by a classifier fitted on that block's pooled tokens."""
    rows: list[dict[str, object]] = []
    for size in fitting(SIZES, model):
        known, unknown = pooled_layers(model, train, size), pooled_layers(model, val, size)
        whole = model.config.flops(size, model.feature_config.frames) / 1e9
        for depth, (x, y) in enumerate(zip(known, unknown, strict=True), start=1):
            classify = fitted_head(x, train.targets)
            accuracy = (classify(y).argmax(1) == val.targets.argmax(1)).float().mean().item()
            row = {"patch_size": str(size), "blocks": depth, "gflops": f"{whole * depth / len(known):.4f}"}
            rows.append(row | {"accuracy": f"{accuracy:.4f}"})
            logger.info("%s", rows[-1])
    return rows


@torch.no_grad()
def pooled_layers(model: AudioClassifier, clips: Clips, size: PatchSize) -> list[Tensor]:
    """Mean of the patch tokens after each block, (n, D) each."""
    batches = []
    with autocast(model.kernel.device, "auto"):
        for log_mel, _ in clips.batches(model):
            layers = model.layers(log_mel, size)
            batches.append(torch.stack([x[:, model.config.prefix_tokens :].float().mean(1) for x in layers]))
    return list(torch.cat(batches, dim=1))


def fitted_head(x: Tensor, targets: Tensor, steps: int = 300) -> nn.Module:
    """A normalised linear classifier fitted to (n, D) and (n, C) by full-batch Adam."""
    head = nn.Sequential(
        nn.BatchNorm1d(x.shape[1], affine=False, momentum=None), nn.Linear(x.shape[1], targets.shape[1])
    )
    head(x)  # the statistics
    head.eval()
    optimizer = torch.optim.Adam(head.parameters(), 0.02, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(x), targets).backward()
        optimizer.step()
    return head


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def run() -> None:
        model = flexiast.load(options.model).eval()
        train, val = Clips.read(options.train, model), Clips.read(options.val, model)
        options.out.mkdir(parents=True, exist_ok=True)
        write_rows(options.out / "early_exit.csv", early_exit(model, train, val))
        write_rows(options.out / "coarse_tokens.csv", coarse_tokens(model, train, val, options.epochs, options.seed))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
