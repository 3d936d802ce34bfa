"""Exports that are one file and compute everything themselves: ONNX, and torch.export programs."""

from __future__ import annotations

import dataclasses
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.files import to_json_text, write_atomically
from .job import Job, needed, program_difference
from .plain_description import plain_description
from .sizes_network import SizesAST
from .waveform_network import MatrixFrontEnd, Scorer

OPSET = 18
"""ONNX operator set: the one that torch's exporter targets; every maintained runtime supports it."""
OUTPUTS = ("scores", "logits")


def facts(job: Job) -> dict[str, Any]:
    """What a user of the file needs to know."""
    model, several = job.model, len(job.patches) > 1
    return {
        "labels": model.labels.names,
        **({"patch_sizes": list(map(str, job.patches))} if several else {"patch_size": str(job.patch)}),
        "features": dataclasses.asdict(model.feature_config),
        "input": job.input,
        "inputs": job.inputs,
        "scores": {"ce": "softmax", "bce": "sigmoid", "mse": "values"}[model.loss],
        "model": dataclasses.asdict(model.config),
    }


def description(job: Job) -> dict[str, str]:
    """The same as JSON texts, under the names that the file's metadata has."""
    return {f"flexiast.{name}": to_json_text(value) for name, value in facts(job).items()}


def scorer(job: Job) -> Scorer:
    """The network to be traced: at one size and length nothing is left to choose."""
    model, frames = job.model, job.model.feature_config.frames
    front_end = MatrixFrontEnd(model.feature_config) if job.input == "waveform" else None
    fixed = len(job.patches) == 1 and not job.native
    network = model.freeze(job.patch, frames) if fixed else SizesAST(model, job.patches, frames)
    scale = model.scale if model.loss == "mse" else None
    return Scorer(network, model.loss == "bce", front_end, tuple(job.inputs), job.native, scale).eval()


def _example(job: Job) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Inputs for tracing, and their dynamic axes."""
    features, batch = job.model.feature_config, torch.export.Dim("batch")
    # Two windows or frames at least: one would be traced as a special case.
    samples = torch.export.Dim("samples", min=features.window + features.hop)
    frames = torch.export.Dim("frames", min=2)
    axes = {
        "waveform": {0: batch, 1: samples},
        "log_mel": {0: batch, 1: frames} if job.native else {0: batch},
        "lengths": {0: batch},
        "patch": None,
    }
    extra = 2 * features.hop if job.input == "waveform" else 0
    waveform = torch.zeros(2, features.samples + extra)
    given = job.given(waveform, torch.tensor([waveform.shape[1], 0]))
    return tuple(given.values()), tuple(axes[name] for name in given)


def write_torch(job: Job, path: Path) -> None:
    """A `torch.export` program, with the description in `flexiast.json`."""
    example, axes = _example(job)
    program = torch.export.export(scorer(job), example, dynamic_shapes=axes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
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
            scorer(job),
            example,
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(job.inputs),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    # The exporter notes where each operation comes from: paths of this machine, and a tenth of a megabyte.
    for part in (program.model.graph, *program.model.graph):
        part.metadata_props.clear()
    program.model.metadata_props.update(description(job) | plain_description(job.model))
    program.save(path, external_data=False)


def run_torch(job: Job, path: Path) -> tuple[float, str]:
    """Compare the program with the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader warns about its own buffers
        program = torch.export.load(path).module()
    return program_difference(job, lambda given: program(*given.values())[1]), f"torch {torch.__version__}"


def run_onnx(job: Job, path: Path) -> tuple[float, str]:
    """Compare ONNX Runtime with the model."""
    runtime = needed("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(given: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {name: x.numpy() for name, x in given.items()})[0])

    return program_difference(job, run), f"ONNX Runtime {runtime.__version__}"
