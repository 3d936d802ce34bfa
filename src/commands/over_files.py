"""What the commands share that run a model over audio files: their options, and going on past what cannot be used."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.listening import Hearing
from ..classifier.load import load
from ..data.shards import ShardMember
from ..data.sources import audio_sources
from ..data.table_options import PathOptions
from ..errors import DataError
from ..runtime.arguments import PatchArg, Precision
from ..runtime.bars import tqdm
from ..runtime.device import available_cores
from ..runtime.output import Outcome, OutputOptions
from ..runtime.side_by_side import use_threads

Source = Path | ShardMember
FEW = 64
"""Up to this many files, decoding in this process is faster than starting others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverFiles(PathOptions, OutputOptions):
    """How audio files are found and scored."""

    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    overwrite: bool = False
    """Replace `out` if it exists."""
    root: Path | None = None
    """Folder that relative paths in manifests start from (default: the manifest's own)."""
    batch_size: int = 32
    """Windows per forward pass; a batch may span files."""
    workers: int | None = None
    """Decoding processes; 0 decodes in this process (default: 0 for a few files, else one per core, at most 4)."""
    threads: int = 0
    """CPU threads, 0 for torch's own choice. A small model hears a batch in each, a larger one shares every batch
    among them."""
    device: str = "auto"
    """`auto`: the GPU if there is one, else the CPU."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""

    def hearing(self, files: int, **others: Any) -> Hearing:
        """How that many files are scored; others: further fields of `Hearing`."""
        workers = self.workers if self.workers is not None else 0 if files <= FEW else min(available_cores(), 4)
        return Hearing(self.patch_size, batch_size=self.batch_size, workers=workers, precision=self.precision, **others)


class Result(Protocol):
    """What is known of one file, or what is wrong with it."""

    @property
    def clip(self) -> int: ...
    @property
    def error(self) -> DataError | None: ...


R = TypeVar("R", bound=Result)


def write_all(
    config: OverFiles,
    checkpoint: Path,
    names: Sequence[Path],
    out: Path,
    results: Callable[[AudioClassifier, list[Source], Hearing], Iterator[R]],
    write: Callable[[AudioClassifier, list[Source], list[R]], None],
) -> Outcome:
    """Run a model over the files that these names stand for, and write the results of those that can be used.

    What is there at Ctrl-C is written too. The outcome holds a DataError if some names or files cannot be used.
    """
    sources, refused = audio_sources(names, config.root, config)
    failed = [name.reason for name in refused]
    total = len(sources) + len(refused)
    if not sources:
        raise DataError(_failed(failed, total))
    use_threads(config.threads)
    model = load(checkpoint, config.device)
    made = results(model, sources, config.hearing(len(sources)))
    done: list[R] = []
    try:
        hidden = config.quiet or not sys.stderr.isatty()
        for one in tqdm(made, out.name, len(sources), unit="file", disable=hidden, leave=False):
            if one.error is None:
                done.append(one)
            else:
                failed.append(str(one.error))
    finally:
        if done:
            write(model, [sources[one.clip] for one in done], done)
    return Outcome(
        written=out if done else None,
        summary={"files": f"{len(done):,}", "left out": f"{len(failed):,}" if failed else ""},
        results={"files": len(done), "failures": failed},
        failure=DataError(_failed(failed, total)) if failed else None,
    )


def _failed(reasons: Sequence[str], total: int) -> str:
    return reasons[0] if total == 1 else f"{len(reasons)} of {total} files could not be used; the first: {reasons[0]}"
