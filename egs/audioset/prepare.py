#!/usr/bin/env python3
"""Build training manifests from a copy of AudioSet on disk.

    python egs/audioset/prepare.py DATA_DIR OUT_DIR [--set balanced|full] [--lists DIR] [--val-share X]

DATA_DIR holds the audio, wav or flac, in any folders below it, by YouTube id (`ID`, `YID`, `ID_30.000_40.000`,
`ID_30000_40000`, `ID_000030`, ...), and, there or in --lists, the public `class_labels_indices.csv` of 527 classes and
the segment lists `balanced_train_segments.csv`, `unbalanced_train_segments.csv` (only for --set full) and
`eval_segments.csv` (Gemmeke et al., ICASSP 2017). Many videos are gone: clips without a file are left out, counted,
and listed in missing.csv.

OUT_DIR gets train.json, val.json, test.json, labels.csv and missing.csv. The test set is AudioSet's evaluation set.
The published recipes validate on it; here a share of the training clips is held out for that, from every class, always
the same: 10 % of the balanced set, 0.5 % of the full one. --val-share 0 trains on all clips, as published, without
val.json. Released models have been trained on all of them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from flexiast.commands.guard import guarded
from flexiast.data.manifest import Labels
from flexiast.data.prepare.options import PrepareParser
from flexiast.data.prepare.preparation import (
    Checks,
    Listed,
    Report,
    find_audio,
    find_file,
    hold_out,
    index_audio,
    read_rows,
    write_all,
)
from flexiast.data.youtube import youtube_stems
from flexiast.errors import DataError

SETS = {
    "balanced": ["balanced_train_segments.csv"],
    "full": ["balanced_train_segments.csv", "unbalanced_train_segments.csv"],
}
VAL_SHARE = {"balanced": 0.1, "full": 0.005}


def read_segments(path: Path, split: str, labels: Labels, index: dict[str, str]) -> list[Listed]:
    """The clips of a segment list: rows `YTID, start, end, "mid,mid"` below lines that begin with #."""
    known = set(labels.mids)
    clips = []
    for line, cells in read_rows(path):
        try:
            video, start, end, mids = (
                cells[0],
                float(cells[1]),
                float(cells[2]),
                tuple(mid.strip() for mid in cells[3].split(",")),
            )
            if len(cells) != 4:
                raise ValueError
        except (IndexError, ValueError):
            raise DataError(
                f'{path}, line {line}: found {cells}, expected a YouTube id, start, end and "mid,mid"'
            ) from None
        if unknown := sorted(set(mids) - known):
            raise DataError(
                f"{path}, line {line}: unknown label {unknown[0]!r}, expected one of the {len(known)} classes"
            )
        clips.append(Listed(split, video, mids, find_audio(index, youtube_stems(video, start, end))))
    return clips


def prepare(
    data_dir: Path,
    out_dir: Path,
    checks: Checks,
    subset: str = "balanced",
    val_share: float | None = None,
    lists: Path | None = None,
) -> Report:
    """Write the manifests and the label table. Raises DataError as `usable_clips` and `write_folder` do."""
    lists = lists or data_dir
    files = {name: find_file(lists, name) for name in ("class_labels_indices.csv", *SETS[subset], "eval_segments.csv")}
    labels = Labels.read(files["class_labels_indices.csv"])
    index = index_audio(data_dir)
    clips = []
    for name in (*SETS[subset], "eval_segments.csv"):
        clips += read_segments(files[name], "test" if name == "eval_segments.csv" else "train", labels, index)
    share = VAL_SHARE[subset] if val_share is None else val_share
    return write_all(out_dir, hold_out(clips, share), labels, checks)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="skip", val_share="0.1 of the balanced set, 0.005 of the full one")
    parser.add_argument("--set", choices=SETS, default="balanced", help="training set (default: balanced)")
    parser.add_argument("--lists", type=Path, metavar="DIR", help="where the lists are (default: DATA_DIR)")
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        print(prepare(data_dir, out_dir, options.checks, options.set, options.val_share, options.lists))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
