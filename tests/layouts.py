"""Miniatures of the six data sets in their real public layouts, of one-second sweeps that tell the classes apart.

Every function takes the folder to write to and the number of clips of each class in a split. With `broken` a few clips
are missing, empty or no audio; those are returned, by the name that the public list gives them, with their fault.
Six classes each; some files are stereo, some at 44.1 or 48 kHz, some flac, where the real ones can be.
"""

import csv
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
from scipy.signal import resample_poly

from flexiast.data.manifest import Manifest, read_manifest
from tests.scripts import script
from tests.sounds import CLASSES, SAMPLE_RATE, sweep

SWEEPS = tuple(CLASSES.values())
FAULTS = ("missing", "empty", "corrupt")
ESC50 = ("dog", "rooster", "pig", "cow", "frog", "cat")
"""The first six categories of ESC-50, targets 0 to 5."""
WORDS = ("bed", "cat", "down", "no", "up", "yes")
ARABIC = ("backward", "cancel", "direction", "five", "left", "zero")
SPEAKERS = tuple(f"id1{number:04d}" for number in (1, 2, 3, 270, 271, 309))
"""VoxCeleb1 speakers; those from id10270 to id10309 come with its test archive."""
AUDIOSET = {
    "/m/09x0r": "Speech",
    "/m/05zppz": "Male speech, man speaking",
    "/m/02zsn": "Female speech, woman speaking",
    "/m/0ytgt": "Child speech, kid speaking",
    "/m/01h8n0": "Conversation",
    "/m/02qldy": "Narration, monologue",
}
VGGSOUND = (
    "dog barking",
    "chicken crowing",
    "railroad car, train wagon",
    "people whispering",
    "playing electric guitar",
    "ocean burbling",
)


