"""`flexiast pack`: pack the clips of a manifest into tar shards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..data.bad_clips import MAX_BAD
from ..data.manifest import read_manifest, require_tables
from ..data.pack import BAD_FILES, pack
from ..data.shards import INDEX
from ..data.table_options import TableOptions
from ..errors import ConfigError, require
from ..runtime.files import require_no_results
from ..runtime.output import Outcome, OutputOptions


@dataclasses.dataclass(frozen=True)
class PackConfig(TableOptions, OutputOptions):
    """Pack clips into tar shards, which read faster than single files; pass their folder to --data.train."""

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Manifest JSON, table (CSV, TSV, JSONL) of files and labels, or a folder with one sub-folder per class."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the shards and their index."""
    overwrite: bool = False
    """Replace the shards that an earlier run has packed there."""
    labels: Path | None = None
    """Label CSV (index, mid, display_name); folders and tables do not need one."""
    root: Path | None = None
    """Folder that relative paths in the manifest start from (default: the manifest's own)."""
    shard_size: float = 500.0
    """Megabytes (10^6 bytes) per shard; a clip is never split."""
    shuffle: int | None = None
    """Seed to shuffle the clips with first, for reading shard by shard (default: keep the manifest's order)."""

    max_bad: float = MAX_BAD
    """Share of the clips that may be unusable; these are logged, listed in bad_files.csv and left out. 0: stop at the
    first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tables(self, self.manifest)
        if not self.shard_size > 0:
            raise ConfigError(f"shard_size: found {self.shard_size}, expected a positive number of megabytes")
        if self.shuffle is not None and self.shuffle < 0:
            raise ConfigError(f"shuffle: found {self.shuffle}, expected a seed of 0 or more")
        require(0 <= self.max_bad <= 1, "max_bad", self.max_bad, "a share from 0 to 1")


def run(config: PackConfig) -> Outcome:
    """Pack; the outcome says what is where."""
    require_no_results(config.out, (INDEX,), config.overwrite)
    manifest = read_manifest(config.manifest, config.labels, config.root, config)
    packed = pack(
        manifest, config.out, config.shard_size, config.shuffle, not config.quiet, config.max_bad, config.overwrite
    )
    left_out = len(manifest) - len(packed)
    named = f"{left_out} of {len(manifest)} clips, which cannot be used; see {config.out / BAD_FILES}"
    return Outcome(
        written=config.out,
        summary={"clips": f"{len(packed):,}", "left out": named if left_out else ""},
        results={"clips": len(packed), "left_out": left_out},
    )


CONFIG = PackConfig
