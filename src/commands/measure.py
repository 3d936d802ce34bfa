"""`flexiast measure`: accuracy and cost at every patch size, as CSV, JSON with provenance, and a picture."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ..checkpoints.checkpoint import weights_digest
from ..checkpoints.hub import locate
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.class_order import class_order, reordered
from ..classifier.load import load
from ..data.fingerprint import contents_fingerprint
from ..data.labels import IN_TABLE
from ..data.manifest import Manifest, read_manifest, require_tables
from ..data.scores import base_of, clip_name, scores_file, write_scores
from ..data.table_options import TableOptions
from ..errors import ConfigError, require
from ..models.geometry import PAPER_SIZES
from ..models.resize import Resize
from ..reports.cascades import format_at_sizes, format_cascades
from ..reports.flexibility import as_row, best_of, format_table, plot_flexibility, score_name
from ..reports.tables import to_csv
from ..runtime.arguments import PatchArg, Precision, require_distinct, to_json
from ..runtime.device import pick_device, resolve_precision
from ..runtime.distributed import TIMEOUT, World, connected
from ..runtime.files import require_no_results, require_writable, to_json_text, write_atomically
from ..runtime.output import Outcome, OutputOptions
from ..runtime.provenance import commit, provenance
from ..runtime.side_by_side import use_threads
from ..traintest.agreement import require_agreement
from ..traintest.cascade_report import compare_cascades
from ..traintest.checkpointing import weights_hash
from ..traintest.detail import classes_of, comparisons_of, confusions_of, uncertainty
from ..traintest.evaluate import Result, describe_clips, sweep, targets_of

logger = logging.getLogger(__name__)

FILES = (
    *("flexibility.csv", "flexibility.json", "flexibility.png", "flexibility-dark.png", "classes.csv"),
    *("confusions.csv", "comparisons.csv", "cascades.csv", "cascades_by_size.csv"),
)
"""What a measurement writes beside the scores."""


@dataclasses.dataclass(frozen=True)
class MeasureConfig(TableOptions, OutputOptions):
    """Measure models at many patch sizes in one pass over the data."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]")]
    """Checkpoints of any readable format: directories, files, Hub ids."""
    data: Path
    """Manifest JSON or table (CSV, TSV, JSONL) of the test clips, a folder with one sub-folder per class, or whatever
    `--data.train` takes."""
    out: Path
    """Directory for flexibility.csv, .json and .png; classes.csv and confusions.csv; comparisons.csv of several models;
    cascades.csv and cascades_by_size.csv of models with a curve."""
    overwrite: bool = False
    """Replace the results of an earlier measurement in that directory."""
    labels: Path | None = None
    """Label CSV (default: the labels of the first model)."""
    root: Path | None = None
    """Folder that relative paths in the manifest start from (default: the manifest's own)."""
    scores: bool = False
    """Also write every clip's scores to scores/MODEL_RESIZE_PATCH.npz: clip, labels, probabilities, targets."""
    patch_sizes: tuple[PatchArg, ...] = PAPER_SIZES
    """Patch sizes to measure."""
    resize: tuple[Resize, ...] = ("pi",)
    """Ways to resize the kernel."""
    hop: float | None = None
    """Seconds between the windows of a clip longer than the model's window, whose scores are averaged (default: side
    by side). Overlapping windows cost more, and often score higher."""
    batch_size: int = 32
    """Clips per forward pass."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""
    threads: int = 0
    """CPU threads, 0 for torch's own choice. A small model hears a batch in each, a larger one shares every batch
    among them."""
    device: str = "auto"
    """`auto`: the GPU if there is one, else the CPU."""
    heads: int | None = None
    """Attention heads, for state dicts that do not record them (default: width / 64)."""
    dist_timeout: float = TIMEOUT
    """Minutes that torchrun's processes wait for one another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tables(self, self.data)
        for name in ("checkpoints", "patch_sizes", "resize"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: found none, expected at least one")
        require_distinct("patch_sizes", self.patch_sizes)
        require(0 < self.dist_timeout <= 1e5, "dist_timeout", self.dist_timeout, "a positive number of minutes")
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"batch_size, workers: found {self.batch_size}, {self.workers}, expected at least 1 and 0"
            )

    def of_splits(self, splits: Mapping[str, Path]) -> str:
        """The test split as this command takes it, or another one."""
        return f"--data {splits.get('test') or splits.get('val') or splits['train']}"


def measure(config: MeasureConfig, progress: bool = True) -> list[Result]:
    """Evaluate and write the files; under torchrun all processes share the work and rank 0 writes.

    Raises FlexiASTError for wrong input, before anything is measured.
    """
    with connected(config.dist_timeout) as world:
        return _measure(config, progress and world.is_rank0, world)


