"""What the prepare scripts share: finding files, holding clips out, sorting out what is unusable."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flexiast.data.manifest import Labels, read_manifest
from flexiast.data.prepare.preparation import (
    Checks,
    Listed,
    find_audio,
    find_file,
    hold_out,
    index_audio,
    read_rows,
    usable_clips,
    write_all,
    write_folder,
)
from flexiast.data.youtube import youtube_stems
from flexiast.errors import ConfigError, DataError

# Finding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "a", "a/b"])
def test_file_is_found_up_to_two_folders_below(place, tmp_path):
    (tmp_path / place / "meta").mkdir(parents=True)
    (tmp_path / place / "meta" / "list.csv").touch()
    assert find_file(tmp_path, "meta/list.csv") == tmp_path / place / "meta" / "list.csv"
    with pytest.raises(DataError, match=f"^{tmp_path}: found no list.txt"):
        find_file(tmp_path, "list.txt")


def test_index_holds_audio_files_alone_and_survives_circles(tmp_path):
    for name in ("b/x.wav", "a/deep/x.flac", "c/y.1.MP3", "c/._z.wav", "c/z.txt", "other/linked.ogg"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "root" / "other").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "link")
    os.symlink(tmp_path / "root", tmp_path / "root" / "a" / "circle")
    expected = {"x": "a/deep/x.flac", "y.1": "c/y.1.MP3", "linked": "link/linked.ogg"}
    found = {stem: os.path.relpath(path, tmp_path / "root") for stem, path in index_audio(tmp_path / "root").items()}
    circle = os.path.join("a", "circle", "")
    assert {stem: path.removeprefix(circle) for stem, path in found.items()} == expected


@pytest.mark.parametrize(
    "stem",
    [
        "-Yb_45678YZ",
        "Y-Yb_45678YZ",
        "-Yb_45678YZ_30.000_40.000",
        "Y-Yb_45678YZ_30.000_40.000",
        "-Yb_45678YZ_30_40",
        "-Yb_45678YZ_30000_40000",
        "-Yb_45678YZ_000030_000040",
        "-Yb_45678YZ_000030",
        "-Yb_45678YZ_30",
        "-Yb_45678YZ_30.000",
    ],
)
def test_segment_is_found_under_its_usual_names(stem):
    assert find_audio({stem: "file", "-Yb_45678YZ_50_60": "other"}, youtube_stems("-Yb_45678YZ", 30.0, 40.0)) == "file"


def test_segment_is_not_another_of_the_same_video():
    index = {"abcdefghijk_000050": "other", "abcdefghijk_30_35": "other", "Ybcdefghijk": "other"}
    assert find_audio(index, youtube_stems("abcdefghijk", 30, 40)) is None
    assert find_audio(index, youtube_stems("bcdefghijk_", 30, 40)) is None
    # A name with the time goes before one without.
    assert (
        find_audio({"abcdefghijk": "bare", "abcdefghijk_30_40": "yes"}, youtube_stems("abcdefghijk", 30, 40)) == "yes"
    )
    assert find_audio({"abcdefghijk_1.5_11.5": "yes"}, youtube_stems("abcdefghijk", 1.5, 11.5)) == "yes"


def test_rows_come_with_line_numbers_without_comments(tmp_path):
    (tmp_path / "l.csv").write_text('# one, "two\n\na, 1.5 , "x,y"\n#\nb\n')
    assert list(read_rows(tmp_path / "l.csv")) == [(3, ["a", "1.5", "x,y"]), (5, ["b"])]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b'a,"b\n'], ids=["missing", "not UTF-8", "open quote"])
def test_unreadable_rows_are_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"l\.csv: not readable as a list of clips"):
        list(read_rows(tmp_path / "l.csv"))


# Choosing ------------------------------------------------------------------------------------------------------


def clips_of(counts: dict[str, int], split: str = "train", per_group: int = 1) -> list[Listed]:
    """So many clips of each class, so many of them from one recording."""
    return [
        Listed(split, f"{mid}{number}", (mid,), None, f"{mid}-{number // per_group}" if per_group > 1 else "")
        for mid, count in counts.items()
        for number in range(count)
    ]


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_held_out_share_comes_from_every_class(share):
    held = hold_out(clips_of({"a": 100, "b": 40, "c": 3, "d": 1}), share)
    counts = Counter(clip.mids[0] for clip in held if clip.split == "val")
    assert counts == {"a": 100 * share, "b": 40 * share, "c": 1}  # of c at least one; d's only clip is for training


def test_held_out_clips_are_always_the_same_and_spread():
    clips = clips_of({"a": 1000})
    held = {clip.name for clip in hold_out(clips, 0.1) if clip.split == "val"}
    again = {clip.name for clip in hold_out(clips[::-1], 0.1) if clip.split == "val"}
    assert held == again
    places = [int(name[1:]) for name in held]
    assert abs(np.mean(places) - 499.5) < 4 * 288.7 / 10  # uniform over 1000: std 288.7, of the mean of 100 a tenth


def test_recordings_stay_whole_and_other_splits_as_they_are():
    clips = clips_of({"a": 40, "b": 40}, per_group=4) + clips_of({"a": 5}, "test")
    held = hold_out(clips, 0.3)
    sides = {clip.group: set() for clip in clips if clip.group}
    for clip in held:
        if clip.group:
            sides[clip.group].add(clip.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert Counter(clip.split for clip in held) == {"train": 56, "val": 24, "test": 5}


def test_clip_of_several_classes_counts_for_the_rarest():
    clips = [*clips_of({"common": 100}), *(Listed("train", f"r{k}", ("common", "rare"), None) for k in range(4))]
    held = [clip for clip in hold_out(clips, 0.1) if clip.split == "val"]
    assert sum("rare" in clip.mids for clip in held) == 1


def test_no_share_changes_nothing_and_a_wrong_one_is_refused():
    clips = clips_of({"a": 5})
    assert hold_out(clips, 0.0) == clips
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="val share"):
            hold_out(clips, share)


# Checking and writing ------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path) -> list[Listed]:
    """One good clip and one with every fault."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    for name in ("good.wav", "cut.flac"):
        soundfile.write(tmp_path / name, noise, 16_000)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(tmp_path / "short.wav", noise[:399], 16_000)
    soundfile.write(tmp_path / "nan.wav", np.append(noise, np.nan), 16_000, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio" * 100)
    names = ("good.wav", "empty.wav", "gone.wav", "text.wav", "short.wav", "nan.wav", "cut.flac")
    return [Listed("train", name, ("a",), str(tmp_path / name)) for name in names] + [
        Listed("train", "unknown", ("a",), None)
    ]


@pytest.mark.parametrize(
    ("check", "found"),
    [
        ("size", {"empty.wav": "empty file", "gone.wav": "no file", "unknown": "no file"}),
        ("header", {"text.wav": "not readable as audio", "short.wav": "found 399 samples at 16000 Hz"}),
        ("decode", {"nan.wav": "found NaN", "cut.flac": "not readable as audio"}),
    ],
)
def test_each_check_finds_more(check, found, clips, tmp_path):
    usable, missing = usable_clips(clips, Checks(check, "skip"), tmp_path / "out")
    rows = [row for _, row in read_rows(tmp_path / "out" / "missing.csv")]
    assert rows[0] == ["split", "clip", "reason"]
    reasons = {clip: reason for _, clip, reason in rows[1:]}
    for name, reason in found.items():
        assert reasons[name].startswith(reason)
    assert len(reasons) == {"size": 3, "header": 5, "decode": 7}[check]
    assert {clip.name for clip in usable} == {clip.name for clip in clips} - reasons.keys()
    assert missing == {"train": len(reasons)}


def test_what_is_not_to_be_skipped_is_refused(clips, tmp_path):
    with pytest.raises(
        DataError, match=r"5 of 8 clips have no usable file: .*empty\.wav \(empty file\).*--missing skip"
    ):
        usable_clips(clips, Checks(), tmp_path / "out")
    with pytest.raises(DataError, match="7 of 7 clips have no usable file"):
        usable_clips(clips[1:], Checks("decode", "skip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_split_of_which_nothing_is_left_is_refused(clips, tmp_path):
    labels = Labels(("a",), ("A",))
    with pytest.raises(DataError, match="found no usable clips for test"):
        write_folder(tmp_path / "out", clips, labels, ("train", "test"))
    gone = dataclasses.replace(clips[2], split="val")
    with pytest.raises(DataError, match="found no usable clips for val"):
        write_all(tmp_path / "out", [*clips, gone], labels, Checks("size", "skip"))


def test_relative_paths_become_absolute(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = dataclasses.replace(clips[0], path="good.wav")
    report = write_all(Path("out"), [good], Labels(("a",), ("A",)), Checks())
    assert str(report) == "out: 1 classes; clips: train 1"
    assert read_manifest(tmp_path / "out" / "train.json", tmp_path / "out" / "labels.csv").clips[0].path.is_absolute()
