"""A data set: its labels, its splits and its clips."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..classifier.audio_classifier import AudioClassifier
from ..data.clips import Clip
from ..data.fingerprint import content_hash
from ..data.folders import read_class_folders, split_root
from ..data.labels import Labels, spelling_twins
from ..data.manifest import distinct_labels, read_manifest
from ..data.shards import INDEX, ShardMember
from ..data.split import source_groups
from ..data.survey import MOST_SURVEYED
from ..data.table_options import TableOptions
from ..data.webdataset import tars_of
from ..errors import DataError
from ..features import FeatureConfig
from .clips import clip_faults
from .finding import Examination, Finding, counted, quoted, removing, some
from .listen import listen

MOST_UNEVEN = 50
"""How many times as many clips as the smallest class the largest may have."""
FEW_WITH_SEVERAL = 0.02
"""Share of clips with several labels, or none, up to which they look like a mistake in a single-label data set."""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Where the splits of a data set are, and how they are read."""

    splits: dict[str, Path]
    """Manifest, table or folder of each split, `train` first."""
    labels: Path | None = None
    root: Path | None = None
    options: TableOptions = TableOptions()
    numbers: bool = False
    """Whether the labels are numbers to predict."""

    @classmethod
    def of(cls, data: Path, val: Path | None, test: Path | None, **how: object) -> DataSet:
        """The splits that were given; of a folder that holds the folders of splits, those."""
        splits = (split_root(data) if os.path.isdir(data) else None) or {"train": data}
        given = {name: path for name, path in (("val", val), ("test", test)) if path is not None}
        return cls(splits | given, **how)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A clip of a data set, its classes by name: splits may number them differently."""

    split: str
    path: Path | ShardMember
    classes: tuple[str, ...]


def examine_data(
    data: DataSet, model: AudioClassifier | None = None, workers: int = 0, progress: bool = True
) -> Examination:
    """What a data set is like, and what is wrong with it.

    model: one that is to be used on it; its window and statistics are compared. Of more than MOST_SURVEYED clips,
    an even selection is listened to; names and contents are compared of all.
    """
    subject = ", ".join(map(str, data.splits.values()))
    try:
        clips = [clip for name, path in data.splits.items() for clip in _listed(data, name, path)]
    except DataError as error:
        where, _, what = str(error).partition(": ")
        unreadable = Finding(
            "table-unreadable", "serious", what or str(error), where, "nothing can be learnt from it",
            f"flexiast doctor {quoted(next(iter(data.splits.values())))} --path-column NAME --label-column NAME; or"
            " what the message says",
        )  # fmt: skip
        return Examination(subject, {}, (unreadable,))
    chosen = [clips[i * len(clips) // min(len(clips), MOST_SURVEYED)] for i in range(min(len(clips), MOST_SURVEYED))]
    features = model.feature_config if model else FeatureConfig()
    seen = listen([clip.path for clip in chosen], features, workers, progress, subject)
    sizes = Counter(clip.split for clip in clips)
    facts = {name: f"{counted(count, 'clip')} ({data.splits[name]})" for name, count in sizes.items()}
    if not data.numbers:
        facts["classes"] = str(len({name for clip in clips for name in clip.classes}))
    facts["listened to"] = counted(len(chosen), "clip")
    findings = [*_empty_classes(data), *_label_faults(data, clips, model), *_split_faults(clips)]
    findings += clip_faults([(str(clip.path), clip.classes) for clip in chosen], seen, model)
    return Examination(subject, facts, tuple(findings))


def _listed(data: DataSet, split: str, source: Path) -> Iterator[Listed]:
    if data.numbers:
        manifest = read_manifest(source, data.labels, data.root, data.options, numbers=True)
        yield from (Listed(split, path, ()) for path in manifest.clips.paths)
        return
    labels = Labels.read(data.labels) if data.labels else distinct_labels(source, data.options)
    manifest = read_manifest(source, labels, data.root, data.options)
    for clip in manifest.clips:
        yield Listed(split, clip.path, tuple(manifest.labels.names[c] for c in clip.classes))


def _has_class_folders(source: Path) -> bool:
    """Whether a source is a folder with one sub-folder per class, not of shards or tars."""
    return os.path.isdir(source) and not (source / INDEX).is_file() and not tars_of(source)


def _empty_classes(data: DataSet) -> list[Finding]:
    empty = [
        folder / name
        for folder in data.splits.values()
        if _has_class_folders(folder)
        for name, files in read_class_folders(folder, data.options).items()
        if not files
    ]
    if not empty:
        return []
    return [
        Finding(
            "empty-class", "serious",
            f"{counted(len(empty), 'folder of a class', 'folders of classes')} without an audio file", some(empty),
            "a class cannot be learnt without clips",
            f"mv {quoted(empty[0])} {quoted(empty[0].with_name('_' + empty[0].name))}; the _ takes it out",
        )
    ]  # fmt: skip


# Labels ----------------------------------------------------------------------------------------------------------


def _label_faults(data: DataSet, clips: list[Listed], model: AudioClassifier | None) -> Iterator[Finding]:
    first = clips[0].split
    source = data.splits[first]
    counts = Counter(name for clip in clips if clip.split == first for name in clip.classes)
    for names in spelling_twins({name for clip in clips for name in clip.classes}):
        ordered = sorted(names, key=counts.__getitem__)
        split = next(clip.split for clip in clips if ordered[0] in clip.classes)
        yield Finding(
            "spelling-twins", "serious", f"{' and '.join(map(repr, sorted(names)))} are different classes", split,
            "one class learnt as two is confused with itself", _respelling(data.splits[split], ordered),
        )  # fmt: skip
    if len(counts) == 1 and all(clip.classes for clip in clips):
        yield Finding(
            "one-class", "serious", f"every clip is of the class {next(iter(counts))!r}", first,
            "there is nothing to tell apart",
            f"ls {quoted(source)}; expected one sub-folder per class" if _has_class_folders(source)
            else "--label-column NAME",
        )  # fmt: skip
    elif counts:
        yield from _balance(counts, first)
    several = [clip for clip in clips if len(clip.classes) != 1]
    if 0 < len(several) <= FEW_WITH_SEVERAL * len(clips):
        yield Finding(
            "few-with-several-labels", "warning", f"{len(several)} of {len(clips)} clips have several labels, or none",
            some([clip.path for clip in several]), "with them the loss is that of multi-label data",
            "--loss bce; if that is meant, else give them one label, or take them out",
        )  # fmt: skip
    trained = set(model.labels.names) | set(model.labels.mids) if model and not model.labels.numbered else None
    if trained is not None and (unknown := sorted(counts.keys() - trained)):
        yield Finding(
            "classes-of-another-model", "serious",
            f"the model does not know {len(unknown)} of the {len(counts)} classes",
            some(unknown), "it can neither be measured on these data nor name their classes",
            f"flexiast train --out exp/{quoted(source.stem)} --data.train {quoted(source)} --model.init {_name(model)}",
        )  # fmt: skip
    known = set(counts)
    for split in dict.fromkeys(clip.split for clip in clips):
        new = sorted({name for clip in clips if clip.split == split for name in clip.classes} - known)
        if new:
            yield Finding(
                "classes-not-in-train", "serious",
                f"{split} has {counted(len(new), 'class', 'classes')} that {first} does not have", some(new),
                "they can never be recognised",
                f"--data.val 0.2; with all clips in --data.train, or add clips of them to {first}",
            )  # fmt: skip


def _respelling(source: Path, names: list[str]) -> str:
    """What makes one class of those that differ in spelling. names: the most frequent one last."""
    if not _has_class_folders(source):
        return f"flexiast doctor {quoted(source)}; once they are spelled alike in it"
    return f"mv {quoted(source / names[0])}/* {quoted(source / names[-1])}/; then remove the empty folder"


def _name(model: AudioClassifier | None) -> str:
    """Where a model was loaded from, as a word of a shell command."""
    return quoted(model.load_report.source) if model and model.load_report else "MODEL"


def _balance(counts: Counter[str], split: str) -> Iterator[Finding]:
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    single = sorted(name for name, count in counts.items() if count == 1)
    if single:
        yield Finding(
            "class-of-one-clip", "warning",
            f"{counted(len(single), 'class has', 'classes have')} a single clip in {split}", some(single),
            "no clip of them is left for validation", "--data.val val.csv; a table of clips of theirs, or add clips",
        )  # fmt: skip
    elif many > MOST_UNEVEN * few:
        yield Finding(
            "unbalanced", "warning", f"{most!r} has {many} clips, {least!r} has {few}", split,
            "accuracy hides how badly rare classes do", "--data.sampling balanced; and look at mAP",
        )  # fmt: skip


# Splits ----------------------------------------------------------------------------------------------------------


def _split_faults(clips: list[Listed]) -> Iterator[Finding]:
    yield from _duplicates(clips)
    numbers = {name: number for number, name in enumerate(sorted({n for clip in clips for n in clip.classes}))}
    how, groups = source_groups([Clip(clip.path, tuple(map(numbers.__getitem__, clip.classes))) for clip in clips])
    if groups is None or len({clip.split for clip in clips}) < 2:
        return
    splits: dict[str, set[str]] = defaultdict(set)
    for group, clip in zip(groups, clips, strict=True):
        splits[group].add(clip.split)
    both = sorted(group for group, names in splits.items() if len(names) > 1)
    if both:
        yield Finding(
            "source-in-two-splits", "serious",
            f"{len(both)} of {len(splits)} speakers or recordings are in more than one split, going by the {how}",
            some(both), "scores on clips of a known speaker or recording are too good",
            "--data.val 0.2; with all clips in --data.train, it splits off whole sources",
        )  # fmt: skip


def _duplicates(clips: list[Listed]) -> Iterator[Finding]:
    alike: dict[bytes, list[Listed]] = defaultdict(list)
    for clip in clips:
        digest = content_hash(clip.path)
        if digest != b"missing":
            alike[digest].append(clip)
    kinds: dict[str, list[list[Listed]]] = defaultdict(list)
    for group in alike.values():
        if len(group) > 1:
            kinds[_kind_of(group)].append(group)
    for kind, severity, one, many, why in (
        ("duplicates-between-splits", "serious", "sound is in more than one split", "sounds are in more than one split",
         "a model is then tested on what it was trained on"),
        ("duplicates-with-other-labels", "serious", "sound has different labels", "sounds have different labels",
         "the model is taught two answers to one question"),
        ("duplicates", "warning", "sound is there more than once", "sounds are there more than once",
         "they count more than others, and a split that is taken out of them shares them"),
    ):  # fmt: skip
        if groups := kinds[kind]:
            where = some([" = ".join(str(clip.path) for clip in group[:3]) for group in groups], 2)
            spare = [p for group in groups for p in dict.fromkeys(c.path for c in group[1:]) if p != group[0].path]
            mend = removing(spare) + "; or keep these and remove the others" if spare else _LIST_ONCE
            yield Finding(kind, severity, counted(len(groups), one, many), where, why, mend)  # type: ignore[arg-type]


_LIST_ONCE = "--data.val 0.2; the same files are listed twice: list each once, in --data.train"


def _kind_of(group: list[Listed]) -> str:
    """The kind of finding that clips with the same content are."""
    if len({clip.split for clip in group}) > 1:
        return "duplicates-between-splits"
    return "duplicates-with-other-labels" if len({clip.classes for clip in group}) > 1 else "duplicates"
