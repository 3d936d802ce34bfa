"""`flexiast export`: one patch size of a model, or several, for ONNX Runtime, transformers, PyTorch or a browser."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.budget import cascade_arguments
from ..classifier.load import load
from ..data.manifest import read_manifest
from ..errors import require
from ..export.cascade import export_cascade
from ..export.export import export
from ..export.int8 import export_int8
from ..export.job import Input
from ..export.web import FETCH, export_page
from ..models.geometry import PatchSize
from ..runtime.arguments import PatchArg
from ..runtime.output import Outcome, OutputOptions
from ..traintest.curve import score_of
from ..traintest.evaluate import targets_of
from ..traintest.metrics import figure, metric_of


@dataclasses.dataclass(frozen=True)
class ExportConfig(OutputOptions):
    """Write one patch size or several as a fixed model for ONNX Runtime, transformers, PyTorch or a browser, and check
    its output."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Model directory, or any other readable checkpoint."""
    out: Path
    """File to write, ending in .onnx or .pt2; for `hf`, `transformers` and `web` a new directory."""
    format: Literal["onnx", "hf", "transformers", "torch", "web"] = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export.
    `transformers`: AutoModelForAudioClassification with trust_remote_code, every patch size kept. `web`: a page that
    runs the ONNX file in the browser."""
    patch_size: tuple[PatchArg, ...] = ()
    """Patch size to keep (default: the model's base patch). onnx, torch, web: several, which share their weights; the
    input `patch` is the place of one in this list."""
    cascade: tuple[str, ...] = ()
    """Write a cascade instead, a new directory with its sizes in an ONNX file and its rule in cascade.json: `auto` for
    the best of the checkpoint's curve (within --budget on average), or sizes such as 48 16 beside --threshold."""
    threshold: tuple[float, ...] = ()
    """Confidence, 0 to 1, below which a clip goes on to the cascade's next size: one, or one for each step."""
    budget: str | None = None
    """Size or cascade by the curve: the best within 20ms, 5GFLOPs or 256tokens, or the cheapest of accuracy>=0.9."""
    input: Input = "waveform"
    """`waveform`: (batch, samples) and their lengths (batch,); the model computes the log-mel. `spectrogram`:
    normalised log-mel (batch, frames, bins)."""
    int8: bool = False
    """onnx, web: 8-bit weights, by ONNX Runtime's tools; the log-mel stays float32."""
    data: Path | None = None
    """int8: manifest, table or folder of labelled clips to measure on, before and after."""
    runtime: Path | None = None
    """web: folder of the npm package onnxruntime-web, whose files are copied beside the page."""
    overwrite: bool = False
    """Replace `out` if it exists."""

    def __post_init__(self) -> None:
        web = self.format == "web"
        require(not self.int8 or self.format == "onnx" or web, "format", self.format, "onnx or web beside --int8")
        require(not (self.int8 and self.cascade), "int8", "it beside --cascade", "one of them")
        measured = self.int8 and not web
        require(measured or self.data is None, "data", self.data, "it beside --int8 of --format onnx only")
        require(web or self.runtime is None, "runtime", self.runtime, "it beside --format web only")
        require(not web or self.input == "waveform", "input", self.input, "waveform, which the page takes")


def run(config: ExportConfig) -> Outcome:
    """Export; the outcome says how closely the outputs agree."""
    model = load(config.checkpoint)
    given = config.patch_size[0] if config.patch_size else None
    choice = model.choose(config.budget, *cascade_arguments(config.cascade, config.threshold), given)
    if config.cascade and choice:
        require(config.format == "onnx", "format", config.format, "onnx, the format of an exported cascade")
        cascade = export_cascade(model, config.out, choice.rule, config.input, config.overwrite)
        return Outcome(
            written=cascade.path,
            summary={"cascade": repr(choice), "largest difference of scores": f"{cascade.difference:.1e}"},
            results={"cascade": choice.rule.to_json(), "difference": cascade.difference},
        )
    sizes = choice.rule.sizes[:1] if choice else config.patch_size or (model.config.patch_size,)
    if config.format == "web":
        result = export_page(model, config.out, sizes, config.runtime, config.int8, config.overwrite)
    elif config.int8:
        return _int8(config, model, sizes)
    else:
        result = export(model, config.out, config.format, None, config.input, config.overwrite, sizes)
    kept = "all" if config.format == "transformers" else ", ".join(map(str, sizes))
    return Outcome(
        written=result.path,
        summary={
            "patch size": kept,
            "largest difference of logits": f"{result.difference:.1e}, run by {result.runtime}",
            **(_opening(config) if config.format == "web" else {}),
        },
        results={"patch_size": kept, "difference": result.difference, "runtime": result.runtime},
    )


def _opening(config: ExportConfig) -> dict[str, str]:
    """Rows that say how the page is opened, and what it still needs."""
    missing = {"missing": f"onnxruntime-web: {FETCH}, then --runtime package"} if config.runtime is None else {}
    return missing | {"to open it": f"python -m http.server -d {shlex.quote(str(config.out))}"}


def _int8(config: ExportConfig, model: AudioClassifier, sizes: tuple[PatchSize, ...]) -> Outcome:
    """Export with 8-bit weights; the outcome says what they cost. Raises ConfigError for data of other classes."""
    numbers = model.loss == "mse"
    data = None if config.data is None else read_manifest(config.data, model.labels, numbers=numbers)
    sounds = [clip.path for clip in data.clips] if data else []
    result, scores = export_int8(model, config.out, sizes, config.input, config.overwrite, sounds)
    kept, metric = ", ".join(map(str, sizes)), metric_of(model.loss)
    summary = {
        "patch size": kept,
        "weights": f"8-bit (float32: largest difference of logits {result.difference:.1e})",
    }
    results: dict[str, Any] = {"patch_size": kept, "difference": result.difference}
    if data is None:
        return Outcome(written=result.path, summary=summary | {"cost": "--data measures it"}, results=results)
    targets = targets_of(data)
    before, after = ([score_of(one, targets, model.loss) for one in scored] for scored in scores)
    for size, was, now in zip(sizes, before, after, strict=True):
        where = f" at {size}" if len(sizes) > 1 else ""
        summary[f"{metric} on {len(data)} clips{where}"] = (
            f"{figure(metric, was, 2)} before, {figure(metric, now, 2)} after"
        )
    told = {"before": before, "after": after} if len(sizes) > 1 else {"before": before[0], "after": after[0]}
    return Outcome(
        written=result.path,
        summary=summary,
        results=results | {"metric": metric, "clips": len(data), **told},
    )


CONFIG = ExportConfig
