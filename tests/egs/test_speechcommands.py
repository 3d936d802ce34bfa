"""Speech Commands in its public layout to manifests."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flexiast.data.manifest import read_manifest
from flexiast.errors import DataError

SCRIPT = Path(__file__).resolve().parents[2] / "egs" / "speechcommands" / "prepare.py"
CLIPS = ["yes/a1_nohash_0.wav", "yes/b2_nohash_0.wav", "no/a1_nohash_0.wav", "no/b2_nohash_1.wav", "no/c3_nohash_0.wav"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "speech_commands_v0.02"
    for name in [*CLIPS, "_background_noise_/pink_noise.wav"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.zeros(800), 16_000)
    (root / "validation_list.txt").write_text("yes/b2_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("no/c3_nohash_0.wav\n")
    (root / "README.md").write_text("Speech Commands")
    return root


@pytest.fixture(scope="module")
def prepare():
    """The script's own function, in this process."""
    return runpy.run_path(str(SCRIPT))["prepare"]


def test_lists_make_the_splits_and_the_rest_is_training(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(data), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for split in ("train", "val", "test"):
        manifest = read_manifest(tmp_path / "out" / f"{split}.json", tmp_path / "out" / "labels.csv")
        assert manifest.labels.names == ("no", "yes")
        for clip in manifest.clips:
            assert manifest.labels.names[clip.classes[0]] == clip.path.parent.name
        found[split] = {clip.path.relative_to(data).as_posix() for clip in manifest.clips}
    assert found["val"] == {"yes/b2_nohash_0.wav"}
    assert found["test"] == {"no/c3_nohash_0.wav"}
    assert found["train"] == set(CLIPS) - found["val"] - found["test"]


def test_a_listed_file_that_is_missing_is_named(data: Path, tmp_path: Path, prepare) -> None:
    (data / "no" / "c3_nohash_0.wav").unlink()
    with pytest.raises(DataError, match=r"1 files of the test list are missing: no/c3_nohash_0\.wav"):
        prepare(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_list_is_named(data: Path, tmp_path: Path, prepare) -> None:
    (data / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"testing_list\.txt: not readable"):
        prepare(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
