"""The flexibility of models: accuracy and cost at every patch size, as CSV, JSON with provenance, and a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from ..data.manifest import Manifest, read_manifest
from ..errors import ConfigError
from ..files import replacing, write_atomically
from ..hub import locate
from ..loading import load
from ..models.checkpoint import WEIGHT_FILES
from ..models.geometry import PatchSize
from ..models.resize import Resize
from ..provenance import provenance, sha256
from .checkpointing import require_writable
from .config import PatchArg, Precision, require_distinct, to_json
from .device import pick_device, resolve_precision
from .distributed import World, connected
from .evaluate import Result, sweep

COLUMNS = [
    "model",
    "resize",
    "patch_freq",
    "patch_time",
    "tokens",
    "gflops",
    "clips_per_second",
    "accuracy",
    "mAP",
    "mAUC",
    "d_prime",
    "loss",
    "n_clips",
]
PAPER_SIZES = tuple(PatchSize(s, s) for s in (8, 10, 12, 16, 20, 24, 30, 32, 40, 48))
"""Patch sizes that FlexiAST is evaluated at (Feng et al., 2023)."""


@dataclasses.dataclass(frozen=True)
class MeasureConfig:
    """Measure models at many patch sizes in one pass over the data."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Checkpoints of any readable format: directories, files, Hub ids."""
    data: Path
    """Test manifest JSON, or a folder with one sub-folder per class."""
    out: Path
    """Directory for flexibility.csv, flexibility.json and flexibility.png."""
    labels: Path | None = None
    """Label CSV (default: the labels of the first model)."""
    root: Path | None = None
    """Where relative paths of the manifest start (default: the manifest's own folder)."""
    scores: bool = False
    """Also write the scores of every clip, (clips, classes) float32, to scores/MODEL_RESIZE_PATCH.npy."""
    patch_sizes: tuple[PatchArg, ...] = PAPER_SIZES
    """Patch sizes to measure at."""
    resize: tuple[Resize, ...] = ("pi",)
    """How the kernel is resized."""
    batch_size: int = 32
    """Clips per forward pass."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    heads: int | None = None
    """Attention heads of state dicts that do not tell (default: one per 64 of the width)."""

    def __post_init__(self) -> None:
        for name in ("checkpoints", "patch_sizes", "resize"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: found none, expected at least one")
        require_distinct("patch_sizes", self.patch_sizes)
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"batch_size, workers: found {self.batch_size}, {self.workers}, expected at least 1 and 0"
            )


def measure(config: MeasureConfig, progress: bool = True) -> list[Result]:
    """Evaluate and write the three files, with the processes of torchrun if there are any; the leading one writes.

    Raises FlexiASTError for wrong input before anything is measured.
    """
    with connected() as world:
        return _measure(config, progress and world.leads, world)


def _measure(config: MeasureConfig, progress: bool, world: World) -> list[Result]:
    device = world.own(pick_device(config.device))
    paths = dict(zip(model_names(config.checkpoints), map(locate, config.checkpoints), strict=True))
    models = {name: load(path, device, config.heads) for name, path in paths.items()}
    first = next(iter(models.values()))
    data = read_manifest(config.data, config.labels or first.labels, config.root)
    for name, model in models.items():
        if model.labels.mids != data.labels.mids and not model.labels.numbered:
            raise ConfigError(f"labels: model {name} has other classes than {config.labels or next(iter(models))}")
    require_writable(config.out)
    results = sweep(
        models,
        data,
        config.patch_sizes,
        config.resize,
        config.batch_size,
        config.workers,
        config.precision,
        progress,
        world,
    )
    if world.leads:
        trained = {name: model.metadata.get("training") for name, model in models.items()}
        seeds = {name: t.get("seed") if isinstance(t, dict) else None for name, t in trained.items()}
        precision = resolve_precision(device, config.precision)
        origin = {"models": _identify(paths), "seeds": seeds, "precision": precision, **provenance(device)}
        _write(config, results, data, origin)
    return results


def _write(config: MeasureConfig, results: list[Result], data: Manifest, origin: dict[str, Any]) -> None:
    """flexibility.csv, .json and .png, and the scores if they are wanted."""
    excluded = {data.clips[failure.clip].path: failure.reason for failure in results[0].excluded}
    rows = [as_row(result) for result in results]
    source = {
        "command": to_json(config),
        "data": {
            "path": str(config.data),
            "clips": len(data) - len(excluded),
            "fingerprint": data.fingerprint,
            "excluded": {str(path): reason for path, reason in excluded.items()},
        },
        **origin,
    }
    write_atomically(config.out / "flexibility.csv", to_csv(rows).encode())
    write_atomically(
        config.out / "flexibility.json", (json.dumps({"provenance": source, "results": rows}, indent=1) + "\n").encode()
    )
    write_atomically(config.out / "flexibility.png", plot(rows, len(data) - len(excluded)))
    for result in results if config.scores else ():
        name = f"{result.model.replace('/', '_')}_{result.resize}_{result.patch_size}.npy"
        with replacing(config.out / "scores" / name) as file:
            np.save(file, result.scores)


def model_names(sources: Sequence[str]) -> list[str]:
    """A short distinct name for each checkpoint: the last part of its path, longer where two would be alike."""
    resolved = [Path(source).resolve() for source in sources]
    for parts in range(1, max(len(p.parts) for p in resolved) + 1):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"checkpoints: found one given twice in {', '.join(sources)}")


def _identify(paths: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Where each model's weights lie, and their SHA-256."""
    files = {n: next(p / w for w in WEIGHT_FILES if (p / w).exists()) if p.is_dir() else p for n, p in paths.items()}
    return {name: {"path": str(paths[name]), "sha256": sha256(file)} for name, file in files.items()}


