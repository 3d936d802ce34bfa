#!/usr/bin/env python3
"""Build training manifests from a copy of Arabic Speech Commands on disk: 40 words, 30 speakers, clips of one second.

    python egs/arabic_speech_commands/prepare.py DATA_DIR OUT_DIR
    python egs/arabic_speech_commands/prepare.py --download [--data-root DIR] OUT_DIR

DATA_DIR (or a folder in it) holds `train.csv`, `val.csv`, `test.csv` (columns file, class) and the files they name, as
on GitHub (Ghandoura, Hjabo, Al Dakkak, Engineering Applications of Artificial Intelligence, 2021; CC BY 4.0). The split
by speaker is the official one. A file may have another extension than the list says, as in a re-encoded copy. OUT_DIR
gets train.json, val.json, test.json, labels.csv and missing.csv. --download fetches the archive to --data-root, or to
$FLEXIAST_DATA; no checksum is published, so the clips are counted.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from flexiast.commands.guard import guarded
from flexiast.data.labels import Labels
from flexiast.data.prepare.download import Archive
from flexiast.data.prepare.options import PrepareParser
from flexiast.data.prepare.preparation import SPLITS, Checks, Listed, Report, find_file, write_all
from flexiast.data.suffixes import AUDIO_SUFFIXES
from flexiast.errors import DataError

ARCHIVE = Archive(
    url="https://github.com/abdulkaderghandoura/arabic-speech-commands-dataset/archive/refs/heads/master.zip",
    file="arabic-speech-commands-dataset-master.zip",
    folder="arabic-speech-commands-dataset-master",
)
CLIPS = {"train": 7_200, "val": 2_400, "test": 2_400}
"""Clips of each official split."""


def read_list(path: Path, split: str) -> list[Listed]:
    """The clips of one split. Raises DataError if the list is not readable as one."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file", "class"} <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: found columns {reader.fieldnames}, expected file and class")
            return [Listed(split, row["file"], (row["class"],), locate(path.parent / row["file"])) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise DataError(f"{path}: not readable as a list of clips ({error})") from None


def locate(path: Path) -> str | None:
    """The file of this name, or one that differs in the extension only."""
    candidates = (path, *(path.with_suffix(suffix) for suffix in sorted(AUDIO_SUFFIXES)))
    return next((str(candidate) for candidate in candidates if candidate.is_file()), None)


def prepare(data_dir: Path, out_dir: Path, checks: Checks, expected: dict[str, int] | None = None) -> Report:
    """Write the manifests and the label table.

    expected: clips of each split. Raises DataError if there are other numbers of them, or as `write_all` does.
    """
    home = find_file(data_dir, "train.csv").parent
    clips = [clip for split in SPLITS for clip in read_list(home / f"{split}.csv", split)]
    counts = {split: sum(clip.split == split for clip in clips) for split in SPLITS}
    if expected is not None and counts != expected:
        raise DataError(f"{home}: found {counts} clips, expected {expected}; remove it to fetch it again")
    words = tuple(sorted({clip.mids[0] for clip in clips}))
    return write_all(out_dir, clips, Labels(words, words), checks)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="refuse", archive=ARCHIVE)
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        print(prepare(data_dir, out_dir, options.checks, CLIPS if options.download else None))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
