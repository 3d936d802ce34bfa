"""Export a model at one fixed patch size, or at several in one file, for ONNX Runtime, transformers or plain PyTorch.

An export is written to a temporary folder, run there, compared with the model, and only then moved into place.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.class_order import in_units
from ..errors import ConfigError, require
from ..models.flexiast import FlexiAST
from ..models.geometry import PatchLike, PatchSize
from ..runtime.arguments import require_distinct
from ..runtime.files import file_errors, to_json_text, write_atomically
from .huggingface import INSTEAD, PROBLEMS, huggingface_ast
from .job import Exported, ExportError, Input, Job, clips, largest, needed, placed
from .programs import run_onnx, run_torch, write_onnx, write_torch
from .remote_code import MODULE, configuration, modeling_file

logger = logging.getLogger(__name__)
Format = Literal["onnx", "hf", "transformers", "torch"]
HUGGING_FACE_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", f"{MODULE}.py")
SUFFIX = {"onnx": ".onnx", "torch": ".pt2", "hf": None, "transformers": None}
"""Required file suffix; None for a directory."""
TOLERANCE = {"waveform": 1e-3, "spectrogram": 1e-4, "directory": 1e-4}
"""Largest accepted difference of logits; for waveforms the spectrum is computed in another order."""


def export(
    model: AudioClassifier,
    out: str | os.PathLike[str],
    format: Format,
    patch_size: PatchLike | None = None,
    input: Input = "waveform",
    overwrite: bool = False,
    patch_sizes: Sequence[PatchLike] = (),
) -> Exported:
    """Write `model` at one patch size (default: its base) to `out`, once a run agrees with the model.

    patch_sizes: several sizes in one onnx or torch file, whose last input `patch`, an int64 scalar, is the place of the
    size in this list. They share the transformer's weights.

    onnx: a file for ONNX Runtime; torch: a `torch.export` program (.pt2); hf: a directory for transformers'
    audio-classification pipeline; transformers: a directory for its AutoModelForAudioClassification with
    `trust_remote_code`, which keeps every patch size and has this one by default. Input of the first two: `waveform`
    (batch, samples) at the model's sample rate, of any length of at least two frames, with `lengths` (batch,), int64,
    the samples of each clip without padding (for a single clip, all its samples); or `spectrogram`, the normalised
    log-mel (batch, frames, bins), with `lengths` in frames if the model hears clips at their native length. What is
    longer than the model's window is cut to it. Outputs: `scores` and `logits` (batch, classes); with loss mse scores
    are values, as are the logits of hf and transformers. `out` ends in .onnx or .pt2, or is a directory; what already
    exists is replaced only with `overwrite`.
    Raises ConfigError for what the format cannot express, ExportError if the results differ; nothing is written then.
    """
    for name, value, known in (("format", format, get_args(Format)), ("input", input, get_args(Input))):
        if value not in known:
            raise ConfigError(f"{name}: found {value!r}, expected one of {known}")
    if SUFFIX[format] is None and input != "waveform":
        raise ConfigError(f"input: found {input!r}, a transformers model comes with its own feature extractor")
    patches = _sizes(model, format, patch_size, patch_sizes)
    out = Path(out)
    if SUFFIX[format] is not None and (out.suffix != SUFFIX[format] or out.is_dir()):
        raise ConfigError(f"out: found {out}, expected a file name that ends in {SUFFIX[format]}")
    job = Job(_reference(model, in_its_units=SUFFIX[format] is None), patches, input)
    if SUFFIX[format] is None and job.native:
        logger.warning(
            "features.length: the model hears short clips at their native length, transformers' feature extractor pads"
            " them to %d frames; so their scores differ from the model's; onnx and torch exports pad nothing",
            model.feature_config.frames,
        )
    limit = TOLERANCE[input] if SUFFIX[format] else TOLERANCE["directory"] * model.scale.largest
    with placed(out, overwrite, HUGGING_FACE_FILES) as part:
        write, run = FORMATS[format]
        with file_errors(part):
            write(job, part)
        difference, runtime = run(job, part)
        if not difference <= limit:
            raise ExportError(
                f"{out}: its logits differ from the model's by {difference:.2e}, expected at most {limit:.0e}"
            )
    return Exported(out, difference, runtime)


def _sizes(
    model: AudioClassifier, format: Format, patch_size: PatchLike | None, patch_sizes: Sequence[PatchLike]
) -> tuple[PatchSize, ...]:
    """The sizes to export. Raises ConfigError for one that does not fit, and for several where a format has one."""
    require(patch_size is None or not patch_sizes, "patch_size", f"{patch_size} beside patch_sizes", "one of them")
    wanted = patch_sizes or (model.config.patch_size if patch_size is None else patch_size,)
    patches = tuple(map(PatchSize.parse, wanted))
    require_distinct("patch_sizes", patches)
    if len(patches) > 1 and SUFFIX[format] is None:
        kept = (
            "transformers keeps every size, and takes one as its default" if format == "transformers" else "hf has one"
        )
        raise ConfigError(f"patch_sizes: found {', '.join(map(str, patches))}, expected one ({kept})")
    for patch in patches:
        model.config.grid(patch, model.feature_config.frames)
    return patches


def _reference(model: AudioClassifier, in_its_units: bool) -> AudioClassifier:
    """The model in float32 on the CPU, in eval mode, as exports are; a copy, the model itself is unchanged."""
    reference = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    return in_units(reference) if in_its_units else reference


def write_huggingface(job: Job, directory: Path) -> None:
    """config.json, preprocessor_config.json and model.safetensors, as `save_pretrained` of transformers writes them."""
    _require_transformers_front_end(job)
    _write_directory(job, directory, *huggingface_ast(job.model, job.patch, job.model.feature_config.frames))


def write_transformers(job: Job, directory: Path) -> None:
    """The same files, and the network's code."""
    _require_transformers_front_end(job)
    state = {f"network.{name}": tensor for name, tensor in FlexiAST.state_dict(job.model).items()}
    _write_directory(job, directory, configuration(job.model, job.patch), state)
    write_atomically(directory / f"{MODULE}.py", modeling_file().encode())


