"""Scores of clips in a file: what a model said of each, whichever model it was.

npz: `clip` (n,) names, `labels` (C,) names, `probabilities` or `logits` (n, C), and where they are known `targets`
(n, C). Parquet: a column `clip` and one of
each label; values between 0 and 1 are probabilities, others logits. Several rows of one clip are several views of it.

Dimensions: n rows, C classes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..runtime.extras import optional
from ..runtime.files import replacing
from .labels import Labels
from .manifest import Manifest
from .shards import INDEX, ShardMember, read_shards
from .webdataset import read_webdataset

logger = logging.getLogger(__name__)
SUFFIXES = (".npz", ".parquet")
IN_SHARD = ".tar:"
"""What names of clips in shards have after the name of the tar."""


class Scores(NamedTuple):
    """What a file holds."""

    clips: list[str]
    labels: list[str]
    values: np.ndarray
    """(n, C) float32."""
    are_logits: bool


class Answers(NamedTuple):
    """What a model said of clips whose classes or numbers are known."""

    clips: Sequence[str]
    labels: list[str]
    values: np.ndarray
    """(n, C) float32 probabilities, or numbers that a regression predicts."""
    targets: np.ndarray
    """(n, C) float32, 1 at each class of a clip, or its numbers."""


UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile)
"""What numpy and pyarrow raise for a file that is damaged or holds something else."""


def require_scores_file(path: Path) -> None:
    """Raise ConfigError for a file name of another ending, or if what its format needs is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"scores: found {path}, expected a file name that ends in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        optional("pyarrow", "data")


def base_of(data: Path, root: Path | None) -> Path:
    """The folder that names of clips in a file of scores start from: the data's, or the root that was given."""
    return root or (data if data.is_dir() else data.parent)


def scores_file(folder: Path, model: str, resize: str, patch: object) -> Path:
    """Where `flexiast measure --out FOLDER --scores` keeps what a model said at a patch size."""
    return folder / "scores" / f"{model.replace('/', '_')}_{resize}_{patch}.npz"


def clip_name(source: object, base: Path) -> str:
    """A clip as a file of scores calls it: below the data's folder, where it lies there; in a shard `SHARD:NAME`."""
    if isinstance(source, ShardMember):
        return f"{clip_name(source.shard, base)}:{source.name}"
    if isinstance(source, Path) and source.is_relative_to(base):
        return str(source.relative_to(base))
    return str(source)


def clips_named(names: Sequence[str], base: Path) -> list[Path | ShardMember]:
    """The clips that names of `clip_name` stand for: files below the base, and members of shards that can be read."""
    tars = {base / f"{name.partition(IN_SHARD)[0]}.tar" for name in names if IN_SHARD in name}
    members: dict[str, ShardMember] = {}
    for source in {tar.parent if (tar.parent / INDEX).is_file() else tar for tar in tars if tar.is_file()}:
        with suppress(DataError):
            if source.is_dir():
                found = read_shards(source).members
            else:
                found = [sample.member for sample in read_webdataset(source)]
            members |= {clip_name(member, base): member for member in found}
    return [members.get(name, base / name) for name in names]


def write_scores(
    path: Path,
    clips: Sequence[str],
    labels: Sequence[str],
    probabilities: np.ndarray,
    targets: np.ndarray | None = None,
    numbers: bool = False,
) -> None:
    """Write probabilities (n, C) float32 in either format. targets: (n, C), 1 at each class of a clip; npz only.

    numbers: they are values that a regression predicts, called so in an npz, and its targets are values too.
    """
    require_scores_file(path)
    with replacing(path) as file:
        if path.suffix.lower() == ".npz":
            kind = "values" if numbers else "probabilities"
            arrays = {"clip": np.array(clips), "labels": np.array(labels), kind: probabilities}
            if targets is not None:
                arrays["targets"] = targets.astype(np.float32 if numbers else np.uint8)
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs take them for its option
            return
        columns = dict(zip(labels, probabilities.T, strict=True))
        optional("pyarrow.parquet", "data").write_table(
            optional("pyarrow", "data").table({"clip": clips} | columns), file
        )


def read_scores(path: Path) -> Scores:
    """Read a file of either format. Raises DataError that names what is missing or does not fit."""
    require_scores_file(path)
    try:
        scores = _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    expected = (len(scores.clips), len(scores.labels))
    if scores.values.shape != expected or not scores.clips:
        raise DataError(f"{path}: found scores {scores.values.shape}, expected (clips, labels), {expected}")
    if twice := [name for name, count in Counter(scores.labels).items() if count > 1]:
        raise DataError(f"{path}: found the label {twice[0]!r} twice, expected each once")
    if not np.isfinite(scores.values).all():
        raise DataError(f"{path}: found scores that are not finite")
    if not scores.are_logits and not ((scores.values >= 0) & (scores.values <= 1)).all():
        raise DataError(f"{path}: found probabilities outside 0 to 1; logits go under the name logits")
    return scores


