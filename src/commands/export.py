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
    """File to write, ending in .onnx or .pt2; for `hf` and `transformers` a new directory."""
    format: Format = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export.
    `transformers`: AutoModelForAudioClassification with trust_remote_code, every patch size kept."""
    patch_size: PatchArg | None = None
    """Patch size to keep (default: the model's base patch)."""
    input: Input = "waveform"
    """`waveform`: (batch, samples) and their lengths (batch,), log-mel inside. `spectrogram`: normalised log-mel
    (batch, frames, bins)."""
    overwrite: bool = False
    """Replace what is there already."""


def run(config: ExportConfig) -> None:
    """Export, and say how well it agrees."""
    model = load(config.checkpoint)
    done = export(model, config.out, config.format, config.patch_size, config.input, config.overwrite)
    print(f"written: {done.path} (largest difference of logits {done.difference:.1e}, run by {done.runtime})")


CONFIG = ExportConfig