def _require_transformers_front_end(job: Job) -> None:
    """Raise ConfigError unless transformers is there and its AST front end computes the model's log-mel."""
    needed("transformers")
    features = job.model.feature_config
    if (features.window_ms, features.hop_ms) != (25, 10):
        raise ConfigError(
            f"features.window_ms, features.hop_ms: found {features.window_ms:g} and {features.hop_ms:g}, transformers'"
            f" AST has 25 and 10{INSTEAD}"
        )


def _write_directory(job: Job, directory: Path, settings: dict[str, Any], state: dict[str, Tensor]) -> None:
    model, features = job.model, job.model.feature_config
    names = model.labels.names
    settings |= {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": PROBLEMS[model.loss],
    }
    extractor = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": features.sample_rate,
        "num_mel_bins": features.bins,
        "max_length": features.frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": features.mean,
        "std": features.std,
        "return_attention_mask": False,
    }
    directory.mkdir()
    for name, content in (("config.json", settings), ("preprocessor_config.json", extractor)):
        write_atomically(directory / name, (to_json_text(content, 2) + "\n").encode())
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    write_atomically(directory / "model.safetensors", save(contiguous, {"format": "pt"}))


def run_transformers(job: Job, directory: Path) -> tuple[float, str]:
    """Compare transformers, feature extractor included, with the model, which it finds by its configuration."""
    transformers = needed("transformers")
    log = transformers.utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        extractor = transformers.ASTFeatureExtractor.from_pretrained(directory)
        auto = transformers.AutoModelForAudioClassification
        own = (directory / f"{MODULE}.py").exists()
        network = auto.from_pretrained(directory, trust_remote_code=own).eval()
    finally:
        if shown:
            log.enable_progress_bar()

    worst, rate = 0.0, job.model.feature_config.sample_rate
    for x in clips(job.model):
        with torch.no_grad():
            logits = network(**extractor(list(x.numpy()), sampling_rate=rate, return_tensors="pt")).logits
            expected = job.model(job.model.front_end(x), job.patch)
        worst = max(worst, largest(logits - expected))
    return worst, f"transformers {transformers.__version__}"


Write = Callable[[Job, Path], None]
Run = Callable[[Job, Path], tuple[float, str]]
FORMATS: dict[str, tuple[Write, Run]] = {
    "onnx": (write_onnx, run_onnx),
    "hf": (write_huggingface, run_transformers),
    "transformers": (write_transformers, run_transformers),
    "torch": (write_torch, run_torch),
}
"""Functions that write and run each format."""