def read_answers(path: Path) -> Answers:
    """Read an npz that has targets too. Raises DataError that names what is missing or does not fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = file["values" if "values" in file else "probabilities"].astype(np.float32)
            read = Answers(file["clip"].tolist(), file["labels"].tolist(), values, file["targets"].astype(np.float32))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    expected = (len(read.clips), len(read.labels))
    if not read.values.shape == read.targets.shape == expected:
        raise DataError(
            f"{path}: found scores {read.values.shape} and targets {read.targets.shape}, expected (clips, labels),"
            f" {expected}"
        )
    if not (np.isfinite(read.values).all() and np.isfinite(read.targets).all()):
        raise DataError(f"{path}: found scores or targets that are not finite")
    return read


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if "Object arrays" in reason:  # what numpy makes of a column of pandas
        reason = "found an array of Python objects, expected text or numbers: array.astype(str)"
    return DataError(f"{path}: not readable as scores ({reason})")


def _read_npz(path: Path) -> Scores:
    with np.load(path, allow_pickle=False) as file:
        kind = next((name for name in ("probabilities", "logits") if name in file), None)
        if kind is None or "clip" not in file or "labels" not in file:
            raise ValueError(f"found {', '.join(file.files)}, expected clip, labels, and probabilities or logits")
        clips, labels = (file[name].astype(str).ravel().tolist() for name in ("clip", "labels"))  # or numbers, or bytes
        return Scores(clips, labels, file[kind].astype(np.float32), kind == "logits")


def _read_parquet(path: Path) -> Scores:
    table: Any = optional("pyarrow.parquet", "data").read_table(path)
    labels = [name for name in table.column_names if name != "clip"]
    values = np.array([table.column(name).to_numpy() for name in labels], dtype=np.float32).T
    are_logits = bool(values.size and (values.min() < 0 or values.max() > 1))
    return Scores([str(clip) for clip in table.column("clip").to_pylist()], labels, values, are_logits)


def scores_of(path: Path, data: Manifest, single_label: bool) -> Tensor:
    """The probabilities (clips of the data, classes of the data) in a file, the mean over a clip's views.

    A clip is found by its path or the end of it (`dog/1.wav`, `1.wav`, `1`; in shards
    `train/0.tar:dog/1.wav`), a class by its name or id. single_label:
    probabilities of a clip sum to one: logits go through softmax, and classes that the data lack are left out before.
    Raises DataError, with names, if a clip or a class of the data is not in the file, or an end fits two clips.
    """
    scores = read_scores(path)
    order = _order(path, scores.labels, data.labels)
    rows: dict[str, list[int]] = {}
    for row, stored in enumerate(scores.clips):
        rows.setdefault(stored, []).append(row)
    names = [_name_in(rows, clip.path) for clip in data.clips]
    missing = [clip.path for clip, name in zip(data.clips, names, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{path}: found no scores of {len(missing)} of {len(names)} clips; the first: {missing[0]}; the file's"
            f" first: {scores.clips[0]}"
        )
    owner: dict[str | None, Any] = {}
    for clip, name in zip(data.clips, names, strict=True):
        if owner.setdefault(name, clip.path) != clip.path:
            raise DataError(f"{path}: {name!r} stands for both {owner[name]} and {clip.path}; give longer paths")
    values = torch.from_numpy(scores.values[:, order])
    if scores.are_logits:
        values = values.softmax(dim=1) if single_label else values.sigmoid()
    elif single_label:
        values = values / values.sum(dim=1, keepdim=True)
        if nothing := [name for name in names if name is not None and values[rows[name]].isnan().any()]:
            raise DataError(
                f"{path}: found only zeros for {nothing[0]} in the classes of the data, expected a score above 0"
            )
    return torch.stack([values[rows[name]].mean(dim=0) for name in names if name is not None])


def _order(path: Path, names: Sequence[str], labels: Labels) -> list[int]:
    """The column of each class of the data."""
    place = {name: column for column, name in enumerate(names)}
    order = [place.get(name, place.get(mid, -1)) for mid, name in zip(labels.mids, labels.names, strict=True)]
    lacking = [name for name, column in zip(labels.names, order, strict=True) if column < 0]
    if lacking:
        raise DataError(
            f"{path}: found no scores of {len(lacking)} of {len(labels)} classes; the first: {lacking[0]}; the file's"
            f" first: {names[0]}"
        )
    if len(names) > len(labels):
        logger.info("%s: %d of its %d classes are not in the data", path, len(names) - len(labels), len(names))
    return order


def _name_in(names: Container[str], path: Path | ShardMember) -> str | None:
    """What a clip is called in the file: the longest end of its path, with or without suffix."""
    return next((name for name in _names_of(path) if name in names), None)


def _names_of(path: Path | ShardMember) -> Iterator[str]:
    """What a clip may be called, longest first; of one in a shard the names with the shard go before its own."""
    if isinstance(path, ShardMember):
        yield from (f"{end}:{path.name}" for end in _ends(path.shard.parts))
    for end in _ends(path.parts):
        yield from (str(end), str(end.with_suffix("")))


def _ends(parts: Sequence[str]) -> Iterator[PurePath]:
    return (PurePath(*parts[start:]) for start in range(len(parts)))
