#!/usr/bin/env python3
"""Build training manifests from a copy of ESC-50 on disk, in one folder for each of the five folds.

    python egs/esc50/prepare.py DATA_DIR OUT_DIR [--fold K]... [--val-share X]
    python egs/esc50/prepare.py --download [--data-root DIR] OUT_DIR

DATA_DIR (or a folder in it) holds `meta/esc50.csv` and `audio/*.wav`, as on GitHub (Piczak, ACM MM 2015). OUT_DIR gets
fold1 ... fold5 with train.json, test.json and labels.csv each, and missing.csv; in foldK fold K is the test set.

The published protocol has no validation set: it trains on all of the other four folds and reports the last epoch,
averaged over the five folds. So there is no val.json, unless --val-share takes a share of each class out of train.json
for it, whole recordings at a time. Models are not to be chosen on the test fold.
--download fetches 650 MB to --data-root, or to $FLEXIAST_DATA; GitHub publishes no checksum, so the clips are counted.
"""

import csv
import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flexiast.commands.guard import guarded
from flexiast.data.manifest import Labels
from flexiast.data.prepare.download import Archive
from flexiast.data.prepare.options import PrepareParser
from flexiast.data.prepare.preparation import Checks, Listed, Report, find_file, hold_out, usable_clips, write_folder
from flexiast.errors import DataError

ARCHIVE = Archive(
    url="https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip",
    file="ESC-50-master.zip",
    folder="ESC-50-master",
)
FOLDS = (1, 2, 3, 4, 5)
CLIPS_PER_FOLD = 400


def read_meta(path: Path) -> tuple[list[Listed], Labels]:
    """The clips, with their fold (`fold1` ...) for a split, and the classes in the order of their target number."""
    clips: list[Listed] = []
    categories: dict[int, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in (reader := csv.DictReader(file)):
                try:
                    name, category, fold = row["filename"], row["category"], FOLDS.index(int(row["fold"])) + 1
                    if categories.setdefault(int(row["target"]), category) != category:
                        raise ValueError
                    audio = str(path.parent.parent / "audio" / name)
                    clips.append(Listed(f"fold{fold}", name, (category,), audio, row["src_file"]))
                except (KeyError, TypeError, ValueError):
                    raise DataError(
                        f"{path}, line {reader.line_num}: found {row}, expected filename, fold (1 to 5), target,"
                        " category (one for each target) and src_file"
                    ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a list of clips ({error})") from None
    names = tuple(categories[target] for target in sorted(categories))
    return clips, Labels(names, tuple(name.replace("_", " ") for name in names))


def prepare(
    data_dir: Path,
    out_dir: Path,
    checks: Checks,
    test_folds: Sequence[int] = FOLDS,
    val_share: float = 0.0,
    clips_per_fold: int | None = None,
) -> list[Report]:
    """Write a folder for each fold to be tested on. Raises DataError as `usable_clips` and `write_folder` do, and if
    the folds do not have `clips_per_fold` clips each."""
    meta = find_file(data_dir, "meta/esc50.csv")
    listed, labels = read_meta(meta)
    counts = Counter(clip.split for clip in listed)
    if clips_per_fold is not None and counts != {f"fold{fold}": clips_per_fold for fold in FOLDS}:
        raise DataError(f"{meta}: found folds {dict(counts)}, expected {clips_per_fold} clips in each of five")
    usable, _ = usable_clips(listed, checks, out_dir)
    names, reports = {clip.name for clip in usable}, []
    for fold in test_folds:
        clips = [dataclasses.replace(c, split="test" if c.split == f"fold{fold}" else "train") for c in listed]
        clips = hold_out(clips, val_share)
        splits = ("train", "val", "test") if val_share else ("train", "test")
        report = write_folder(out_dir / f"fold{fold}", [c for c in clips if c.name in names], labels, splits)
        missing = Counter(c.split for c in clips if c.name not in names)
        reports.append(dataclasses.replace(report, missing=missing))
    return reports


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="refuse", val_share="0", archive=ARCHIVE)
    parser.add_argument(
        "--fold", type=int, choices=FOLDS, action="append", help="fold to hold out as test set (default: each)"
    )
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        expected = CLIPS_PER_FOLD if options.download else None
        folds = options.fold or FOLDS
        for report in prepare(data_dir, out_dir, options.checks, folds, options.val_share or 0.0, expected):
            print(report)

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
