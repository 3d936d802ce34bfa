"""`flexiast export`: one patch size of a model for ONNX Runtime, transformers or PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..classifier.budget import cascade_arguments
from ..classifier.load import load
from ..errors import require
from ..export.cascade import export_cascade
from ..export.export import Format, Input, export
from ..runtime.arguments import PatchArg


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write one patch size as a fixed model for ONNX Runtime, transformers or PyTorch, and check its output."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Model directory, or any other readable checkpoint."""
    out: Path
    """File to write, ending in .onnx or .pt2; for `hf` and `transformers` a new directory."""
    format: Format = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export.
    `transformers`: AutoModelForAudioClassification with trust_remote_code, every patch size kept."""
    patch_size: PatchArg | None = None
    """Patch size to keep (default: the model's base patch)."""
    cascade: tuple[str, ...] = ()
    """Write a cascade instead, a new directory with an ONNX file for each size and its rule in cascade.json: `auto` for
    the best of the checkpoint's curve (within --budget on average), or sizes such as 48 16 beside --threshold."""
    threshold: tuple[float, ...] = ()
    """Confidence, 0 to 1, below which a clip goes on to the cascade's next size: one, or one for each step."""
    budget: str | None = None
    """Size or cascade by the curve: the best within 20ms, 5GFLOPs or 256tokens, or the cheapest of accuracy>=0.9."""
    input: Input = "waveform"
    """`waveform`: (batch, samples) and their lengths (batch,); the model computes the log-mel. `spectrogram`:
    normalised log-mel (batch, frames, bins)."""
    overwrite: bool = False
    """Replace `out` if it exists."""


def run(config: ExportConfig) -> None:
    """Export, and print how closely the outputs agree."""
    model = load(config.checkpoint)
    choice = model.choose(config.budget, *cascade_arguments(config.cascade, config.threshold), config.patch_size)
    if config.cascade and choice:
        require(config.format == "onnx", "format", config.format, "onnx, the format of an exported cascade")
        cascade = export_cascade(model, config.out, choice.rule, config.input, config.overwrite)
        print(f"written: {cascade.path}, {choice!r} (largest difference of scores {cascade.difference:.1e})")
        return
    size = choice.rule.sizes[0] if choice else config.patch_size
    result = export(model, config.out, config.format, size, config.input, config.overwrite)
    print(f"written: {result.path} (largest difference of logits {result.difference:.1e}, run by {result.runtime})")


CONFIG = ExportConfig
