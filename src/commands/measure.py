"""`flexiast measure`: accuracy and cost at every patch size, as CSV, JSON with provenance, and a picture."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ..checkpoints.checkpoint import weight_files
from ..checkpoints.hub import locate
from ..classifier.class_order import class_order, reordered
from ..classifier.load import load
from ..data.labels import IN_TABLE
from ..data.manifest import Manifest, read_manifest, require_tables
from ..data.table_options import TableOptions
from ..errors import ConfigError, require
from ..models.geometry import PAPER_SIZES
from ..models.resize import Resize
from ..reports.cascades import format_at_sizes, format_cascades
from ..reports.flexibility import as_row, format_table, plot_flexibility
from ..reports.tables import to_csv
from ..runtime.arguments import PatchArg, Precision, require_distinct, to_json
from ..runtime.device import pick_device, resolve_precision
from ..runtime.distributed import TIMEOUT, World, connected, print_once
from ..runtime.files import replacing, require_no_results, require_writable, to_json_text, write_atomically
from ..runtime.provenance import provenance, sha256
from ..traintest.cascade_report import CascadeReport, compare_cascades
from ..traintest.evaluate import Result, describe_clips, sweep, targets_of

logger = logging.getLogger(__name__)

FILES = (
    *("flexibility.csv", "flexibility.json", "flexibility.png", "flexibility-dark.png"),
    *("cascades.csv", "cascades_by_size.csv"),
)
"""What a measurement writes, in this order, beside the scores."""


@dataclasses.dataclass(frozen=True)
class MeasureConfig(TableOptions):
    """Measure models at many patch sizes in one pass over the data."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]")]
    """Checkpoints of any readable format: directories, files, Hub ids."""
    data: Path
    """Manifest JSON or table (CSV, TSV, JSONL) of the test clips, or a folder with one sub-folder per class."""
    out: Path
    """Directory for flexibility.csv, flexibility.json and flexibility.png; and for models with a curve cascades.csv and
    cascades_by_size.csv."""
    overwrite: bool = False
    """Replace the results of an earlier measurement in that directory."""
    labels: Path | None = None
    """Label CSV (default: the labels of the first model)."""
    root: Path | None = None
    """Folder that relative paths in the manifest start from (default: the manifest's own)."""
    scores: bool = False
    """Also write every clip's scores, (clips, classes) float32, to scores/MODEL_RESIZE_PATCH.npy."""
    patch_sizes: tuple[PatchArg, ...] = PAPER_SIZES
    """Patch sizes to measure."""
    resize: tuple[Resize, ...] = ("pi",)
    """Ways to resize the kernel."""
    batch_size: int = 32
    """Clips per forward pass."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16."""
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
    """Evaluate and write the three files; under torchrun all processes share the work and rank 0 writes.

    Raises FlexiASTError for wrong input, before anything is measured.
    """
    with connected(config.dist_timeout) as world:
        return _measure(config, progress and world.is_rank0, world)


def _measure(config: MeasureConfig, progress: bool, world: World) -> list[Result]:
    world.on_rank0(lambda: require_no_results(config.out, FILES, config.overwrite))
    device = world.own(pick_device(config.device))
    paths = dict(zip(model_names(config.checkpoints), map(locate, config.checkpoints), strict=True))
    models = {name: load(path, device, config.heads) for name, path in paths.items()}
    first = next(iter(models.values()))
    whose = IN_TABLE if config.labels else f"classes of model {next(iter(models))}"
    data = read_manifest(config.data, config.labels or first.labels, config.root, config, whose)
    for name, model in models.items():
        order = class_order(model.labels, data.labels, table=config.labels is not None or None)
        if order is None:
            raise ConfigError(
                f"labels: model {name} has other classes ({len(model.labels)}) than"
                f" {config.labels or next(iter(models))} ({len(data.labels)})"
            )
        models[name] = reordered(model, data.labels, order)
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
    )
    if world.is_rank0:
        lines = (describe_clips(result, models[result.model].feature_config) for result in results)
        for line in dict.fromkeys(line for of_one in lines for line in of_one):
            logger.info("%s: %s", config.data, line)
        trained = {name: model.metadata.get("training") for name, model in models.items()}
        seeds = {name: t.get("seed") if isinstance(t, dict) else None for name, t in trained.items()}
        precision = resolve_precision(device, config.precision)
        origin = {"models": _identify(paths), "seeds": seeds, "precision": precision, **provenance(device)}
        cascades = compare_cascades(models, results, targets_of(data, results[0].excluded))
        _write(config, results, data, origin, cascades)
        for text in (
            *format_cascades(cascades.cascades).splitlines(),
            *format_at_sizes(cascades.at_sizes).splitlines(),
        ):
            logger.info("%s", text)
    return results


def _write(
    config: MeasureConfig, results: list[Result], data: Manifest, origin: dict[str, Any], cascades: CascadeReport
) -> None:
    """Write flexibility.csv, .json and .png, the tables of cascades if there are any, and the scores if asked for."""
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
    compared = {
        "cascades": [dataclasses.asdict(one) for one in cascades.cascades],
        "cascades_by_size": [dataclasses.asdict(one) for one in cascades.at_sizes],
    }
    compared = {name: table for name, table in compared.items() if table}
    content = {"provenance": source, "results": rows, **compared}
    text = to_json_text(content, 1) + "\n"
    write_atomically(config.out / "flexibility.json", text.encode())
    plot_flexibility(rows, len(data) - len(excluded), cascades.cascades).write(config.out / "flexibility.png")
    for name, table in compared.items():
        write_atomically(config.out / f"{name}.csv", to_csv(table).encode())
    for result in results if config.scores else ():
        name = f"{result.model.replace('/', '_')}_{result.resize}_{result.patch_size}.npy"
        with replacing(config.out / "scores" / name) as file:
            np.save(file, result.scores)


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
    digests = {name: " ".join(map(sha256, weight_files(path))) for name, path in paths.items()}
    return {name: {"path": str(paths[name]), "sha256": digest} for name, digest in digests.items()}


def run(config: MeasureConfig) -> None:
    """Measure and print the table."""
    print_once(f"{format_table(measure(config))}\nwritten: {config.out}/flexibility.csv, .json, .png")


CONFIG = MeasureConfig
