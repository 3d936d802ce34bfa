#!/usr/bin/env python3
"""Build training manifests from a copy of VGGSound on disk.

    python egs/vggsound/prepare.py DATA_DIR OUT_DIR [--lists DIR] [--val-share X]

DATA_DIR holds the audio, wav or flac, in any folders below it, by YouTube id and start (`ID_000030`, `ID_30_40`,
`ID_30.000_40.000`, `ID`, ...), and, there or in --lists, the public `vggsound.csv`: rows `ID,30,"class, name",train`
of 309 classes (Chen et al., ICASSP 2020). Many videos are gone: clips without a file are left out, counted, and listed
in missing.csv.

OUT_DIR gets train.json, val.json, test.json, labels.csv (classes in alphabetical order) and missing.csv. There is no
public validation set: 2 % of the training clips of every class are held out for it, always the same. --val-share 0
trains on all clips, as published, without val.json.
"""

import re
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

SECONDS = 10
"""Length of a clip."""
VAL_SHARE = 0.02


def mid(name: str) -> str:
    """A machine id for a class: its name without the commas, which set the labels of a manifest apart."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def read_clips(path: Path, index: dict[str, str]) -> tuple[list[Listed], Labels]:
    """The clips of vggsound.csv and its classes."""
    clips, names = [], set()
    for line, cells in read_rows(path):
        if len(cells) != 4 or not cells[1].isdecimal() or not mid(cells[2]) or cells[3] not in ("train", "test"):
            raise DataError(
                f"{path}, line {line}: found {cells}, expected a YouTube id, start, class, and train or test"
            )
        video, start, name, split = cells[0], int(cells[1]), cells[2], cells[3]
        names.add(name)
        audio = find_audio(index, youtube_stems(video, start, start + SECONDS))
        clips.append(Listed(split, f"{video}_{start:06d}", (mid(name),), audio, video))
    if not clips:
        raise DataError(f"{path}: found no clips")
    ordered = tuple(sorted(names))
    return clips, Labels(tuple(map(mid, ordered)), ordered)


def prepare(
    data_dir: Path,
    out_dir: Path,
    checks: Checks,
    val_share: float | None = None,
    lists: Path | None = None,
) -> Report:
    """Write the manifests and the label table. Raises DataError as `usable_clips` and `write_folder` do."""
    table = find_file(lists or data_dir, "vggsound.csv")
    clips, labels = read_clips(table, index_audio(data_dir))
    return write_all(out_dir, hold_out(clips, VAL_SHARE if val_share is None else val_share), labels, checks)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="skip", val_share=f"{VAL_SHARE}")
    parser.add_argument("--lists", type=Path, metavar="DIR", help="where vggsound.csv is (default: DATA_DIR)")
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        print(prepare(data_dir, out_dir, options.checks, options.val_share, options.lists))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
