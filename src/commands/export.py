"""`flexiast export`: one patch size of a model for ONNX Runtime, transformers or PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from ..classifier.load import load
from ..export.export import Format, Input, export
from ..runtime.arguments import PatchArg


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write one patch size as a fixed model for ONNX Runtime, transformers or PyTorch, and check its output."""

    checkpoint: tyro.conf.Positional[Path]
    """Model directory, or any other readable checkpoint."""
    out: Path
    """File to write, ending in .onnx or .pt2; for `hf`, a new directory."""
    format: Format = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export."""
    patch_size: PatchArg | None = None
    """Patch size to keep (default: the model's base patch)."""
    input: Input = "waveform"
    """`waveform`: (batch, samples) and their lengths (batch,); the model computes the log-mel. `spectrogram`:
    normalised log-mel (batch, frames, bins)."""
    overwrite: bool = False
    """Replace `out` if it exists."""


def run(config: ExportConfig) -> None:
    """Export, and print how closely the outputs agree."""
    model = load(config.checkpoint)
    result = export(model, config.out, config.format, config.patch_size, config.input, config.overwrite)
    print(f"written: {result.path} (largest difference of logits {result.difference:.1e}, run by {result.runtime})")


CONFIG = ExportConfig