def _measure(config: MeasureConfig, progress: bool, world: World) -> list[Result]:
    world.on_rank0(lambda: require_no_results(config.out, FILES, config.overwrite))
    use_threads(config.threads)
    device = world.own(pick_device(config.device))
    paths = dict(zip(model_names(config.checkpoints), map(locate, config.checkpoints), strict=True))
    models = {name: load(path, device, config.heads) for name, path in paths.items()}
    first = next(iter(models.values()))
    whose = IN_TABLE if config.labels else f"classes of model {next(iter(models))}"
    numbers = first.loss == "mse"
    if any((model.loss == "mse") != numbers for model in models.values()):
        raise ConfigError("checkpoints: found models of classes beside models of numbers, expected one kind")
    data = read_manifest(config.data, config.labels or first.labels, config.root, config, whose, numbers)
    for name, model in models.items():
        order = class_order(model.labels, data.labels, table=config.labels is not None or None)
        if order is None:
            raise ConfigError(
                f"labels: model {name} has other classes ({len(model.labels)}) than"
                f" {config.labels or next(iter(models))} ({len(data.labels)})"
            )
        models[name] = reordered(model, data.labels, order)
    if world.size > 1:
        weights = [weights_hash(model) for model in models.values()]
        prints = {"data": data.fingerprint, "contents": contents_fingerprint(data), "models": weights}
        require_agreement(world, to_json(config), commit(), prints)
    require_writable(config.out)
    results = sweep(
        models,
        data,
        config.patch_sizes,
        config.resize,
        batch_size=config.batch_size,
        workers=config.workers,
        precision=config.precision,
        progress=progress,
        world=world,
        hop=config.hop,
    )
    if world.is_rank0:
        lines = (describe_clips(result, models[result.model].feature_config) for result in results)
        for line in dict.fromkeys(line for of_one in lines for line in of_one):
            logger.info("%s: %s", config.data, line)
        trained = {name: model.metadata.get("training") for name, model in models.items()}
        seeds = {name: t.get("seed") if isinstance(t, dict) else None for name, t in trained.items()}
        precision = resolve_precision(device, config.precision)
        origin = {"models": _identify(paths), "seeds": seeds, "precision": precision, **provenance(device)}
        _write(config, results, data, origin, models)
    return results


def _write(
    config: MeasureConfig,
    results: list[Result],
    data: Manifest,
    origin: dict[str, Any],
    models: dict[str, AudioClassifier],
) -> None:
    """Write all files, those of comparisons and cascades if there are any, and the scores if asked for."""
    excluded = {data.clips[failure.clip].path: failure.reason for failure in results[0].excluded}
    targets = targets_of(data, results[0].excluded)
    rows = [as_row(result) | uncertainty(result, targets, models[result.model].loss) for result in results]
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
    numbers = data.clips.values is not None
    cascades = compare_cascades({} if numbers else models, results, targets)
    tables = {
        "classes": [] if numbers else classes_of(results, targets, data.labels.names),
        "confusions": [] if numbers else confusions_of(results, targets, data.labels.names),
        "comparisons": comparisons_of(results, models, targets),
        "cascades": [dataclasses.asdict(one) for one in cascades.cascades],
        "cascades_by_size": [dataclasses.asdict(one) for one in cascades.at_sizes],
    }
    written = {name: tables[name] for name in ("comparisons", "cascades", "cascades_by_size") if tables[name]}
    text = to_json_text({"provenance": source, "results": rows} | written, 1) + "\n"
    write_atomically(config.out / "flexibility.json", text.encode())
    plot_flexibility(rows, len(data) - len(excluded), cascades.cascades).write(config.out / "flexibility.png")
    for name, table in {"flexibility": rows, **tables}.items():
        if table:
            write_atomically(config.out / f"{name}.csv", to_csv(table).encode())
        else:
            (config.out / f"{name}.csv").unlink(missing_ok=True)  # of a measurement that is replaced
    if config.scores:
        _write_scores(config, results, data, targets)
    for text in (format_cascades(cascades.cascades), format_at_sizes(cascades.at_sizes)):
        for line in text.splitlines():
            logger.info("%s", line)


def _write_scores(config: MeasureConfig, results: list[Result], data: Manifest, targets: np.ndarray) -> None:
    left_out = {failure.clip for failure in results[0].excluded}
    base = base_of(config.data, config.root)
    clips = [clip_name(clip.path, base) for number, clip in enumerate(data.clips) if number not in left_out]
    for result in results:
        path = scores_file(config.out, result.model, result.resize, result.patch_size)
        write_scores(path, clips, data.labels.names, result.scores, targets, data.clips.values is not None)


def model_names(sources: Sequence[str]) -> list[str]:
    """A short, distinct name for each checkpoint: the last parts of its path, as few as keep the names apart."""
    resolved = [Path(source).resolve() for source in sources]
    for parts in range(1, max(len(p.parts) for p in resolved) + 1):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"checkpoints: found one given twice in {', '.join(sources)}")


def _identify(paths: dict[str, Path]) -> dict[str, dict[str, str]]:
    """The path of each model's weights and their SHA-256 (one per shard)."""
    return {name: {"path": str(path), "sha256": weights_digest(path)} for name, path in paths.items()}


def run(config: MeasureConfig) -> Outcome:
    """Measure; the outcome has the table."""
    results = measure(config, not config.quiet)
    return Outcome(
        written=config.out,
        text=format_table(results),
        summary={"clips": f"{len(results[0].scores):,}", f"best {score_name(results)}": best_of(results)},
        results={"results": [as_row(result) for result in results]},
    )


CONFIG = MeasureConfig
