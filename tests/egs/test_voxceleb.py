"""VoxCeleb1 identification in its public layout to manifests."""

from pathlib import Path

import pytest

from tests.layouts import SPEAKERS, read_missing, read_splits, run_prepare, write_voxceleb


def test_list_makes_the_splits(tmp_path: Path) -> None:
    write_voxceleb(tmp_path / "data", train=3, val=2, test=1)
    assert run_prepare("voxceleb", tmp_path / "data", tmp_path / "out") == 0
    splits = read_splits(tmp_path / "out")
    assert {split: len(manifest) for split, manifest in splits.items()} == {"train": 18, "val": 12, "test": 6}
    found = set()
    for code, manifest in enumerate(splits.values(), start=1):
        assert manifest.labels.mids == SPEAKERS
        for clip in manifest.clips:
            assert clip.path.exists()
            speaker, video, file = clip.path.parts[-3:]
            assert SPEAKERS[clip.classes[0]] == speaker
            found.add(f"{code} {speaker}/{video}/{file}")
    assert found == set((tmp_path / "data" / "iden_split.txt").read_text().splitlines())


@pytest.mark.parametrize(
    "layout",
    [
        {"dev/wav": "wav", "test/wav": "wav"},
        {"dev/wav": ".", "test/wav": "."},
        {"dev/wav": "vox1_dev_wav/wav", "test/wav": "vox1_test_wav/wav"},
    ],
    ids=["wav", "bare", "archives"],
)
def test_speakers_are_found_where_people_have_them(layout: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_voxceleb(data, train=1)
    for old, new in layout.items():
        (data / new).mkdir(parents=True, exist_ok=True)
        for speaker in (data / old).iterdir():
            speaker.rename(data / new / speaker.name)
    (data / "iden_split.txt").rename(tmp_path / "iden_split.txt")
    assert run_prepare("voxceleb", data, tmp_path / "out", "--split-list", tmp_path / "iden_split.txt") == 0
    assert [len(manifest) for manifest in read_splits(tmp_path / "out").values()] == [6, 6, 6]


def test_faults_are_refused_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faults = write_voxceleb(tmp_path / "data", broken=True)
    assert run_prepare("voxceleb", tmp_path / "data", tmp_path / "out") == 2
    assert "3 of 36 clips have no usable file" in capsys.readouterr().err
    assert run_prepare("voxceleb", tmp_path / "data", tmp_path / "out", "--missing", "skip") == 0
    assert "clips: train 22, val 5, test 6; left out: train 2, val 1" in capsys.readouterr().out
    reasons = {"missing": "no file", "empty": "empty file", "corrupt": "not readable as audio"}
    missing = read_missing(tmp_path / "out")
    assert missing.keys() == faults.keys()
    assert all(missing[name].startswith(reasons[fault]) for name, fault in faults.items())


@pytest.mark.parametrize("line", ["4 id10001/x/00001.wav", "1 x/y/z.wav", "id10001/x/00001.wav", "1 2 3"])
def test_a_wrong_line_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "iden_split.txt").write_text(f"1 id10001/x/00001.wav\n\n{line}\n")
    assert run_prepare("voxceleb", tmp_path, tmp_path / "out") == 2
    assert f"iden_split.txt, line 3: found '{line}'" in capsys.readouterr().err


def test_a_missing_list_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_prepare("voxceleb", tmp_path, tmp_path / "out") == 2
    assert f"{tmp_path}: found no iden_split.txt" in capsys.readouterr().err
    assert run_prepare("voxceleb", tmp_path, tmp_path / "out", "--split-list", tmp_path / "gone.txt") == 2
    assert "gone.txt: not readable as a split list" in capsys.readouterr().err
