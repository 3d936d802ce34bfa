#!/usr/bin/env python3
"""Build training manifests from a copy of Speech Commands V2 on disk: 35 words.

    python egs/speechcommands/prepare.py DATA_DIR OUT_DIR
    python egs/speechcommands/prepare.py --download [--data-root DIR] OUT_DIR

DATA_DIR (or a folder in it) holds one folder per word, `validation_list.txt` and `testing_list.txt`; whatever is in
neither list is for training (the split of Warden, arXiv 1804.03209). OUT_DIR gets train.json, val.json, test.json,
labels.csv and missing.csv. --download fetches 2.4 GB to --data-root, or to $FLEXIAST_DATA.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from flexiast.commands.guard import guarded
from flexiast.data.manifest import read_manifest
from flexiast.data.prepare.download import Archive
from flexiast.data.prepare.options import PrepareParser
from flexiast.data.prepare.preparation import Checks, Listed, Report, find_file, write_all
from flexiast.errors import DataError

ARCHIVE = Archive(
    url="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    file="speech_commands_v0.02.tar.gz",
    folder="speech_commands_v0.02",
    size=2_428_923_189,  # size and checksum as in TensorFlow Datasets, the checksum also in torchaudio
    sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)


def read_list(path: Path) -> set[str]:
    """The lines `word/file.wav` of a split list."""
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a split list ({error})") from None


def prepare(data_dir: Path, out_dir: Path, checks: Checks) -> Report:
    """Write the manifests and the label table. Raises DataError as `usable_clips` and `write_folder` do."""
    home = find_file(data_dir, "validation_list.txt").parent
    listed = {"val": read_list(home / "validation_list.txt"), "test": read_list(home / "testing_list.txt")}
    everything = read_manifest(home)
    words = {Path(str(clip.path)).relative_to(home).as_posix() for clip in everything.clips}
    listed["train"] = words - listed["val"] - listed["test"]
    clips = [
        Listed(split, name, (name.split("/")[0],), str(home / name))
        for split, names in listed.items()
        for name in sorted(names)
    ]
    return write_all(out_dir, clips, everything.labels, checks)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="refuse", archive=ARCHIVE)
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        print(prepare(data_dir, out_dir, options.checks))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
