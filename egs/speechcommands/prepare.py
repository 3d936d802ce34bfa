#!/usr/bin/env python3
"""Speech Commands V2 as people have it on disk to the manifests the trainer reads.

    python egs/speechcommands/prepare.py DATA_DIR OUT_DIR

DATA_DIR holds one folder per word, `validation_list.txt` and `testing_list.txt`; whatever is in neither list is
for training (the split of Warden, arXiv 1804.03209). OUT_DIR gets train.json, val.json, test.json and labels.csv.
"""

import argparse
import sys
from pathlib import Path

from flexiast.cli import guarded
from flexiast.data.manifest import read_manifest, write_manifest
from flexiast.errors import DataError


def read_list(path: Path) -> set[str]:
    """The lines `word/file.wav` of a split list."""
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a split list ({error})") from None


def prepare(data_dir: Path, out_dir: Path) -> dict[str, int]:
    """Write the manifests and the label table; returns the number of clips of each split.

    Raises DataError if the lists name files that are not there, or a split is empty.
    """
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder, expected Speech Commands with one folder per word")
    listed = {"val": read_list(data_dir / "validation_list.txt"), "test": read_list(data_dir / "testing_list.txt")}
    everything = read_manifest(data_dir)
    words = {
        clip.path.relative_to(data_dir).as_posix(): everything.labels.mids[clip.classes[0]] for clip in everything.clips
    }
    for split, names in listed.items():
        if missing := sorted(names - words.keys()):
            raise DataError(f"{data_dir}: {len(missing)} files of the {split} list are missing: {missing[0]}, ...")
    listed["train"] = words.keys() - listed["val"] - listed["test"]
    for split, names in listed.items():
        if not names:
            raise DataError(f"{data_dir}: found no clips for {split}")
    out_dir.mkdir(parents=True, exist_ok=True)
    everything.labels.write(out_dir / "labels.csv")
    for split, names in listed.items():
        write_manifest(out_dir / f"{split}.json", [(str((data_dir / n).resolve()), words[n]) for n in sorted(names)])
    return {split: len(names) for split, names in listed.items()}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description="Speech Commands V2 to manifests.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    options = parser.parse_args()
    return guarded(lambda: print(options.out_dir, prepare(options.data_dir, options.out_dir)))


if __name__ == "__main__":
    sys.exit(main())
