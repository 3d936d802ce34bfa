"""Export a model at one fixed patch size for ONNX Runtime, transformers or plain PyTorch.

An export is written to a temporary folder, run there, compared with the model, and only then moved into place.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..errors import ConfigError, FlexiASTError
from ..models.flexiast import FlexiAST
from ..models.geometry import PatchLike, PatchSize
from ..runtime.extras import optional
from ..runtime.files import file_errors, put_in_place, require_new, to_json_text, told_as, write_atomically
from .huggingface import INSTEAD, huggingface_ast
from .plain_description import plain_description
from .remote_code import MODULE, configuration, modeling_file
from .waveform_network import MatrixFrontEnd, Scorer

Format = Literal["onnx", "hf", "transformers", "torch"]
Input = Literal["waveform", "spectrogram"]
OPSET = 18
"""ONNX operator set: the one that torch's exporter targets; every maintained runtime supports it."""
INPUTS = {
    "waveform": {
        "waveform": "float32 (batch, samples) in [-1, 1]",
        "lengths": "int64 (batch,): samples of each clip, without padding",
    },
    "spectrogram": {"log_mel": "float32 (batch, frames, bins), normalised"},
}
"""Inputs of onnx and torch exports, by name and in order."""
OUTPUTS = ("scores", "logits")
HUGGING_FACE_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", f"{MODULE}.py")
SUFFIX = {"onnx": ".onnx", "torch": ".pt2", "hf": None, "transformers": None}
"""Required file suffix; None for a directory."""
TOLERANCE = {"waveform": 1e-3, "spectrogram": 1e-4, "directory": 1e-4}
"""Largest accepted difference of logits; for waveforms the spectrum is computed in another order."""


class ExportError(FlexiASTError):
    """An export's results differ from the model's, or a package that it needs is missing."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that was run and agrees with the model."""

    path: Path
    """The file or directory."""
    difference: float
    """Largest absolute difference of its logits from the model's."""
    runtime: str
    """The runtime that ran it, with its version."""


class Job(NamedTuple):
    """What to export."""

    model: AudioClassifier
    patch: PatchSize
    input: Input


def export(
    model: AudioClassifier,
    out: str | os.PathLike[str],
    format: Format,
    patch_size: PatchLike | None = None,
    input: Input = "waveform",
    overwrite: bool = False,
) -> Exported:
    """Write `model` at one patch size (default: its base) to `out`, once a run agrees with the model.

    onnx: a file for ONNX Runtime; torch: a `torch.export` program (.pt2); hf: a directory for transformers'
    audio-classification pipeline; transformers: a directory for its AutoModelForAudioClassification with
    `trust_remote_code`, which keeps every patch size and has this one by default. Input of the first two: `waveform`
    (batch, samples) at the model's sample rate, of any length of at least two frames, with `lengths` (batch,), int64,
    the samples of each clip without padding (for a single clip, all its samples); or `spectrogram`, the normalised
    log-mel (batch, frames, bins). Outputs: `scores` and `logits` (batch, classes). `out` ends in .onnx or .pt2, or is a
    directory; what already exists is replaced only with `overwrite`.
    Raises ConfigError for what the format cannot express, ExportError if the results differ; the export then stays in
    the temporary folder next to `out`.
    """
    for name, value, known in (("format", format, get_args(Format)), ("input", input, get_args(Input))):
        if value not in known:
            raise ConfigError(f"{name}: found {value!r}, expected one of {known}")
    if SUFFIX[format] is None and input != "waveform":
        raise ConfigError(f"input: found {input!r}, a transformers model comes with its own feature extractor")
    patch = model.config.patch_size if patch_size is None else PatchSize.parse(patch_size)
    model.config.grid(patch, model.feature_config.frames)
    out = Path(out)
    beside = _place_beside(out, SUFFIX[format], overwrite)
    part = beside / out.name
    job = Job(_reference(model), patch, input)
    try:
        write, run = FORMATS[format]
        with told_as(out, part), file_errors(part):
            write(job, part)
        difference, runtime = run(job, part)
    except BaseException:
        shutil.rmtree(beside)
        raise
    limit = TOLERANCE["directory" if SUFFIX[format] is None else input]
    if not difference <= limit:
        raise ExportError(
            f"{part}: its logits differ from the model's by {difference:.2e}, expected at most {limit:.0e}"
        )
    put_in_place(part, out)
    beside.rmdir()
    return Exported(out, difference, runtime)


def _place_beside(out: Path, suffix: str | None, overwrite: bool) -> Path:
    """A new temporary directory next to `out`, for the export until it is verified."""
    if suffix is not None and (out.suffix != suffix or out.is_dir()):
        raise ConfigError(f"out: found {out}, expected a file name that ends in {suffix}")
    require_new(out, overwrite, HUGGING_FACE_FILES)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{out.name}.part-", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"{out}: not writable ({error.strerror})") from None


def _reference(model: AudioClassifier) -> AudioClassifier:
    """The model in float32 on the CPU, in eval mode, as exports are; a copy, the model itself is unchanged."""
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def needed(module: str) -> Any:
    """Import an optional package. Raises ExportError, which says what to install, if it is missing."""
    try:
        return optional(module, "export")
    except ConfigError as error:
        raise ExportError(str(error)) from None


