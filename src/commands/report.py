"""`flexiast report`: a run and its results as one web page that needs no network."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Annotated

import tyro

from ..data.manifest import Manifest, read_manifest
from ..data.table_options import TableOptions
from ..errors import ConfigError, require
from ..models.geometry import PAPER_SIZES
from ..reports.findings import Findings, findings_of
from ..reports.flexibility import patch_of
from ..reports.measured import read_measured
from ..reports.run_report import render
from ..runtime.arguments import PatchArg, Precision
from ..runtime.device import resolve_precision
from ..runtime.files import write_atomically
from ..runtime.output import Outcome, OutputOptions
from ..runtime.provenance import provenance
from ..traintest.bench import measure_costs
from ..traintest.evaluate import sweep
from ..traintest.finished_run import FinishedRun
from ..traintest.patch_plan import fitting


@dataclasses.dataclass(frozen=True)
class ReportConfig(TableOptions, OutputOptions):
    """Write a run and its results into one web page: curves, classes, confusions, the worst clips with sound, cost."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run (--out of `train` or `flexify`)."""
    data: Path | None = None
    """Data to measure on (default: the run's own validation data)."""
    measured: Path | None = None
    """Folder of `flexiast measure --out` to take the results from, in place of hearing clips; where its --scores were
    kept, single clips are shown too."""
    out: Path | None = None
    """File to write (default: report.html in the folder of the run)."""
    patch_size: PatchArg | None = None
    """Patch size that classes and clips are shown at (default: the model's base patch)."""
    patch_sizes: tuple[PatchArg, ...] = ()
    """Patch sizes to measure at (default: those from 8 to 48 that fit)."""
    labels: Path | None = None
    """Label CSV for the data (default: the model's labels)."""
    root: Path | None = None
    """Where relative paths of the data start (default: the manifest's own folder)."""
    clips: int = 6
    """Clips shown with sound, of the hardest and of the most confidently wrong each; 0 for none."""
    seconds: float = 0.5
    """How long each patch size is timed."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.clips <= 50, "clips", self.clips, "0 to 50")
        if self.measured is not None:
            for name in ("data", "labels", "root", "patch_sizes"):
                if given := getattr(self, name):
                    raise ConfigError(
                        f"{name}: found {given} beside --measured, expected one of them: the clips and sizes"
                        " are those of the measurement"
                    )
        require(self.seconds >= 0, "seconds", self.seconds, "0 or more")


def report(config: ReportConfig, progress: bool = True) -> Path:
    """Measure and write the page; returns its file. Raises FlexiASTError for wrong input before measuring."""
    run = FinishedRun(config.run)
    if config.measured:
        findings = read_measured(config.measured, run.path, run.model, config.patch_size)
    else:
        findings = _heard(config, run, progress)
    device = run.model.kernel.device
    sizes = [patch_of(row) for row in findings.curve]
    costs = measure_costs(run.model, sizes, seconds=config.seconds, precision=config.precision)
    environment = provenance(device) | {"precision": resolve_precision(device, config.precision)}
    given = {"--data": config.data, "--measured": config.measured}
    own_data = "".join(f" {name} {shlex.quote(str(path))}" for name, path in given.items() if path)
    page = render(run, findings, costs, environment, config.clips, own_data)
    out = config.out or config.run / "report.html"
    write_atomically(out, page.encode(errors="backslashreplace"))
    return out


def _heard(config: ReportConfig, run: FinishedRun, progress: bool) -> Findings:
    """What the model makes of the clips now."""
    model = run.model
    data = _data(config, run)
    patch = config.patch_size or model.config.patch_size
    sizes = config.patch_sizes or fitting(PAPER_SIZES, model)
    sizes = sizes if patch in sizes else tuple(sorted((*sizes, patch)))
    results = sweep(
        {run.path.resolve().name: model}, data, sizes,
        workers=config.workers, precision=config.precision, progress=progress,
    )  # fmt: skip
    return findings_of(results, data, model, patch)


def _data(config: ReportConfig, run: FinishedRun) -> Manifest:
    if config.data is not None:
        labels, numbers = config.labels or run.model.labels, run.model.loss == "mse"
        return read_manifest(config.data, labels, config.root, config, numbers=numbers)
    data = run.validation_data()
    if data is None:
        raise ConfigError(f"data: {run.path} was trained without validation data; give some with --data")
    return data


def run(config: ReportConfig) -> Outcome:
    """Write the page; the outcome says where it is."""
    out = report(config, not config.quiet)
    megabytes = os.path.getsize(out) / 1e6
    return Outcome(
        written=out,
        summary={"size": f"{megabytes:.1f} MB; open it in any browser"},
        results={"megabytes": round(megabytes, 3)},
    )


CONFIG = ReportConfig
