#!/usr/bin/env python3
"""Forward passes of one model at one patch size, in float32 with explicit and fused attention, and in bfloat16.

A flexible AST, which resizes kernel and positions in every call, against a static timm ViT and against transformers'
ASTForAudioClassification with the same weights; the latter also from the waveform on, each with its own front end.

python benchmarks/forward.py        writes benchmarks/results/forward.json and prints the ratios
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from harness import Report, arguments, run
from networks import HuggingFace, NaFlex, StaticViT, flexible, onnx_networks, with_explicit_attention
from torch import nn
from transformers import ASTFeatureExtractor

from flexiast import PatchSize
from flexiast.features import FeatureConfig, FrontEnd
from flexiast.models.frozen import freeze
from flexiast.runtime.device import has_fast_bfloat16

FLOAT32, BFLOAT16, INT8 = 1e-4, 0.15, 1.0
"""How far logits may be apart that the same weights give in float32, in bfloat16 and in int8 (they spread over +-3)."""


@torch.no_grad()  # not inference mode, in which nothing could be exported
def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "base", "tiny, small or base"),
        patch=(int, 8, "patch size"),
        frames=(int, 1024, "frames of the input"),
        batch=(int, 1, "clips"),
    )
    if options.quick:
        options.model, options.patch, options.frames = "tiny", 32, 128
    report = Report("forward", options, rounds=3)
    patch = PatchSize(options.patch, options.patch)
    log_mel = torch.randn(options.batch, options.frames, 128, device=report.device)
    against_timm(report, log_mel, patch)
    against_onnxruntime(report, log_mel, patch)
    against_transformers(report, log_mel, patch)
    from_the_waveform(report, patch)
    report.finish()


def call(model: nn.Module, log_mel: torch.Tensor, *more: object, bf16: bool = False) -> Callable[[], torch.Tensor]:
    """A forward pass to be timed."""

    def forward() -> torch.Tensor:
        with torch.autocast(log_mel.device.type, dtype=torch.bfloat16, enabled=bf16):
            return model(log_mel, *more)

    return forward


def race(
    report: Report,
    group: str,
    contenders: Mapping[str, Callable[[], torch.Tensor]],
    against: str,
    rounds: int | None = None,
) -> None:
    """Compare the logits with those of `against`, then time; bfloat16 only where it is fast."""
    if not (report.options.quick or has_fast_bfloat16(report.device)):
        contenders = {name: forward for name, forward in contenders.items() if "bf16" not in name}
    if against not in contenders:
        return
    expected = contenders[against]()
    for name, forward in contenders.items():
        within = next((limit for kind, limit in (("bf16", BFLOAT16), ("int8", INT8)) if kind in name), FLOAT32)
        report.agree(f"{group}: {name}", forward().float(), expected, within)
    report.race(group, contenders, against, rounds)


def against_timm(report: Report, log_mel: torch.Tensor, patch: PatchSize) -> None:
    model = flexible(report.options.model, log_mel.shape[1]).to(report.device)
    explicit, static = with_explicit_attention(model), StaticViT(model, patch).to(report.device).eval()
    naflex = NaFlex(model, patch).to(report.device).eval()
    contenders = {
        "fp32 explicit": call(explicit, log_mel, patch),
        "fp32 fused": call(model, log_mel, patch),
        "bf16": call(model, log_mel, patch, bf16=True),
        "timm fp32": call(static, log_mel),
        "timm bf16": call(static, log_mel, bf16=True),
        "timm NaFlexVit fp32": call(naflex, log_mel),
        "timm NaFlexVit bf16": call(naflex, log_mel, bf16=True),
    }
    group = f"{report.options.model}, patch {patch}, {len(log_mel)} x {log_mel.shape[1]} frames"
    race(report, group, contenders, against="fp32 explicit")


def against_onnxruntime(report: Report, log_mel: torch.Tensor, patch: PatchSize) -> None:
    """On the CPU only, where our exports run."""
    if report.device.type != "cpu":
        return
    model = flexible(report.options.model, log_mel.shape[1])
    contenders = {"fp32 fused": call(model, log_mel, patch), "frozen fp32": call(freeze(model, patch), log_mel)}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in onnx_networks(model, patch, Path(folder)).items():
            contenders[f"ONNX Runtime {name}"] = partial(network, log_mel)
        group = f"{report.options.model}, patch {patch}, {len(log_mel)} x {log_mel.shape[1]} frames, our export"
        race(report, group, contenders, against="fp32 fused")


def against_transformers(report: Report, log_mel: torch.Tensor, patch: PatchSize) -> None:
    model, theirs, eager = with_transformers(report, log_mel.shape[1], patch)
    group = f"{report.options.model}, patch {patch}, two prefix tokens"
    fp32 = {"transformers explicit fp32": call(eager, log_mel), "transformers SDPA fp32": call(theirs, log_mel)}
    race(report, f"{group}, fp32", fp32 | {"fp32 fused": call(model, log_mel, patch)}, against="transformers SDPA fp32")
    bf16 = {"transformers SDPA bf16": call(theirs, log_mel, bf16=True), "bf16": call(model, log_mel, patch, bf16=True)}
    race(report, f"{group}, bf16", bf16, against="transformers SDPA bf16")


def with_transformers(report: Report, frames: int, patch: PatchSize) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The flexible model, transformers' with its fused attention, and with explicit attention."""
    # That network has one epsilon for all its layer norms.
    model = flexible(report.options.model, frames, prefix_tokens=2, norm_eps=1e-6, head_norm_eps=1e-6)
    networks = model, HuggingFace(model, patch, "sdpa"), HuggingFace(model, patch, "eager")
    return tuple(network.to(report.device) for network in networks)  # type: ignore[return-value]


def from_the_waveform(report: Report, patch: PatchSize) -> None:
    """At a larger patch than the passes above, where the front end has a share."""
    patch, frames = PatchSize(2 * patch.freq, 2 * patch.time), report.options.frames
    model, theirs, _ = with_transformers(report, frames, patch)
    features = FeatureConfig(frames=frames)
    front_end, extractor = FrontEnd(features).to(report.device), ASTFeatureExtractor(max_length=frames)
    waveform = 0.1 * torch.randn(report.options.batch, features.samples)

    def ours(bf16: bool) -> torch.Tensor:
        log_mel = front_end(waveform.to(report.device))
        return call(model, log_mel, patch, bf16=bf16)()

    def transformers(bf16: bool) -> torch.Tensor:
        clips = list(waveform.numpy())
        inputs = extractor(clips, sampling_rate=features.sample_rate, return_tensors="pt")["input_values"]
        return call(theirs, inputs.to(report.device), bf16=bf16)()

    for bf16, precision in ((False, "fp32"), (True, "bf16")):
        group = f"{report.options.model}, patch {patch}, waveform to logits, {precision}"
        name = f"transformers SDPA {precision}"
        contenders = {name: partial(transformers, bf16), f"flexiast {precision}": partial(ours, bf16)}
        race(report, group, contenders, against=name, rounds=5 * report.rounds)


if __name__ == "__main__":
    run(main)