def description(job: Job) -> dict[str, str]:
    """What a user of the file needs to know, as JSON texts."""
    model = job.model
    facts = {
        "labels": model.labels.names,
        "patch_size": str(job.patch),
        "features": dataclasses.asdict(model.feature_config),
        "input": job.input,
        "inputs": INPUTS[job.input],
        "scores": "softmax" if model.loss == "ce" else "sigmoid",
        "model": dataclasses.asdict(model.config),
    }
    return {f"flexiast.{name}": to_json_text(value) for name, value in facts.items()}


def _scorer(job: Job) -> Scorer:
    model = job.model
    front_end = MatrixFrontEnd(model.feature_config) if job.input == "waveform" else None
    return Scorer(model.freeze(job.patch, model.feature_config.frames), model.loss == "bce", front_end).eval()


def _example(job: Job) -> tuple[tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Inputs for tracing, and their dynamic axes."""
    features, batch = job.model.feature_config, torch.export.Dim("batch")
    if job.input == "spectrogram":
        return (torch.zeros(2, features.frames, features.bins),), ({0: batch},)
    window, hop = features.window, features.hop
    samples = torch.export.Dim("samples", min=window + hop)  # two frames: one would be traced as a special case
    waveform = torch.zeros(2, features.samples + 2 * hop)
    return (waveform, torch.tensor([waveform.shape[1], 0])), ({0: batch, 1: samples}, {0: batch})


def write_torch(job: Job, path: Path) -> None:
    """A `torch.export` program, with the description in `flexiast.json`."""
    example, axes = _example(job)
    program = torch.export.export(_scorer(job), example, dynamic_shapes=axes)
    content = io.BytesIO()  # torch's own writer aborts the process when the disk is full
    torch.export.save(program, content, extra_files={"flexiast.json": to_json_text(description(job))})
    write_atomically(path, content.getvalue())


def write_onnx(job: Job, path: Path) -> None:
    """A single ONNX file, with the description in its metadata."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module)
    example, axes = _example(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program: Any = torch.onnx.export(
            _scorer(job),
            example,
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(INPUTS[job.input]),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    program.model.metadata_props.update(description(job) | plain_description(job.model))
    program.save(path, external_data=False)


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
        "problem_type": "single_label_classification" if model.loss == "ce" else "multi_label_classification",
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


def clips(job: Job) -> list[Tensor]:
    """Waveforms (B, S) for the comparison: three clips of one window, one shorter clip, one longer clip."""
    features, generator = job.model.feature_config, torch.Generator().manual_seed(0)
    time = torch.arange(features.samples) / features.sample_rate
    sweep = 0.3 * torch.sin(2 * torch.pi * (100 + 0.2 * features.sample_rate * time / time[-1]) * time)
    noise = torch.randn(3, features.samples, generator=generator) * torch.tensor([0.1, 0.001, 0.01])[:, None]
    noise[2] += sweep
    return [noise, noise[2:, : features.samples // 2], torch.cat([noise[:1], noise[1:2]], dim=1)]


@torch.no_grad()
def _difference(job: Job, run: Callable[..., Tensor], inputs: str | None = None) -> float:
    """Largest difference of `run`'s logits from the model's over `clips`; with lengths, the last of a batch shorter.

    inputs: what `run` takes, `waveform` (with lengths), `spectrogram` (default: the job's) or `clips` alone.
    """
    worst = 0.0
    inputs = inputs or job.input
    for waveform in clips(job):
        lengths = torch.full((len(waveform),), waveform.shape[1])
        if inputs == "waveform":
            lengths[-1] = 3 * waveform.shape[1] // 4
        log_mel = job.model.front_end(waveform, lengths)
        given = {"waveform": (waveform, lengths), "spectrogram": (log_mel,), "clips": (waveform,)}
        logits = run(*given[inputs])
        difference = (logits - job.model(log_mel, job.patch)).abs().max()
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst


def run_torch(job: Job, path: Path) -> tuple[float, str]:
    """Compare the program with the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader warns about its own buffers
        program = torch.export.load(path).module()
    return _difference(job, lambda *inputs: program(*inputs)[1]), f"torch {torch.__version__}"


def run_onnx(job: Job, path: Path) -> tuple[float, str]:
    """Compare ONNX Runtime with the model."""
    runtime = needed("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        given = {name: x.numpy() for name, x in zip(INPUTS[job.input], inputs, strict=True)}
        return torch.from_numpy(session.run(["logits"], given)[0])

    return _difference(job, run), f"ONNX Runtime {runtime.__version__}"


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

    def run(x: Tensor) -> Tensor:
        rate = job.model.feature_config.sample_rate
        return network(**extractor(list(x.numpy()), sampling_rate=rate, return_tensors="pt")).logits

    return _difference(job, run, "clips"), f"transformers {transformers.__version__}"


Write = Callable[[Job, Path], None]
Run = Callable[[Job, Path], tuple[float, str]]
FORMATS: dict[str, tuple[Write, Run]] = {
    "onnx": (write_onnx, run_onnx),
    "hf": (write_huggingface, run_transformers),
    "transformers": (write_transformers, run_transformers),
    "torch": (write_torch, run_torch),
}
"""Functions that write and run each format."""
