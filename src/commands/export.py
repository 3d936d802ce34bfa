"""`flexiast export`: one patch size of a model for ONNX Runtime, transformers or PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.budget import cascade_arguments
from ..classifier.load import load
from ..data.manifest import read_manifest
from ..errors import require
from ..export.cascade import export_cascade
from ..export.export import Format, Input, export
from ..export.int8 import export_int8
from ..models.geometry import PatchSize
from ..runtime.arguments import PatchArg
from ..runtime.output import Outcome, OutputOptions
from ..traintest.curve import score_of
from ..traintest.evaluate import targets_of
from ..traintest.metrics import metric_of


@dataclasses.dataclass(frozen=True)
class ExportConfig(OutputOptions):
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
    int8: bool = False
    """onnx: 8-bit weights, by ONNX Runtime's tools; the log-mel stays float32."""
    data: Path | None = None
    """int8: manifest, table or folder of labelled clips to measure on, before and after."""
    overwrite: bool = False
    """Replace `out` if it exists."""

    def __post_init__(self) -> None:
        require(not self.int8 or self.format == "onnx", "format", self.format, "onnx beside --int8")
        require(not (self.int8 and self.cascade), "int8", "it beside --cascade", "one of them")
        require(self.int8 or self.data is None, "data", self.data, "it beside --int8 only")


def run(config: ExportConfig) -> Outcome:
    """Export; the outcome says how closely the outputs agree."""
    model = load(config.checkpoint)
    choice = model.choose(config.budget, *cascade_arguments(config.cascade, config.threshold), config.patch_size)
    if config.cascade and choice:
        require(config.format == "onnx", "format", config.format, "onnx, the format of an exported cascade")
        cascade = export_cascade(model, config.out, choice.rule, config.input, config.overwrite)
        return Outcome(
            written=cascade.path,
            summary={"cascade": repr(choice), "largest difference of scores": f"{cascade.difference:.1e}"},
            results={"cascade": choice.rule.to_json(), "difference": cascade.difference},
        )
    size = choice.rule.sizes[0] if choice else config.patch_size
    if config.int8:
        return _int8(config, model, size)
    result = export(model, config.out, config.format, size, config.input, config.overwrite)
    kept = "all" if config.format == "transformers" else str(size or model.config.patch_size)
    return Outcome(
        written=result.path,
        summary={
            "patch size": kept,
            "largest difference of logits": f"{result.difference:.1e}, run by {result.runtime}",
        },
        results={"patch_size": kept, "difference": result.difference, "runtime": result.runtime},
    )


def _int8(config: ExportConfig, model: AudioClassifier, size: PatchSize | None) -> Outcome:
    """Export with 8-bit weights; the outcome says what they cost. Raises ConfigError for data of other classes."""
    data = None if config.data is None else read_manifest(config.data, model.labels)
    sounds = [clip.path for clip in data.clips] if data else []
    result, scores = export_int8(model, config.out, size, config.input, config.overwrite, sounds)
    kept, metric = str(size or model.config.patch_size), metric_of(model.loss)
    summary = {
        "patch size": kept,
        "weights": f"8-bit (float32: largest difference of logits {result.difference:.1e})",
    }
    results: dict[str, Any] = {"patch_size": kept, "difference": result.difference}
    if data is None:
        return Outcome(written=result.path, summary=summary | {"cost": "--data measures it"}, results=results)
    before, after = (score_of(one, targets_of(data), model.loss) for one in scores)
    measured = f"{100 * before:.2f} % before, {100 * after:.2f} % after"
    return Outcome(
        written=result.path,
        summary=summary | {f"{metric} on {len(data)} clips": measured},
        results=results | {"metric": metric, "clips": len(data), "before": before, "after": after},
    )


CONFIG = ExportConfig