def as_row(result: Result) -> dict[str, Any]:
    """A result under the names of COLUMNS."""
    values = {
        "patch_freq": result.patch_size.freq,
        "patch_time": result.patch_size.time,
        "n_clips": len(result.scores),
        **dataclasses.asdict(result.metrics),
    }
    return {name: values[name] if name in values else getattr(result, name) for name in COLUMNS}


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def format_table(results: Sequence[Result]) -> str:
    """The table for people: a line per model and resize, accuracy in percent at each patch size."""
    patches = list(dict.fromkeys(r.patch_size for r in results))
    lines = list(dict.fromkeys((r.model, r.resize) for r in results))
    width = max(len("accuracy, %"), *(len(f"{m} ({z})") for m, z in lines))
    by_key = {(r.model, r.resize, r.patch_size): r for r in results}
    cells = [["accuracy, %".ljust(width), *(f"{p!s:>6}" for p in patches), "  mean", " worst"]]
    for model, resize in lines:
        row = [100 * by_key[model, resize, p].metrics.accuracy for p in patches]
        numbers = (f"{value:6.1f}" for value in (*row, sum(row) / len(row), min(row)))
        cells.append([f"{model} ({resize})".ljust(width), *numbers])
    any_line = [by_key[(*lines[0], p)] for p in patches]
    cells.append(["tokens".ljust(width), *(f"{r.tokens:6d}" for r in any_line)])
    cells.append(["GFLOPs".ljust(width), *(f"{r.gflops:6.3g}" for r in any_line)])
    if excluded := results[0].excluded:
        cells.append([f"without {len(excluded)} unusable clips: {excluded[0].reason}" + ", ..." * (len(excluded) > 1)])
    return "\n".join(" ".join(line).rstrip() for line in cells)


def plot(rows: Sequence[dict[str, Any]], clips: int) -> bytes:
    """PNG: accuracy against patch size, and against GFLOPs per clip; one line per model and resize."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    by_size, by_cost = figure.subplots(1, 2, sharey=True)
    resizes = {row["resize"] for row in rows}
    patches = list(dict.fromkeys(_patch(row) for row in rows))
    for number, (model, resize) in enumerate(dict.fromkeys((r["model"], r["resize"]) for r in rows)):
        mine = [r for r in rows if (r["model"], r["resize"]) == (model, resize)]
        style = {
            "label": f"{model} ({resize})" if len(resizes) > 1 else model,
            "marker": "osD^vP*X"[number % 8],
            "linestyle": "-" if resize == "pi" else "--",
        }
        by_size.plot([patches.index(_patch(r)) for r in mine], [100 * r["accuracy"] for r in mine], **style)
        cost = sorted(mine, key=lambda r: r["gflops"])
        by_cost.plot([r["gflops"] for r in cost], [100 * r["accuracy"] for r in cost], **style)
    by_size.set_xticks(range(len(patches)), [str(p) for p in patches])
    by_size.set(xlabel="patch size (mel bins x frames; one number: square)", ylabel="accuracy, %", ylim=(0, 100))
    by_cost.set(xlabel="GFLOPs per clip", xscale="log")
    by_size.legend(loc="lower left", fontsize=9)
    for axes in (by_size, by_cost):
        axes.grid(alpha=0.3)
    figure.suptitle(f"Accuracy at every patch size, {clips} clips", fontsize=11)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _patch(row: dict[str, Any]) -> PatchSize:
    return PatchSize(row["patch_freq"], row["patch_time"])
