#!/usr/bin/env python3
"""Training steps (forward, backward, fused Adam): what flexibility costs over a frozen network, and bfloat16 saves.

The flexible AST at several patch sizes against the same network frozen at each, against a static timm ViT and against
transformers' ASTForAudioClassification. Two clocks of different steps cannot show a share of a percent, so the cost of
flexibility is also taken directly: resizing kernel and positions, forward and backward, against the whole step.

python benchmarks/train_step.py        writes benchmarks/results/train_step.json and prints the ratios
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Report, arguments, run
from networks import HuggingFace, StaticViT, flexible
from torch import Tensor, nn

from flexiast import FlexiAST, PatchSize
from flexiast.models.frozen import freeze
from flexiast.models.resize import resize_kernel


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "base", "tiny, small or base"),
        patches=(str, "16,8,48", "patch sizes; all contenders run at the first, flexible and frozen at all"),
        frames=(int, 1024, "frames of the input"),
        batch=(int, 2, "clips"),
    )
    if options.quick:
        options.model, options.patches, options.frames = "tiny", "32,64", 128
    report = Report("train_step", options, rounds=3)
    patches = [PatchSize.parse(patch) for patch in options.patches.split(",")]
    log_mel = torch.randn(options.batch, options.frames, 128, device=report.device)
    targets = (torch.rand(options.batch, 527, device=report.device) < 0.01).float()
    contenders_at(report, log_mel, targets, patches[0])
    for patch in patches:
        flexibility_at(report, log_mel, targets, patch)
    report.finish()


def step(model: nn.Module, targets: Tensor, *inputs: object, bf16: bool = False) -> Callable[[], Tensor]:
    """A training step of a copy of the model; it returns the loss."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)

    def train() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(targets.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(*inputs)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train


def race(
    report: Report, group: str, contenders: dict[str, Callable[[], Tensor]], against: str, rounds: int | None = None
) -> dict[str, float]:
    """Compare the losses of two steps, the second of which has seen gradients and optimizer, then time."""
    losses = {name: torch.stack([train(), train()]) for name, train in contenders.items()}
    for name, loss in losses.items():
        report.agree(f"{group}: {name}", loss, losses[against], within=2e-2 if "bf16" in name else 1e-3)
    return report.race(group, contenders, against, rounds)


def contenders_at(report: Report, log_mel: Tensor, targets: Tensor, patch: PatchSize) -> None:
    size, frames = report.options.model, log_mel.shape[1]
    name = f"{size}, patch {patch}, {len(log_mel)} x {frames} frames"
    model = flexible(size, frames).to(report.device)
    static = StaticViT(model, patch).to(report.device)
    contenders = {
        "fp32": step(model, targets, log_mel, patch),
        "bf16": step(model, targets, log_mel, patch, bf16=True),
        "timm fp32": step(static, targets, log_mel),
        "timm bf16": step(static, targets, log_mel, bf16=True),
    }
    race(report, name, contenders, against="fp32")
    model = flexible(size, frames, prefix_tokens=2, norm_eps=1e-6, head_norm_eps=1e-6).to(report.device)
    theirs = HuggingFace(model, patch, "sdpa").to(report.device)
    for bf16, precision in ((False, "fp32"), (True, "bf16")):
        contenders = {
            f"transformers {precision}": step(theirs, targets, log_mel, bf16=bf16),
            precision: step(model, targets, log_mel, patch, bf16=bf16),
        }
        # In float32 both spend nearly all their time in the same matrix products: more rounds, to tell them apart.
        group, rounds = f"{name}, two prefix tokens, {precision}", 3 * report.rounds
        race(report, group, contenders, against=f"transformers {precision}", rounds=rounds)


def flexibility_at(report: Report, log_mel: Tensor, targets: Tensor, patch: PatchSize) -> None:
    """The flexible network against itself frozen, and the share of a step that resizing takes."""
    model = flexible(report.options.model, log_mel.shape[1]).to(report.device)
    alone = resizing(model, patch, log_mel.shape[1])
    contenders: dict[str, Callable[[], Any]] = {
        "frozen": step(freeze(model, patch), targets, log_mel),
        "flexible": step(model, targets, log_mel, patch),
        "resizing alone": alone,
    }
    group = f"{report.options.model}, patch {patch}, flexible against frozen, fp32"
    kernel, positions = alone()
    frozen = freeze(model, patch)
    report.agree(f"{group}: kernel", kernel.flatten(1), frozen.patch_embed.weight, within=1e-6)
    report.agree(f"{group}: positions", positions.flatten(0, 1), frozen.pos_embed, within=1e-6)
    losses = {name: train() for name, train in contenders.items() if name != "resizing alone"}
    report.agree(f"{group}: loss", losses["flexible"], losses["frozen"], within=1e-4)
    ratios = report.race(group, contenders, against="flexible")
    share = 100 / ratios["resizing alone"]
    report.facts[f"{group}: resizing, % of the step"] = round(share, 3)


def resizing(model: FlexiAST, patch: PatchSize, frames: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Kernel and positions for a patch size, forward and backward, as in a training step."""
    model = copy.deepcopy(model)
    layout = model.config.layout(patch, frames)

    def resize() -> tuple[Tensor, Tensor]:
        kernel, positions = resize_kernel(model.kernel, patch), model.positions(layout, frames)
        torch.autograd.backward([kernel, positions], [torch.ones_like(kernel), torch.ones_like(positions)])
        return kernel.detach(), positions.detach()

    return resize


if __name__ == "__main__":
    run(main)