class _Writer:
    """Writes sounds of numbered classes; with `broken` the third, seventh and eleventh clip gets a fault instead."""

    def __init__(self, broken: bool, seed: int) -> None:
        self.rng, self.count, self.faults = np.random.default_rng(seed), itertools.count(), {}
        self.planned = dict(zip((2, 6, 10), FAULTS, strict=True)) if broken else {}

    def write(self, path: Path, name: str, classes: list[int], rate: int = SAMPLE_RATE, channels: int = 1) -> None:
        """The sum of the sweeps of these classes, for the clip that the public list calls `name`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = sum(sweep(*SWEEPS[number], self.rng) for number in classes)
        fault = self.planned.get(next(self.count))
        if fault:
            self.faults[name] = fault
        if fault == "empty":
            path.touch()
        elif fault == "corrupt":
            path.write_text("<html>This video is not available</html>")
        elif not fault:
            greatest = np.gcd(rate, SAMPLE_RATE)
            samples = resample_poly(samples, rate // greatest, SAMPLE_RATE // greatest)
            soundfile.write(path, np.stack([samples, 0.8 * samples][:channels], axis=1), rate)


def _write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows] if header else rows)


def write_esc50(root: Path, per_fold: int = 2, broken: bool = False, seed: int = 0) -> dict[str, str]:
    """ESC-50 as on GitHub: meta/esc50.csv and audio/FOLD-RECORDING-TAKE-TARGET.wav at 44.1 kHz.

    Every second clip of a class and fold is a second take of the recording before it.
    """
    writer, rows = _Writer(broken, seed), []
    for fold in range(1, 6):
        for target, category in enumerate(ESC50):
            for number in range(per_fold):
                recording, take = 100_000 + 1000 * fold + 100 * target + number // 2, "AB"[number % 2]
                name = f"{fold}-{recording}-{take}-{target}.wav"
                writer.write(root / "audio" / name, name, [target], 44_100, channels=1 + number % 2)
                rows.append([name, fold, target, category, target == 0, recording, take])
    header = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    _write_csv(root / "meta" / "esc50.csv", header, rows)
    (root / "README.md").write_text("ESC-50")
    return writer.faults


def write_speechcommands(
    root: Path, train: int = 4, val: int = 1, test: int = 1, broken: bool = False, seed: int = 0
) -> dict[str, str]:
    """Speech Commands V2: WORD/SPEAKER_nohash_N.wav, validation_list.txt, testing_list.txt, background noise.

    The faults fall on listed clips: a training clip that is missing could not be missed.
    """
    writer = _Writer(broken, seed)
    lists: dict[str, list[str]] = {"testing": [], "validation": [], "train": []}
    for split, clips in (("testing", test), ("validation", val), ("train", train)):
        for number, (target, word) in itertools.product(range(clips), enumerate(WORDS)):
            name = f"{word}/{len(split):02x}{number:06x}_nohash_{number % 2}.wav"
            writer.write(root / name, name, [target])
            lists[split].append(name)
    for split in ("testing", "validation"):
        (root / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in lists[split]))
    (root / "_background_noise_").mkdir()
    soundfile.write(root / "_background_noise_" / "pink_noise.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    (root / "README.md").write_text("Speech Commands")
    return writer.faults


def write_arabic_speech_commands(
    root: Path, train: int = 4, val: int = 1, test: int = 1, broken: bool = False, seed: int = 0
) -> dict[str, str]:
    """Arabic Speech Commands as on GitHub: a list per split, and dataset/WORD/SPEAKER_CONTRIBUTOR_TAKE.wav."""
    writer = _Writer(broken, seed)
    for speaker, (split, clips) in enumerate({"train": train, "val": val, "test": test}.items()):
        rows = []
        for number, (target, word) in itertools.product(range(clips), enumerate(ARABIC)):
            name = f"dataset/{word}/{speaker:08d}_NO_{number:02d}.wav"
            writer.write(root / name, name, [target])
            rows.append([name, word])
        _write_csv(root / f"{split}.csv", ["file", "class"], rows)
    return writer.faults


def write_voxceleb(
    root: Path, train: int = 4, val: int = 1, test: int = 1, broken: bool = False, seed: int = 0
) -> dict[str, str]:
    """VoxCeleb1: iden_split.txt, dev/wav/SPEAKER/VIDEO/NUMBER.wav and, for some speakers, test/wav/... ."""
    writer, lines = _Writer(broken, seed), []
    for target, speaker in enumerate(SPEAKERS):
        archive = "test" if "id10270" <= speaker <= "id10309" else "dev"
        splits = [1] * train + [2] * val + [3] * test
        for number, split in enumerate(splits, start=1):
            name = f"{speaker}/{'aZ-_09xYq8w'[target:]}{'k' * target}/{number:05d}.wav"
            writer.write(root / archive / "wav" / name, name, [target])
            lines.append(f"{split} {name}\n")
    (root / "iden_split.txt").write_text("".join(lines))
    return writer.faults


def _video(number: int) -> str:
    """A YouTube id, 11 characters; some begin with a hyphen or with Y."""
    return f"{'-Yab_'[number % 5]}{number:010x}"


def write_audioset(
    root: Path,
    balanced: int = 4,
    unbalanced: int = 4,
    evaluation: int = 2,
    broken: bool = False,
    seed: int = 0,
) -> dict[str, str]:
    """AudioSet: class_labels_indices.csv, the segment lists, and audio named and encoded as different people do.

    The clips of a class with the numbers 2, 5, ... are of two classes.
    """
    writer, numbers = _Writer(broken, seed), itertools.count(1)
    labels = [[index, *row] for index, row in enumerate(AUDIOSET.items())]
    _write_csv(root / "class_labels_indices.csv", ["index", "mid", "display_name"], labels)
    names = ("{v}.wav", "Y{v}.flac", "{v}_{s}.000_{e}.000.flac", "{v}_{s}_{e}.wav", "Y{v}_{ms}_{me}.wav")
    formats = itertools.cycle([(16_000, 1), (44_100, 2), (48_000, 2), (16_000, 2)])
    for split, clips in (("balanced_train", balanced), ("unbalanced_train", unbalanced), ("eval", evaluation)):
        lines = ["# Segments csv created in a test", f"# num_ytids={6 * clips}", "# YTID, start_seconds, ..."]
        for number, target in itertools.product(range(clips), range(6)):
            video, start, shard = _video(next(numbers)), 10 * number, f"{split}_segments/part{number % 2}"
            classes = [target, (target + 2) % 6][: 1 + (number % 3 == 2)]
            spans = {"s": start, "e": start + 10, "ms": 1000 * start, "me": 1000 * start + 10_000}
            name = names[(number + target) % 5].format(v=video, **spans)
            writer.write(root / "audio" / shard / name, video, classes, *next(formats))
            mids = ",".join(list(AUDIOSET)[c] for c in classes)
            lines.append(f'{video}, {start}.000, {start + 10}.000, "{mids}"')
        (root / f"{split}_segments.csv").write_text("\n".join(lines) + "\n")
    return writer.faults


def write_vggsound(root: Path, train: int = 6, test: int = 2, broken: bool = False, seed: int = 0) -> dict[str, str]:
    """VGGSound: vggsound.csv without a header, and audio named ID_START, the start of six digits, and otherwise."""
    writer, rows, numbers = _Writer(broken, seed), [], itertools.count(1000)
    names = ("{v}_{s:06d}.wav", "{v}_{s:06d}.flac", "{v}_{s}_{e}.wav", "{v}.wav")
    for split, clips in (("train", train), ("test", test)):
        for number, (target, label) in itertools.product(range(clips), enumerate(VGGSOUND)):
            video, start = _video(next(numbers)), 30 + number
            name = names[(number + target) % 4].format(v=video, s=start, e=start + 10)
            rate, channels = (44_100, 2) if number % 2 else (16_000, 1)
            writer.write(root / "audio" / split / name, f"{video}_{start:06d}", [target], rate, channels)
            rows.append([video, start, label, split])
    _write_csv(root / "vggsound.csv", [], rows)
    return writer.faults


def prepare_script(dataset: str) -> ModuleType:
    """egs/DATASET/prepare.py as a module."""
    return script(f"egs/{dataset}/prepare.py", f"prepare_{dataset}")


def run_prepare(dataset: str, *arguments: object) -> int:
    """Run egs/DATASET/prepare.py in this process; returns its exit code."""
    return prepare_script(dataset).main([str(argument) for argument in arguments])


def read_splits(folder: Path) -> dict[str, Manifest]:
    """The manifests that a script has written, by split."""
    names = [split for split in ("train", "val", "test") if (folder / f"{split}.json").exists()]
    return {split: read_manifest(folder / f"{split}.json", folder / "labels.csv") for split in names}


def read_missing(folder: Path) -> dict[str, str]:
    """Clips that a script has left out, and why."""
    with open(folder / "missing.csv", newline="", encoding="utf-8") as file:
        return {row["clip"]: row["reason"] for row in csv.DictReader(file)}
