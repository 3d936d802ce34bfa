"""`flexiast embed`: embeddings of audio files, as NumPy arrays or as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.embeddings import Embedded, Layer, embeddings
from ..classifier.listening import Hearing
from ..data.manifest import require_tables
from ..errors import ConfigError
from ..runtime.extras import optional
from ..runtime.files import replacing, require_new
from ..runtime.output import Outcome
from .over_files import OverFiles, Source, write_all

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
class EmbedConfig(OverFiles):
    """Write embeddings of audio files. A file that cannot be used is reported, the rest goes on; exit code 2 then."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format."""
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO [AUDIO ...]")]
    """Audio files, folders (with all folders below), patterns in quotes such as 'calls/**/*.wav', manifests; or an
    address, such as s3://bucket/calls/*.wav."""
    out: Path
    """File to write: *.npz (arrays path, start, end, embedding) or *.parquet (columns of the same names)."""
    layer: LayerArg | None = None
    """Block, counted from 0 or from the end, whose patch tokens are averaged; `mean` for all blocks (default: what the
    classifier sees)."""
    time: bool = False
    """A vector for each column of patches, with its start and end in seconds, instead of one for each file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.audio:
            raise ConfigError("audio: found no files, expected at least one file, folder, pattern or manifest")
        if self.out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"out: found {self.out}, expected a file name that ends in {' or '.join(SUFFIXES)}")
        require_tables(self, *self.audio)
        require_new(self.out, self.overwrite)


def run(config: EmbedConfig) -> Outcome:
    """Embed and write. What was computed before Ctrl-C is written too. The outcome holds a DataError for bad files."""
    if config.out.suffix.lower() == ".parquet":
        optional("pyarrow", "data")  # before the work

    def embed(model: AudioClassifier, sources: list[Source], how: Hearing) -> Iterator[Embedded]:
        return embeddings(model, sources, how, config.layer, config.time)

    def save(model: AudioClassifier, sources: list[Source], done: list[Embedded]) -> None:
        write(config.out, [str(source) for source in sources], done)

    return write_all(config, config.checkpoint, config.audio, config.out, embed, save)


def write(out: Path, names: Sequence[str], done: Sequence[Embedded]) -> None:
    """Write one row for each vector."""
    rows = [np.atleast_2d(one.embedding.vectors.numpy()) for one in done]
    columns: dict[str, Any] = {
        "path": np.repeat(np.array(names), [len(vectors_of) for vectors_of in rows]),
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
