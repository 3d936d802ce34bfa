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
    """Write one patch size as a fixed model for ONNX Runtime, transformers or PyTorch, and check that it agrees."""

    checkpoint: tyro.conf.Positional[Path]
    """Model directory, or any other readable checkpoint."""
    out: Path
    """File to write, ending in .onnx or .pt2; for `hf` a new directory."""
    format: Format = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export."""
    patch_size: PatchArg | None = None
    """Patch size to keep (default: the model's base patch)."""
    input: Input = "waveform"
    """`waveform`: (batch, samples), log-mel inside. `spectrogram`: normalised log-mel (batch, frames, bins)."""


def run(config: ExportConfig) -> None:
    """Export, and say how well it agrees."""
    done = export(load(config.checkpoint), config.out, config.format, config.patch_size, config.input)
    print(f"written: {done.path} (largest difference of logits {done.difference:.1e}, run by {done.runtime})")


CONFIG = ExportConfig
