"""A validation split: a share, every class on both sides, no source on both sides, the same every time."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from flexiast.data.manifest import Clip, Labels, Manifest
from flexiast.data.split import source_groups, split_off
from flexiast.errors import ConfigError


def manifest(names: list[str]) -> Manifest:
    """Clips called CLASS/NAME; classes in order of appearance."""
    classes = list(dict.fromkeys(name.split("/")[0] for name in names))
    clips = tuple(Clip(Path(name), (classes.index(name.split("/")[0]),)) for name in names)
    return Manifest(Path("data"), clips, Labels(tuple(classes), tuple(classes)))


NUMBERED = [f"{word}/{number}.wav" for word in ("yes", "no") for number in range(20)]
SPEAKERS = [f"{word}/{s:04d}_NO_{take:02d}.wav" for word in ("yes", "no") for s in range(10) for take in range(3)]
FOLDS = [f"{c}/{fold}-{c}{n}-A-{c}.wav" for c in ("dog", "cat") for fold in range(1, 6) for n in range(4)]
FOLDERS = [f"{word}/s{s}/{take}.wav" for word in ("yes", "no") for s in range(8) for take in range(4)]


def test_a_share_of_every_class_goes() -> None:
    split = split_off(manifest(NUMBERED), 0.2)
    assert (len(split.train), len(split.val)) == (32, 8)
    assert Counter(clip.classes for clip in split.val.clips) == {(0,): 4, (1,): 4}
    assert {c.path for c in split.train.clips} | {c.path for c in split.val.clips} == {Path(n) for n in NUMBERED}
    assert split.grouped_by == "each clip by itself"


@pytest.mark.parametrize(
    ("names", "rule", "source"),
    [
        (SPEAKERS, "first part of the name", lambda path: path.name.split("_")[0]),
        (FOLDS, "first part of the name", lambda path: path.name.split("-")[0]),
        (FOLDERS, "folder", lambda path: path.parent.name),
    ],
)
def test_no_speaker_fold_or_folder_is_on_both_sides(names, rule, source) -> None:
    split = split_off(manifest(names), 0.2)
    assert split.grouped_by == rule
    sides = [{source(clip.path) for clip in side.clips} for side in (split.train, split.val)]
    assert not sides[0] & sides[1]
    assert {clip.classes for clip in split.val.clips} == {(0,), (1,)}
    assert len(split.val) == pytest.approx(0.2 * len(names), abs=0.1 * len(names))


@pytest.mark.parametrize(
    "names",
    [
        NUMBERED,
        [f"{c}/{c}_{n:03d}.wav" for c in ("dog", "cat") for n in range(20)],
        [f"{c}/{n}.wav" for c in "abcdef" for n in range(6)],  # small folders of classes are no recordings
    ],
)
def test_numbers_and_class_names_tell_no_source(names: list[str]) -> None:
    assert source_groups(manifest(names).clips) == ("each clip by itself", None)


def test_the_same_seed_gives_the_same_split_and_another_one_another() -> None:
    data = manifest(NUMBERED)
    assert split_off(data, 0.2, seed=1) == split_off(data, 0.2, seed=1)
    assert split_off(data, 0.2, seed=1).val != split_off(data, 0.2, seed=2).val


def test_clips_of_several_classes_or_none_are_balanced_by_their_rarest() -> None:
    data = manifest(NUMBERED)
    clips = tuple(dataclasses.replace(c, classes=((), (0, 1), c.classes)[i % 3]) for i, c in enumerate(data.clips))
    split = split_off(dataclasses.replace(data, clips=clips), 0.25)
    assert sum(not clip.classes for clip in split.val.clips) in (3, 4)


def test_a_class_of_one_clip_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="class 'maybe' has 1 clip, expected at least 2"):
        split_off(manifest([*NUMBERED, "maybe/0.wav"]), 0.2)
