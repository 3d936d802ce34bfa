"""Read lists of clips and their labels: manifests (AST's JSON), tables, folders of classes, shards."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..runtime.files import to_json_text
from .arrays import Lists, Texts
from .ast_json import read_entries
from .clips import Clip as Clip
from .clips import Clips, Paths
from .folders import check_classes, read_class_folders
from .hugging_face import as_tars, as_tars_with_numbers, is_dataset
from .label_cells import read_labels
from .labels import IN_TABLE, Labels, composed, report_numbers, report_twins, unknown_label
from .locate import in_folder, locate, require_some
from .number_cells import read_numbers
from .remote import Address, is_address
from .remote_cache import as_local
from .rows import Cell, Rows
from .shards import INDEX, ShardMember, read_shards
from .stream import stream_labels, stream_numbers
from .table_options import ONLY_PATHS, USUAL, NumberOptions, PathOptions, TableOptions
from .tables import group_lines, is_table, read_table
from .webdataset import read_webdataset, tars_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The clips of a split, their labels, and where they were read from."""

    source: Path
    clips: Clips
    """Any other sequence of clips is made one."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.clips)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clips", Clips.of(self.clips))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over file names (last two parts), sizes and classes or numbers: the same on any machine."""
        digest = hashlib.sha256()
        paths, values = self.clips.paths, self.clips.values
        wanted = self.clips.classes if values is None else map(tuple, values.tolist())
        for name, size, of_clip in zip(paths.ends(), paths.sizes(), wanted, strict=True):
            # File names may not be UTF-8.
            digest.update(f"{name}\t{size}\t{of_clip}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def targets(self, clips: Sequence[int]) -> np.ndarray:
        """(n, C) float32 of these clips: 1 at each class, or the numbers to predict."""
        if self.clips.values is not None:
            return self.clips.values[list(clips)]
        targets = np.zeros((len(clips), len(self.labels)), dtype=np.float32)
        for row, clip in zip(targets, clips, strict=True):
            row[list(self.clips[clip].classes)] = 1.0
        return targets


def read_manifest(
    source: Path,
    labels: Labels | Path | None = None,
    root: Path | None = None,
    options: TableOptions = USUAL,
    whose: str = IN_TABLE,
    numbers: bool = False,
    streaming: bool = False,
) -> Manifest:
    """Read a manifest (AST's JSON), a table, a folder with one sub-folder per class, or a folder of shards.

    source: JSON `{"data": [{"wav": path, "labels": "mid,mid"}, ...]}`, which needs `labels`; or a table *.csv, *.tsv,
    *.txt or *.jsonl with a column of files and one of labels, rows of the same file being one clip; or a folder, of
    classes or of shards (`flexiast pack`); or WebDataset tars, a file or a folder of them; or `hf:NAME[:split]` or a
    parquet file (extra `data`); or any of these at an address (`remote_cache.as_local`). labels: table or CSV path; the
    default is the sub-folders of a folder, the distinct labels of a table or of tars, in order, or the table of the
    shards. root: where relative paths start (default: the manifest's folder; for tables also the folders about it).
    options: how a table is read. whose: where `labels` are from, for messages. numbers: of a table, columns of numbers
    to predict take the place of classes, and `labels` are their names. streaming: of parquet files or `hf:NAME[:split]`
    read no audio now, and later that of a clip when it is heard, see `pieces`. Raises DataError that names the file and
    the entry or line at fault, ConfigError for numbers from anything but a table.
    """
    source = Path(source)
    with contextlib.nullcontext(source) if streaming else as_local(source) as path:
        if numbers:
            read = _read_numbers(path, labels, root, options, streaming)
        else:
            table = Labels.read(labels) if isinstance(labels, Path) else labels
            read = _read(path, table, root, options, whose, streaming)
    return dataclasses.replace(read, source=Address(source) if is_address(source) else source)


def _read(
    source: Path, table: Labels | None, root: Path | None, options: TableOptions, whose: str, streaming: bool
) -> Manifest:
    """As `read_manifest`, of a local file or folder, or of a stream."""
    if streaming:
        return _labelled(source, *stream_labels(source, options.label_column), table, whose)
    if (source / INDEX).is_file():
        return _read_packed(source, table, whose)
    if is_dataset(source):
        return _read_tars(as_tars(source, options.label_column), table, whose)
    if tars_of(source):
        return _read_tars(source, table, whose)
    if source.is_dir():
        return _read_folder(source, table, options, whose)
    _require_file(source)
    if is_table(source):
        return _read_table(source, table, root, options, whose)
    if table is None:
        raise DataError(f"{source}: a manifest needs a label table (CSV with index, mid, display_name); none was given")
    entries, index = read_entries(source), table.index(with_names=False)
    lines = entries.first_lines.items()
    classes = [_classes(f"{source}, data[{number}]", _split(str(cell)), index, whose) for cell, number in lines]
    paths = _paths(source, entries, root, options)
    return Manifest(source, Clips(paths, Lists.of(classes).take(np.asarray(entries.numbers))), table)


def _paths(source: Path, entries: Rows, root: Path | None, options: PathOptions) -> Paths:
    """The paths of the clips of a JSON."""
    paths = in_folder(str(source.parent if root is None else root), entries.names)
    require_some(source, paths, options)
    return paths


def read_paths(source: Path, root: Path | None = None, options: PathOptions = ONLY_PATHS) -> list[Path | ShardMember]:
    """The files of the clips in a manifest, a table or a folder of shards, in order; their labels do not count.

    Raises DataError as `read_manifest`.
    """
    with as_local(source) as path:
        return _read_paths(path, root, options)


def _read_paths(source: Path, root: Path | None, options: PathOptions) -> list[Path | ShardMember]:
    if (source / INDEX).is_file():
        return [*read_shards(source).members]
    _require_file(source)
    if is_table(source):
        return [*locate(read_table(source, options), root, options)]
    return [*_paths(source, read_entries(source), root, options)]


def require_tables(options: PathOptions, *sources: Path) -> None:
    """Raise ConfigError if options for tables are given and none of the sources is a table."""
    given = options.given()
    if any(map(is_dataset, sources)):  # they have columns of labels too
        given = [name for name in given if name != options.flag("label_column")]
    if given and not any(is_table(source) and not os.path.isdir(source) for source in sources):
        beside = ", ".join(map(str, sources))
        raise ConfigError(f"{', '.join(given)}: found beside {beside}, expected a table of clips (CSV, TSV, JSONL)")


def distinct_labels(source: Path, options: TableOptions = USUAL) -> Labels:
    """The labels that a manifest, a table or a folder uses, sorted. Raises DataError as `read_manifest` does."""
    with as_local(source) as path:
        return _distinct_labels(path, options)


def _distinct_labels(source: Path, options: TableOptions) -> Labels:
    if (source / INDEX).is_file():
        return _read_packed(source, None).labels
    if is_dataset(source):
        return _read_tars(as_tars(source, options.label_column), None).labels
    if tars_of(source):
        return _read_tars(source, None).labels
    if source.is_dir():
        return Labels.of(name for name, files in read_class_folders(source, options).items() if files)
    _require_file(source)
    if is_table(source):
        return _labels_of(source, read_labels(read_table(source, options), options))
    return Labels.of(label for cell in read_entries(source).cells for label in _split(str(cell)))


def write_manifest(path: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write (wav path, comma-separated mids) pairs as a manifest JSON."""
    with open(path, "w", encoding="utf-8") as file:
        separator = '{"data": [\n'
        for wav, mids in entries:  # a line for each clip: as one text, millions of clips would fill the memory
            file.write(separator + to_json_text({"wav": wav, "labels": mids}))
            separator = ",\n"
        file.write('{"data": []}\n' if separator[0] == "{" else "\n]}\n")


def _require_file(source: Path) -> None:
    if not source.exists():
        raise DataError(f"{source}: not readable as a manifest (No such file or folder)")


def _split(label: str) -> list[str]:
    """The comma-separated labels of a clip in a JSON manifest; none if the text is empty."""
    return list(dict.fromkeys(composed(part.strip()) for part in label.split(","))) if label.strip() else []


def _classes(where: str, labels: Iterable[str], index: Mapping[str, int], whose: str) -> tuple[int, ...]:
    for label in labels:
        if label not in index:
            raise unknown_label(where, label, index, whose)
    return tuple(dict.fromkeys(index[label] for label in labels))


def _read_table(source: Path, labels: Labels | None, root: Path | None, options: TableOptions, whose: str) -> Manifest:
    table = read_table(source, options)
    logger.info("%s: %s", source, table.columns.description())
    for line in group_lines(table, options):
        logger.info("%s", line)
    index = labels.index() if labels else None
    cells = read_labels(table, options, index)
    if labels is None:
        labels = _labels_of(source, cells)
        report_twins(source, labels)
        report_numbers(source, labels)
        if len(labels) == 1 and () not in cells.values():
            raise DataError(f"{source}: found one label, {labels.mids[0]!r}, for every clip, expected at least two")
        index = labels.index()
    lines = table.rows.first_lines.items()
    classes = [_classes(f"{source}, line {line}", cells[cell], index or {}, whose) for cell, line in lines]
    paths = locate(table, root, options)
    return Manifest(
        source, _joined(source, Clips(paths, Lists.of(classes).take(np.asarray(table.rows.numbers)))), labels
    )


def _read_numbers(
    source: Path, labels: Labels | Path | None, root: Path | None, options: TableOptions, streaming: bool
) -> Manifest:
    """A table of clips with the numbers to predict, in the order of the labels if there are any."""
    if isinstance(labels, Path):
        raise ConfigError(f"labels: found {labels} beside numbers to predict, expected none: it is a table of classes")
    options = NumberOptions.of(options, () if labels is None else labels.names)
    if streaming:
        rows, names, values = stream_numbers(source, options.columns, options.flag("label_column"))
        return Manifest(source, _with_numbers(rows, values), labels or Labels(names, names))
    if is_dataset(source):
        tars, names, values = as_tars_with_numbers(source, options.columns, options.flag("label_column"))
        paths = Paths.of(sample.member for sample in read_webdataset(tars))
        return Manifest(source, _with_numbers(paths, values), labels or Labels(names, names))
    _require_file(source)
    if not is_table(source):
        raise ConfigError(
            f"{source}: found no table, expected a CSV, TSV, JSONL or parquet file of audio files and their numbers"
        )
    table = read_table(source, options)
    logger.info("%s: %s", source, table.columns.description())
    for line in group_lines(table, options):
        logger.info("%s", line)
    names = tuple(composed(table.columns.header[place].strip("\ufeff ")) for place in table.columns.labels)
    clips = _with_numbers(locate(table, root, options), read_numbers(table))
    return Manifest(source, _once(source, clips), labels or Labels(names, names))


def _with_numbers(paths: Paths, values: np.ndarray) -> Clips:
    return Clips(paths, Lists.of([()] * len(paths)), values)


def _once(source: Path, clips: Clips) -> Clips:
    """The clips, each file once. Raises DataError if two rows of a file have different numbers."""
    names, values = list(clips.paths.names), clips.values
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    if len(first) == len(names) or values is None:
        return clips
    for row, name in enumerate(names):
        if not np.array_equal(values[row], values[first[name]]):
            found = " and ".join(str(values[place].tolist()) for place in (first[name], row))
            raise DataError(f"{source}: found two rows of {name} with the numbers {found}, expected one row for a file")
    logger.info("%s: %d rows belong to %d clips, joined by file", source, len(names), len(first))
    return clips.take(np.array(sorted(first.values())))


def _labels_of(source: Path, cells: Mapping[Cell, tuple[str, ...]]) -> Labels:
    names = {label for labels in cells.values() for label in labels}
    if not names:
        raise DataError(f"{source}: found no labels, expected one in at least one line")
    return Labels.of(names)


def _joined(source: Path, clips: Clips) -> Clips:
    """The clips, with all rows of the same file joined into one clip."""
    names = clips.paths.names
    if len(set(names)) == len(names):
        return clips
    classes_of: dict[str, dict[int, None]] = {}
    for name, classes in zip(names, clips.classes, strict=True):
        classes_of.setdefault(name, {}).update(dict.fromkeys(classes))
    logger.info("%s: %d rows belong to %d clips, joined by file", source, len(names), len(classes_of))
    return Clips(Paths(Texts.of(list(classes_of))), Lists.of([*map(tuple, classes_of.values())]))


def _read_folder(folder: Path, labels: Labels | None, options: TableOptions, whose: str) -> Manifest:
    classes = read_class_folders(folder, options)
    check_classes(folder, classes, labels.index() if labels else None, whose)
    if labels is None:
        labels = Labels.of(classes)
        report_twins(folder, labels)
        classes = {name: classes[name] for name in labels.mids}
    index = labels.index()
    paths = Paths.of(file for files in classes.values() for file in files)
    own = Lists.of([(index[name],) for name, files in classes.items() if files])
    counts = [len(files) for files in classes.values() if files]
    return Manifest(folder, Clips(paths, own.take(np.repeat(np.arange(len(own)), counts))), labels)


def _read_packed(folder: Path, labels: Labels | None, whose: str = IN_TABLE) -> Manifest:
    shards = read_shards(folder)
    try:
        packed = Labels(shards.mids, shards.names)
    except DataError as error:
        raise DataError(f"{folder / INDEX}: {error}") from None
    labels = labels or packed
    index = {mid: i for i, mid in enumerate(labels.mids)}
    for c in {c for classes in shards.classes for c in classes}:
        if packed.mids[c] not in index:
            raise unknown_label(folder / INDEX, packed.mids[c], index, whose)
    classes = [tuple(index[packed.mids[c]] for c in own) for own in shards.classes]
    return Manifest(folder, Clips(Paths.of(shards.members), Lists.of(classes)), labels)


def _read_tars(source: Path, labels: Labels | None, whose: str = IN_TABLE) -> Manifest:
    samples = read_webdataset(source)
    return _labelled(source, Paths.of(member for member, _ in samples), [own for _, own in samples], labels, whose)


def _labelled(
    source: Path, paths: Paths, texts: Sequence[tuple[str, ...]], labels: Labels | None, whose: str
) -> Manifest:
    """Clips with the labels of each as texts."""
    labels = labels or Labels.of(label for own in texts for label in own)
    index = labels.index()
    if not any(label in index for own in texts for label in own):
        index |= {str(number): number for number in range(len(labels))}  # a .cls is the number of a class in the table
    of_texts: dict[tuple[str, ...], tuple[int, ...]] = {}
    for clip, own in enumerate(texts):
        if own not in of_texts:
            of_texts[own] = _classes(str(paths[clip]), own, index, whose)
    return Manifest(source, Clips(paths, Lists.of([of_texts[own] for own in texts])), labels)
