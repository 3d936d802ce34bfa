"""`flexiast stats`: the mean and standard deviation of a data set's log-mel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..data.bad_clips import MAX_BAD
from ..data.manifest import distinct_labels, read_manifest, require_tables
from ..data.statistics import Statistics, measure_statistics
from ..data.table_options import TableOptions
from ..data.workers import MAX_WORKERS
from ..errors import ConfigError, require
from ..features import FeatureConfig
from ..runtime.files import require_new, require_writable, to_json_text, write_atomically
from ..runtime.output import Outcome, OutputOptions

MEASURED = ("sample_rate", "bins", "window_ms", "hop_ms", "downmix", "resampler")
"""Feature settings that the statistics depend on."""


@dataclasses.dataclass(frozen=True)
class StatsConfig(TableOptions, OutputOptions):
    """Measure the mean and standard deviation of the log-mel over all real frames of a data set, for normalisation."""

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Manifest JSON, table (CSV, TSV, JSONL) of files and labels, or a folder with one sub-folder per class."""
    labels: Path | None = None
    """Label CSV to check the labels against; the statistics do not depend on it."""
    root: Path | None = None
    """Folder that relative paths in the manifest start from (default: the manifest's own)."""
    bins: int = 128
    """Mel bins."""
    sample_rate: int = 16_000
    """Sample rate in Hz that audio is converted to."""
    window_ms: float = 25.0
    """Length of a frame's window in milliseconds."""
    hop_ms: float = 10.0
    """Milliseconds from one frame to the next."""
    downmix: Literal["mean", "first"] = "mean"
    """How stereo becomes mono."""
    resampler: Literal["soxr", "sinc"] = "soxr"
    """How other sample rates are converted: soxr, as for new models, or sinc, as for released weights."""
    max_bad: float = MAX_BAD
    """Share of the clips that may be unusable; these are logged and left out. 0: stop at the first."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    out: Path | None = None
    """JSON file to write the statistics to."""
    overwrite: bool = False
    """Replace that file if it is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tables(self, self.manifest)
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers: found {self.workers}, expected 0 to {MAX_WORKERS}")
        require(0 <= self.max_bad <= 1, "max_bad", self.max_bad, "a share from 0 to 1")


def run(config: StatsConfig) -> Outcome:
    """Measure; the outcome has the statistics, and the options that use them."""
    if config.out:
        require_new(config.out, config.overwrite)
    features = FeatureConfig(**{name: getattr(config, name) for name in MEASURED})
    labels = config.labels or distinct_labels(config.manifest, config)
    data = read_manifest(config.manifest, labels, config.root, config)
    if config.out:
        require_writable(config.out.parent)
    statistics = measure_statistics(data, features, config.workers, not config.quiet, config.max_bad)
    if config.out:
        write_atomically(config.out, (to_json_text(dataclasses.asdict(statistics)) + "\n").encode())
    options = " ".join(training_options(features, statistics))
    left_out = len(data) - statistics.clips
    moments = f"mean {statistics.mean:.7f}, std {statistics.std:.7f}"
    return Outcome(
        written=config.out,
        text=f"{moments}, frames {statistics.frames}, clips {statistics.clips}\n{options}",
        summary={
            "clips": f"{statistics.clips:,}",
            "left out": f"{left_out} of {len(data)} clips, which cannot be used" if left_out else "",
        },
        results=dataclasses.asdict(statistics) | {"left_out": left_out, "options": options},
    )


def training_options(features: FeatureConfig, statistics: Statistics) -> list[str]:
    """The options of `flexiast train` that these statistics belong to; those that are its defaults are left out."""
    usual = FeatureConfig(resampler="soxr")
    changed = {name: getattr(features, name) for name in MEASURED if getattr(features, name) != getattr(usual, name)}
    features_options = [f"--features.{name.replace('_', '-')} {value}" for name, value in changed.items()]
    return [*features_options, f"--data.mean {statistics.mean:.7f}", f"--data.std {statistics.std:.7f}"]


CONFIG = StatsConfig
