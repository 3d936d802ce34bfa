"""`flexiast embed`: embeddings of audio files, as NumPy arrays or as a table."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from ..classifier.embeddings import Embedded, Layer, embeddings
from ..classifier.listening import Hearing
from ..classifier.load import load
from ..data.sources import every_source
from ..errors import ConfigError, DataError
from ..runtime.arguments import PatchArg, Precision
from ..runtime.extras import optional
from ..runtime.files import replacing, require_new

SUFFIXES = (".parquet", ".npz")


def layer_of(text: str) -> Layer:
    """`mean`, or the number of a block."""
    return "mean" if text == "mean" else int(text)


LayerArg = Annotated[
    Layer,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|mean",
        instance_from_str=lambda args: layer_of(args[0]),
        is_instance=lambda value: isinstance(value, (int, str)),
        str_from_instance=lambda value: [str(value)],
    ),
]


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """Write embeddings of audio files. A file that cannot be used is reported, the rest goes on; exit code 2 then."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format."""
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO [AUDIO ...]")]
    """Audio files, folders (with all folders below), patterns in quotes such as 'calls/**/*.wav', manifests."""
    out: Path
    """File to write: *.npz (arrays path, start, end, embedding) or *.parquet (columns of the same names)."""
    layer: LayerArg | None = None
    """Block, counted from 0 or from the end, whose patch tokens are averaged; `mean` for all blocks (default: what the
    classifier sees)."""
    time: bool = False
    """A vector for each column of patches, with its start and end in seconds, instead of one for each file."""
    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    overwrite: bool = False
    """Replace the file if it is there."""
    root: Path | None = None
    """Where relative paths of manifests start (default: the manifest's own folder)."""
    batch_size: int = 32
    """Windows per forward pass; batches go across files."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16."""

    def __post_init__(self) -> None:
        if not self.audio:
            raise ConfigError("audio: found no files, expected at least one file, folder, pattern or manifest")
        if self.out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"out: found {self.out}, expected a file name that ends in {' or '.join(SUFFIXES)}")
        require_new(self.out, self.overwrite)


def run(config: EmbedConfig) -> None:
    """Embed and write. What was computed before Ctrl-C is written too. Raises DataError, in the end, for bad files."""
    if config.out.suffix.lower() == ".parquet":
        optional("pyarrow", "data")  # before the work
    sources = every_source(config.audio, config.root)
    model = load(config.checkpoint, config.device)
    how = Hearing(config.patch_size, batch_size=config.batch_size, workers=config.workers, precision=config.precision)
    done: list[Embedded] = []
    try:
        made = embeddings(model, sources, how, config.layer, config.time)
        for one in tqdm(made, "embed", len(sources), unit="file", disable=not sys.stderr.isatty(), leave=False):
            done.append(one)
    finally:
        used = [one for one in done if one.error is None]
        if used:
            write(config.out, [str(sources[one.clip]) for one in used], used)
    failed = [str(one.error) for one in done if one.error is not None]
    print(f"written: {config.out}, {len(used)} files" if used else "nothing written")
    if failed:
        raise DataError(f"{len(failed)} of {len(sources)} files could not be used; the first: {failed[0]}")


def write(out: Path, names: Sequence[str], done: Sequence[Embedded]) -> None:
    """Write one row for each vector."""
    rows = [np.atleast_2d(one.embedding.vectors.numpy()) for one in done]
    columns: dict[str, Any] = {
        "path": np.repeat(np.array(names), [len(own) for own in rows]),
        "start": np.concatenate([one.embedding.starts.numpy() for one in done]),
        "end": np.concatenate([one.embedding.ends.numpy() for one in done]),
    }
    vectors = np.concatenate(rows)
    with replacing(out) as file:
        if out.suffix.lower() == ".npz":
            np.savez(file, **columns, embedding=vectors)
            return
        arrow, parquet = optional("pyarrow", "data"), optional("pyarrow.parquet", "data")
        columns["embedding"] = arrow.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
        parquet.write_table(arrow.table(columns), file)


CONFIG = EmbedConfig
