"""Export as a page: the model runs in a browser, by onnxruntime-web, and no sound leaves the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..classifier.audio_classifier import AudioClassifier
from ..errors import ConfigError
from ..models.geometry import PatchLike, PatchSize
from ..runtime.files import to_json_text, write_atomically
from .export import export
from .int8 import export_int8
from .job import Exported, Job, placed

MODEL = "model.onnx"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the npm package onnxruntime-web that the page loads; the first is the one that it imports."""
FETCH = "npm pack onnxruntime-web && tar xf onnxruntime-web-*.tgz"
"""What puts them into the folder `package`."""


def export_page(
    model: AudioClassifier,
    out: str | os.PathLike[str],
    patch_sizes: Sequence[PatchLike] = (),
    runtime: str | os.PathLike[str] | None = None,
    int8: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a new directory with `index.html` and `model.onnx`, for any server of static files.

    patch_sizes: one, or several to choose from (default: the model's base). runtime: a folder with the files of the
    npm package onnxruntime-web, at any depth; they are copied. Without them the page says what is missing. int8: with
    8-bit weights, see `export_int8`.
    Raises ConfigError for what cannot be written, ExportError if the model's results differ.
    """
    out, found = Path(out), None if runtime is None else runtime_files(Path(runtime))
    patches = tuple(map(PatchSize.parse, patch_sizes or (model.config.patch_size,)))
    with placed(out, overwrite, ("index.html", MODEL, *RUNTIME)) as part:
        if int8:
            done, _ = export_int8(model, part / MODEL, patches)
        else:
            done = export(model, part / MODEL, "onnx", patch_sizes=patches)
        write_atomically(part / "index.html", page(Job(model, patches, "waveform")).encode())
        for file in found or ():
            shutil.copyfile(file, part / file.name)
    return Exported(out, done.difference, done.runtime)


def runtime_files(folder: Path) -> list[Path]:
    """onnxruntime-web's files in a folder or below it. Raises ConfigError if one is missing."""
    places = sorted({path.parent for path in folder.rglob(RUNTIME[0])}, key=lambda path: len(path.parts))
    for place in places:
        if all((place / name).is_file() for name in RUNTIME):
            return [place / name for name in RUNTIME]
    raise ConfigError(
        f"runtime: found no {', '.join(RUNTIME)} in {folder}, expected the npm package onnxruntime-web ({FETCH}, then"
        " --runtime package)"
    )


def page(job: Job) -> str:
    """The page, with what it needs to know of the model."""
    features = job.model.feature_config
    about = {
        "labels": job.model.labels.names,
        "patch_sizes": list(map(str, job.patches)),
        "downmix": features.downmix,
        **{name: getattr(features, name) for name in ("sample_rate", "window", "hop", "frames", "samples", "seconds")},
    }
    # A label may hold "</script>".
    text = to_json_text(about).replace("<", "\\u003c")
    template = (files(__package__) / "page.html").read_text(encoding="utf-8")
    template = template.replace("__RUNTIME__", RUNTIME[0]).replace("__FILES__", "\\n".join(RUNTIME))
    return template.replace("__ABOUT__", text)
