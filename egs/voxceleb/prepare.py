#!/usr/bin/env python3
"""Build training manifests from a copy of VoxCeleb1 on disk, for the identification of its 1,251 speakers.

    python egs/voxceleb/prepare.py DATA_DIR OUT_DIR [--split-list FILE]

DATA_DIR holds `iden_split.txt` (lines `1 id10001/1zcIwhmdeo4/00001.wav`; 1 train, 2 val, 3 test) and, up to three
folders below (`wav/`, `dev/wav/`, `test/wav/`, `vox1_dev_wav/wav/` ...), a folder for each speaker, as the archives
unpack (Nagrani, Chung, Zisserman, Interspeech 2017). OUT_DIR gets train.json, val.json, test.json, labels.csv and
missing.csv. The whole list has 138,361, 6,904 and 8,251 clips.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from flexiast.commands.guard import guarded
from flexiast.data.manifest import Labels
from flexiast.data.prepare.options import PrepareParser
from flexiast.data.prepare.preparation import Checks, Listed, Report, find_file, write_all
from flexiast.errors import DataError

SPLITS = {"1": "train", "2": "val", "3": "test"}
SPEAKER = re.compile(r"id1\d{4}")


def read_split_list(path: Path) -> list[tuple[str, str]]:
    """Split and name, `id10001/1zcIwhmdeo4/00001.wav`, of each clip."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a split list ({error})") from None
    clips = []
    for number, line in enumerate(lines, start=1):
        match line.split():
            case []:
                continue
            case [split, name] if split in SPLITS and SPEAKER.fullmatch(name.split("/")[0]):
                clips.append((SPLITS[split], name))
            case _:
                raise DataError(f"{path}, line {number}: found {line!r}, expected 1, 2 or 3 and id1xxxx/video/file.wav")
    if not clips:
        raise DataError(f"{path}: found no clips")
    return clips


def find_speakers(folder: Path, depth: int = 3) -> dict[str, list[Path]]:
    """The folders of each speaker, in `folder` or up to `depth` levels below, others' folders first come."""
    folders = defaultdict(list)
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        if SPEAKER.fullmatch(place.name):
            folders[place.name].append(place)
        elif depth:
            for speaker, places in find_speakers(place, depth - 1).items():
                folders[speaker] += places
    return folders


def prepare(data_dir: Path, out_dir: Path, checks: Checks, split_list: Path | None = None) -> Report:
    """Write the manifests and the label table. Raises DataError as `usable_clips` and `write_folder` do."""
    names = read_split_list(split_list or find_file(data_dir, "iden_split.txt"))
    speakers = find_speakers(data_dir)
    clips = []
    for split, name in names:
        speaker, _, rest = name.partition("/")
        files = (place / rest for place in speakers.get(speaker, ()))
        path = next((str(file) for file in files if file.exists()), None)
        clips.append(Listed(split, name, (speaker,), path))
    mids = tuple(sorted({clip.mids[0] for clip in clips}))
    return write_all(out_dir, clips, Labels(mids, mids), checks)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = PrepareParser(__doc__, missing="refuse")
    parser.add_argument("--split-list", type=Path, metavar="FILE", help="iden_split.txt, where not in DATA_DIR")
    options = parser.settle(argv)

    def run() -> None:
        data_dir, out_dir = parser.folders(options)
        print(prepare(data_dir, out_dir, options.checks, options.split_list))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
