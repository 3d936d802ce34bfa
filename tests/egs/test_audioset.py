"""AudioSet in its public layout to manifests: several labels, file names of all kinds, missing and held-out clips."""

from pathlib import Path

import pytest

from flexiast.data.manifest import Manifest
from tests.layouts import AUDIOSET, read_missing, read_splits, run_prepare, write_audioset

MIDS = list(AUDIOSET)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audioset")
    write_audioset(root)
    return root


def listed(data: Path, name: str) -> dict[str, set[str]]:
    """Labels of each video of a segment list, read in another way than the script does."""
    lines = [line for line in (data / f"{name}_segments.csv").read_text().splitlines() if not line.startswith("#")]
    return {line[:11]: set(line.split('"')[1].split(",")) for line in lines}


def labelled(manifest: Manifest, known: dict[str, set[str]]) -> dict[str, set[str]]:
    """Labels of each video of a manifest, told by the file names."""
    found = {}
    for clip in manifest.clips:
        (video,) = [v for v in known if v in (clip.path.stem[:11], clip.path.stem[1:12])]
        found[video] = {manifest.labels.mids[c] for c in clip.classes}
    return found


def test_every_clip_is_found_with_its_labels(data: Path, tmp_path: Path) -> None:
    assert run_prepare("audioset", data, tmp_path) == 0
    splits = read_splits(tmp_path)
    balanced, evaluation = listed(data, "balanced_train"), listed(data, "eval")
    train, val = (labelled(splits[split], balanced) for split in ("train", "val"))
    assert not train.keys() & val.keys()
    assert train | val == balanced
    assert labelled(splits["test"], evaluation) == evaluation
    assert any(len(mids) == 2 for mids in balanced.values())
    assert splits["test"].labels.mids == tuple(MIDS)
    assert splits["test"].labels.names == tuple(AUDIOSET.values())
    assert {clip.path.suffix for clip in splits["train"].clips} == {".wav", ".flac"}
    assert set().union(*val.values()) == set(MIDS)  # every class can be validated


def test_full_set_is_both_training_lists(data: Path, tmp_path: Path) -> None:
    assert run_prepare("audioset", data, tmp_path, "--set", "full", "--val-share", 0.25) == 0
    splits = read_splits(tmp_path)
    expected = listed(data, "balanced_train") | listed(data, "unbalanced_train")
    assert labelled(splits["train"], expected) | labelled(splits["val"], expected) == expected
    assert len(splits["val"]) == pytest.approx(0.25 * len(expected), abs=3)  # rounded in each class
    assert len(splits["test"]) == 12


def test_published_training_set_has_no_validation_clips(data: Path, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text("of an earlier run")
    assert run_prepare("audioset", data, tmp_path, "--val-share", 0) == 0
    assert {split: len(manifest) for split, manifest in read_splits(tmp_path).items()} == {"train": 24, "test": 12}


def test_held_out_clips_do_not_depend_on_what_is_missing(data: Path, tmp_path: Path) -> None:
    def held_out(folder: Path, out: Path) -> set[str]:
        assert run_prepare("audioset", folder, out, "--lists", data, "--val-share", 0.4) == 0
        return {clip.path.name for clip in read_splits(out)["val"].clips}

    everything = held_out(data, tmp_path / "one")
    some = tmp_path / "some"
    for number, path in enumerate(sorted((data / "audio").rglob("*.*"))):
        if number % 3:
            (some / path.parent.name).mkdir(parents=True, exist_ok=True)
            (some / path.parent.name / path.name).symlink_to(path)
    remaining = {path.name for path in some.rglob("*.*")}
    assert held_out(some, tmp_path / "two") == everything & remaining


def test_faults_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faults = write_audioset(tmp_path / "data", broken=True)
    assert run_prepare("audioset", tmp_path / "data", tmp_path / "out", "--val-share", 0) == 0
    assert "clips: train 21, test 12; left out: train 3 (missing.csv)" in capsys.readouterr().out
    missing = read_missing(tmp_path / "out")
    assert missing.keys() == faults.keys()
    reasons = {"missing": "no file", "empty": "empty file", "corrupt": "not readable as audio"}
    assert all(missing[name].startswith(reasons[fault]) for name, fault in faults.items())
    # Without a look into the files the corrupt one goes unnoticed.
    assert run_prepare("audioset", tmp_path / "data", tmp_path / "out", "--check", "size") == 0
    assert set(read_missing(tmp_path / "out")) == {name for name, fault in faults.items() if fault != "corrupt"}


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("balanced_train", 'abcdefghijk, 0.000, 10.000, "/m/09x0r,/m/unknown"', "line 4: unknown label '/m/unknown'"),
        ("eval", "abcdefghijk, 0.000, 10.000", "line 4: found ['abcdefghijk', '0.000', '10.000']"),
        ("eval", 'abcdefghijk, zero, 10.000, "/m/09x0r"', "line 4: found"),
        ("eval", "abcdefghijk, 0.000, 10.000, /m/09x0r,/m/02zsn", "line 4: found"),
    ],
)
def test_a_wrong_line_is_named(
    name: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_audioset(tmp_path, balanced=1, unbalanced=0, evaluation=1)
    table = tmp_path / f"{name}_segments.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], line, *lines[3:]]))
    assert run_prepare("audioset", tmp_path, tmp_path / "out") == 2
    assert f"{table}, {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["class_labels_indices.csv", "balanced_train_segments.csv", "unbalanced_train_segments.csv"]
)
def test_a_missing_list_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_audioset(tmp_path, balanced=1, unbalanced=1, evaluation=1)
    (tmp_path / name).unlink()
    assert run_prepare("audioset", tmp_path, tmp_path / "out", "--set", "full") == 2
    assert f"{tmp_path}: found no {name}" in capsys.readouterr().err


def test_a_folder_without_any_of_the_audio_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run_prepare("audioset", tmp_path, tmp_path / "out", "--lists", data) == 2
    assert "36 of 36 clips have no usable file" in capsys.readouterr().err
