"""The synthetic data of egs/demo/speak.py: layout, sound, repeatability and refusals."""

import json
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.scripts import script as load_script

pytest.importorskip("espeakng_loader")

SCRIPT = Path(__file__).parents[2] / "egs" / "demo" / "speak.py"
WORDS = ["happy", "six", "up"]
SMALL = ("--train-speakers", "2", "--val-speakers", "1", "--test-speakers", "1", "--words", ",".join(WORDS))


class Run(NamedTuple):
    """What one run of the script left behind."""

    code: int
    stdout: str
    stderr: str


def speak(out_dir: Path, *options: str) -> Run:
    """Run the script as a user would, with a small data set unless `options` say otherwise."""
    command = [sys.executable, str(SCRIPT), str(out_dir), *SMALL, *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return Run(run.returncode, run.stdout, run.stderr)


script = load_script(SCRIPT)


@pytest.fixture
def speak_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Like `speak`, but without the two seconds that a new interpreter spends on imports."""

    def run(out_dir: Path, *options: str) -> Run:
        code = script.main([str(out_dir), *SMALL, *options])
        return Run(code, *capsys.readouterr())

    return run


def read_tree(folder: Path) -> dict[str, bytes]:
    """All files below `folder` by their path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_times(folder: Path) -> dict[str, int]:
    """When each file below `folder` was last written, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def read_wav(path: Path) -> np.ndarray:
    """The samples of a wav file, which must be 16 kHz mono 16-bit, in [-1, 1)."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def assert_refused(run: Run, *parts: str) -> None:
    """The run ended with code 2 and one line on stderr that holds all `parts`."""
    assert run.code == 2
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small complete data set, not to be changed."""
    folder = tmp_path_factory.mktemp("speak") / "data"
    run = speak(folder)
    assert run.code == 0, run.stderr
    return folder


def test_layout(data: Path) -> None:
    record = json.loads((data / "speak.json").read_text())
    assert record["clips"] == 12
    assert (record["train_speakers"], record["words"], record["seed"]) == (2, WORDS, 0)
    files = {"speak.json", "validation_list.txt", "testing_list.txt"}
    assert {path.name for path in data.iterdir()} == {*WORDS, *files}
    names = [sorted(path.name for path in (data / word).iterdir()) for word in WORDS]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 4
    assert all(re.fullmatch("[0-9a-f]{8}_nohash_0.wav", name) for name in names[0])


def test_splits_share_no_speaker(data: Path) -> None:
    lists = [(data / f"{split}_list.txt").read_text().splitlines() for split in ("validation", "testing")]
    every = {str(path.relative_to(data)) for path in data.glob("*/*.wav")}
    train = every.difference(*lists)
    speakers = []
    for clips, size in ((train, 6), (lists[0], 3), (lists[1], 3)):
        assert len(clips) == size
        assert set(clips) <= every
        speakers.append({clip.split("/")[1].split("_")[0] for clip in clips})
    assert [len(group) for group in speakers] == [2, 1, 1]
    assert len(set.union(*speakers)) == 4
    assert all(clips == sorted(clips) for clips in lists)


def test_clips_hold_one_second_of_sound(data: Path) -> None:
    for path in data.glob("*/*.wav"):
        samples = read_wav(path)
        assert len(samples) == 16_000
        frames = np.sqrt(np.mean(samples.reshape(-1, 400) ** 2, axis=1))  # RMS of each 25 ms
        assert frames.max() > 0.005
        assert frames.max() > 3 * frames.min()  # a word, not just noise
        assert np.mean(np.abs(samples) > 0.999) < 0.001


def test_words_differ_in_their_energy_contour(data: Path) -> None:
    contours = []
    for word in WORDS:
        clips = np.stack([read_wav(path) for path in sorted((data / word).glob("*.wav"))])
        energy = np.mean(clips.reshape(len(clips), -1, 400) ** 2, axis=2)
        contours.append((energy / energy.max(axis=1, keepdims=True)).mean(axis=0))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(contours[first] - contours[second]).max() > 0.2


@pytest.mark.slow
def test_bytes_do_not_depend_on_processes(data: Path, tmp_path: Path) -> None:
    assert speak(tmp_path, "--processes", "1").code == 0
    assert read_tree(tmp_path) == read_tree(data)


def test_seeds_differ(data: Path, tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    assert speak_here(tmp_path, "--seed", "1").code == 0
    clips, others = (set(folder.glob("*/*.wav")) for folder in (data, tmp_path))
    assert len(others) == len(clips)
    assert not {path.name for path in clips} & {path.name for path in others}
    assert not {path.read_bytes() for path in clips} & {path.read_bytes() for path in others}


def test_rerun_does_nothing(data: Path, speak_here: Callable[..., Run]) -> None:
    before = read_times(data)
    run = speak_here(data)
    assert run.code == 0
    assert "nothing to do" in run.stdout
    assert read_times(data) == before


def test_interrupted_run_is_completed(data: Path, tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    tree = read_tree(data)
    for name in ("happy", "six"):  # as if stopped after a few clips, one of them half-written
        (tmp_path / name).mkdir()
    clip = min(name for name in tree if name.startswith("happy/"))
    (tmp_path / clip).write_bytes(tree[clip])
    (tmp_path / clip.replace("happy", "six").replace(".wav", ".part")).write_bytes(b"RIFF")
    (tmp_path / "speak.json.unfinished").write_bytes(tree["speak.json"])
    assert_refused(speak_here(tmp_path, "--seed", "1"), str(tmp_path), "seed", "0", "1")
    assert speak_here(tmp_path).code == 0
    assert read_tree(tmp_path) == tree


def test_deleted_clip_is_made_again(tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    assert speak_here(tmp_path).code == 0
    tree = read_tree(tmp_path)
    next((tmp_path / "up").iterdir()).unlink()
    assert speak_here(tmp_path).code == 0
    assert read_tree(tmp_path) == tree


@pytest.mark.slow
def test_changed_settings_are_refused(data: Path, speak_here: Callable[..., Run]) -> None:
    before = read_times(data)
    assert_refused(speak(data, "--seed", "7"), str(data), "seed 0", "expected 7")
    assert_refused(speak_here(data, "--train-speakers", "3"), str(data), "train_speakers 2", "expected 3")
    assert_refused(speak_here(data, "--words", "no"), str(data), "words", "six", "expected ['no']")
    assert read_times(data) == before


def test_foreign_folder_is_refused(tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(speak_here(tmp_path), str(tmp_path), "not empty")
    assert read_tree(tmp_path) == {"notes.txt": b"mine"}


def test_file_instead_of_a_folder_is_refused(tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    (tmp_path / "data").write_text("")
    assert_refused(speak_here(tmp_path / "data"), str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--words", "yes,../no"), "'../no'"),
        (("--words", ""), "--words"),
        (("--val-speakers", "-1"), "--val-speakers"),
        (("--processes", "0"), "--processes"),
        (("--train-speakers", "5000"), "voices"),
    ],
)
def test_wrong_option_is_refused(
    tmp_path: Path, options: tuple[str, ...], part: str, speak_here: Callable[..., Run]
) -> None:
    assert_refused(speak_here(tmp_path / "data", *options), part)
    assert not (tmp_path / "data").exists()


def test_missing_espeak_is_told(
    tmp_path: Path, speak_here: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "espeakng_loader", None)
    assert_refused(speak_here(tmp_path / "data"), "pip install flexiast[demo]")


def test_unknown_word_is_spoken(tmp_path: Path, speak_here: Callable[..., Run]) -> None:
    assert speak_here(tmp_path, "--words", "good_morning").code == 0
    assert len(list((tmp_path / "good_morning").glob("*.wav"))) == 4
