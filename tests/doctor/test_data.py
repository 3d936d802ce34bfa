"""Faults planted in a data set, each found; a clean one, in which nothing is."""

import os
import re
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast.cli import main
from flexiast.commands import doctor
from flexiast.data.audio import decode as decode_whole
from flexiast.data.manifest import Labels
from flexiast.doctor import listen
from flexiast.doctor.data import DataSet, examine_data
from flexiast.doctor.finding import Examination, beside, counted
from flexiast.doctor.listen import flat_tops
from flexiast.errors import DataError
from tests.sounds import CLASSES, SAMPLE_RATE, sweep, write_folder

NAMES = sorted(CLASSES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clean folders train (4 clips in each of 6 classes) and val (2)."""
    write_folder(tmp_path / "data" / "train", 4, seed=0)
    write_folder(tmp_path / "data" / "val", 2, seed=1)
    return tmp_path / "data"


def examine(data: Path, model: flexiast.AudioClassifier | None = None, workers: int = 0) -> Examination:
    return examine_data(DataSet.of(data, None, None), model, workers, progress=False)


def kinds(found: Examination) -> set[str]:
    return {finding.kind for finding in found.findings}


def model_for(names: list[str], mean: float = -6.0, std: float = 4.5, frames: int = 96) -> flexiast.AudioClassifier:
    torch.manual_seed(0)
    config = flexiast.FlexiASTConfig(len(names), frames=frames, width=16, depth=1, heads=2)
    features = flexiast.FeatureConfig(frames=frames, mean=mean, std=std)
    return flexiast.AudioClassifier(config, features, Labels(tuple(names), tuple(names)))


def rewrite(change: Callable[[np.ndarray], np.ndarray], rate: int = SAMPLE_RATE, subtype: str = "FLOAT") -> Callable:
    """A fault: the first clip's samples changed."""

    def plant(data: Path) -> None:
        path = data / "train" / NAMES[0] / "0.wav"
        samples, _ = soundfile.read(path)
        soundfile.write(path, change(samples), rate, subtype=subtype)

    return plant


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda data: shutil.copy(data / source, data / target)


def new_class(name: str, clips: int, split: str = "train") -> Callable[[Path], None]:
    def plant(data: Path) -> None:
        rng = np.random.default_rng(9)
        (data / split / name).mkdir()
        for number in range(clips):
            soundfile.write(data / split / name / f"n{number}.wav", sweep(500, 900, rng), SAMPLE_RATE)

    return plant


def speakers(data: Path) -> None:
    """Names that tell the speaker; each of ten speakers is in both splits."""
    for split, first in (("train", 0), ("val", 4)):
        for place, path in enumerate(sorted((data / split).rglob("*.wav"))):
            path.rename(path.with_name(f"speaker{place % 10}_{first + int(path.stem)}.wav"))


def low_rate(data: Path) -> None:
    """All clips of a class at 8 kHz."""
    for path in (data / "train" / NAMES[0]).iterdir():
        soundfile.write(path, soundfile.read(path)[0][::2], SAMPLE_RATE // 2)
    for path in (data / "val" / NAMES[0]).iterdir():
        soundfile.write(path, soundfile.read(path)[0][::2], SAMPLE_RATE // 2)


FIRST = f"train/{NAMES[0]}/0.wav"
FAULTS: dict[str, Callable[[Path], object]] = {
    "silent": rewrite(np.zeros_like),
    "clipped": rewrite(lambda samples: np.clip(samples * 20, -0.99, 0.99), subtype="PCM_16"),
    "opposite-phase": rewrite(lambda samples: np.stack([samples, -samples], axis=1)),
    "dc-offset": rewrite(lambda samples: 0.5 * samples + 0.4),
    "wrong-scale": rewrite(lambda samples: samples * 32768),
    "low-sample-rate": rewrite(lambda samples: samples[::2], SAMPLE_RATE // 2),
    "sample-rate-tells-the-class": low_rate,
    "long-clips": rewrite(lambda samples: np.random.default_rng(0).normal(0, 0.1, 6 * SAMPLE_RATE)),
    "short-clips": rewrite(lambda samples: samples[6000:7000]),
    "unreadable": lambda data: (data / FIRST).write_bytes(b"<html>404</html>" * 100),
    "duplicates-between-splits": copy(FIRST, f"val/{NAMES[0]}/copy.wav"),
    "duplicates-with-other-labels": copy(FIRST, f"train/{NAMES[1]}/copy.wav"),
    "duplicates": copy(FIRST, f"train/{NAMES[0]}/copy.wav"),
    "source-in-two-splits": speakers,
    "spelling-twins": new_class(NAMES[0].upper(), 4),
    "class-of-one-clip": new_class("rare", 1),
    "classes-not-in-train": new_class("new", 2, "val"),
    "empty-class": lambda data: (data / "train" / "nothing").mkdir(),
}


def test_nothing_is_found_in_a_clean_set(data: Path) -> None:
    found = examine(data, model_for(NAMES))
    assert found.findings == ()
    assert found.facts["train"] == f"24 clips ({data / 'train'})"
    assert found.facts["classes"] == "6"


@pytest.mark.parametrize("kind", FAULTS)
def test_each_planted_fault_is_found_and_nothing_else(kind: str, data: Path) -> None:
    FAULTS[kind](data)
    found = examine(data)
    assert kinds(found) == {kind}
    (finding,) = found.findings
    assert min(map(len, (finding.what, finding.where, finding.why, finding.mend))) > 2


def test_a_table_with_few_clips_of_several_labels_or_many_of_one_class(data: Path) -> None:
    rows = ["path,label"] + [f"{p.relative_to(data)},{p.parent.name}" for p in sorted(data.glob("train/*/*.wav"))]
    (data / "table.csv").write_text("\n".join([rows[0], *rows[1:] * 3, f"{FIRST},{NAMES[0]}"]) + "\n")
    assert kinds(examine(data / "table.csv")) == set()  # rows of one file are one clip
    rng = np.random.default_rng(5)
    for number in range(60):
        soundfile.write(data / f"{number}.wav", sweep(500, 900, rng, 0.9), SAMPLE_RATE)
        rows.append(f"{number}.wav,many")
    rows = [row for row in rows if not row.endswith(NAMES[0])] + [f"{FIRST},{NAMES[0]}", f"{FIRST},many"]
    rows += [f"train/{NAMES[0]}/1.wav,{NAMES[0]}"]
    (data / "table.csv").write_text("\n".join(rows) + "\n")
    found = {finding.kind: finding for finding in examine(data / "table.csv").findings}
    assert found.keys() == {"few-with-several-labels"}
    assert FIRST in found["few-with-several-labels"].where


def test_unbalanced_classes_are_told_apart_from_single_clips(data: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(101):
        soundfile.write(data / "train" / NAMES[0] / f"m{number}.wav", sweep(250, 500, rng), SAMPLE_RATE)
    for name in NAMES[1:]:
        for number in (2, 3):
            (data / "train" / name / f"{number}.wav").unlink()
    (finding,) = examine(data).findings
    assert finding.kind == "unbalanced"
    assert f"'{NAMES[0]}' has 105 clips" in finding.what


def test_a_table_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    found = examine(tmp_path / "t.csv")
    assert kinds(found) == {"table-unreadable"}
    assert found.serious


def test_a_format_that_needs_ffmpeg_names_the_package(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexiast.data.opening.find_ffmpeg", lambda: None)
    (data / FIRST).with_suffix(".m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(5000))
    (finding,) = examine(data).findings
    assert (finding.kind, finding.mend) == ("needs-ffmpeg", "pip install 'flexiast[audio]'")


def test_one_class_alone_and_other_classes_than_the_models(data: Path) -> None:
    for name in NAMES[1:]:
        shutil.rmtree(data / "train" / name)
    assert kinds(examine(data / "train")) == {"one-class"}
    found = examine(data / "val", model_for(["cat", "dog"]))
    assert kinds(found) == {"classes-of-another-model"}


def test_statistics_and_window_are_compared_with_the_models(data: Path) -> None:
    found = examine(data, model_for(NAMES, mean=3.0))
    assert kinds(found) == {"other-statistics"}
    assert "was given 3.00" in found.findings[0].what


@pytest.mark.parametrize(("frames", "kind", "window"), [(20, "long-clips", "0.2 s"), (1100, "short-clips", "11 s")])
def test_lengths_are_compared_with_the_models_window(data: Path, frames: int, kind: str, window: str) -> None:
    (finding,) = examine(data, model_for(NAMES, frames=frames)).findings
    assert finding.kind == kind
    assert finding.what.startswith("36 clips are ")
    assert finding.what.endswith(f"the model's window, {window}")
    assert finding.mend.startswith(f"--features.frames {25 if kind == 'long-clips' else 100};")


def test_a_folder_of_tars_is_looked_at(tmp_path: Path) -> None:
    write_folder(tmp_path / "sounds", 2, seed=0)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for number, path in enumerate(sorted((tmp_path / "sounds").glob("*/*.wav"))):
            (tmp_path / "label").write_text(path.parent.name)
            tar.add(path, f"{number}.wav")
            tar.add(tmp_path / "label", f"{number}.cls")
    found = examine(tmp_path / "tars")
    assert found.findings == ()
    assert found.facts["train"] == f"12 clips ({tmp_path / 'tars'})"


def test_one_is_singular_and_a_mend_names_the_file(data: Path) -> None:
    FAULTS["silent"](data)
    (finding,) = examine(data).findings
    assert finding.what == "1 clip with digital silence"
    assert finding.mend == f"rm {data / FIRST}"
    assert counted(1, "clip") == "1 clip"
    assert [counted(n, "class has", "classes have") for n in (1, 2000)] == ["1 class has", "2,000 classes have"]


def test_names_of_the_hub_are_models_and_names_of_data_sets_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    none = Examination("x", {}, ())
    monkeypatch.setattr(doctor, "examine_checkpoint", lambda name: (seen.append(f"model {name}"), none)[1])
    monkeypatch.setattr(doctor, "examine_data", lambda data, *_: (seen.append(f"data {data.splits['train']}"), none)[1])
    for name in ("MIT/ast-of-mine", "ast_audioset_16_16", "timm:vit_tiny_patch16_224", "hf:owner/set:test"):
        assert main(["doctor", name, "--quiet"]) == 0
    assert seen == [
        "model MIT/ast-of-mine",
        "model ast_audioset_16_16",
        "model timm:vit_tiny_patch16_224",
        "data hf:owner/set:test",
    ]
    for name in ("nowhere", "owner/model.pth", f"{tmp_path.name}/../gone"):
        assert main(["doctor", name]) == 2
        assert f"subject: found {name}, which is not there; expected data" in capsys.readouterr().err


def test_flat_tops_are_counted_where_the_sound_was_too_loud() -> None:
    time = np.arange(1600) / SAMPLE_RATE
    sine = np.sin(2 * np.pi * 440 * time)[:, None]
    assert flat_tops(sine) == 0
    assert flat_tops(0.2 * np.clip(3 * sine, -1, 1)) == 0  # quiet: a square wave may be meant
    share = float(np.mean(np.abs(3 * sine) >= 1))
    assert flat_tops(np.clip(3 * sine, -1, 1)) == pytest.approx(share, abs=0.02)
    assert flat_tops(np.full((100, 1), 0.7)) == 0


def test_a_folder_of_nothing_says_so(tmp_path: Path) -> None:
    found = examine(tmp_path)
    assert kinds(found) == {"table-unreadable"}
    with pytest.raises(DataError):
        DataSet.of(_two_trains(tmp_path), None, None)


def _two_trains(folder: Path) -> Path:
    for name in ("train", "training"):
        write_folder(folder / name, 1, seed=0)
    return folder


def test_the_guide_names_every_kind_of_finding_and_no_other() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = "".join(path.read_text() for path in (root / "src" / "doctor").glob("*.py"))
    rows = [line for line in (root / "docs" / "doctor.md").read_text().splitlines() if line.startswith("| ")][2:]
    named = {kind for row in rows for kind in re.findall(r"`([a-z-]+)`", row)}
    assert len(named) > 40
    assert {kind for kind in named if f'"{kind}"' not in sources} == set()
    used = set(re.findall(r'(?:Finding|yield Finding)\(\s*"([a-z-]+)"', sources))
    assert len(used) > 25
    assert used <= named


def test_clips_of_a_tar_are_mended_in_the_tar(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    samples = np.clip(2 * np.sin(np.arange(SAMPLE_RATE) / 20), -0.9, 0.9)
    soundfile.write(tmp_path / "loud.wav", samples, SAMPLE_RATE)
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for number, label in enumerate(("Dog", "dog", "cat", "cat")):
            (tmp_path / "label").write_text(label)
            tar.add(tmp_path / "loud.wav", f"{number}.wav")
            tar.add(tmp_path / "label", f"{number}.cls")
    mends = {finding.kind: finding.mend for finding in examine(tmp_path / "tars").findings}
    tar_name = tmp_path / "tars" / "0.tar"
    assert mends["clipped"].startswith(f"tar xf {tar_name}; mend them with ffmpeg -af adeclip")
    assert mends["duplicates-with-other-labels"].startswith(f"tar tf {tar_name}; write the tar again")
    assert mends["spelling-twins"].startswith(f"flexiast doctor {tmp_path / 'tars'};")


def test_a_file_that_two_splits_share_is_not_to_be_removed(data: Path) -> None:
    names = [str(path.relative_to(data)) for path in sorted(data.glob("train/*/*.wav"))]
    for split, rows in (("train", names), ("val", names[::4])):
        lines = [f"{name},{Path(name).parent.name}" for name in rows]
        (data / f"{split}.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    found = examine_data(DataSet({"train": data / "train.csv", "val": data / "val.csv"}, None, None), None, 0, False)
    (finding,) = found.findings
    assert finding.kind == "duplicates-between-splits"
    assert finding.mend.startswith("--data.val 0.2; the same files are listed twice")


def test_files_that_are_not_there_and_what_counts_them(data: Path) -> None:
    names = [str(path.relative_to(data)) for path in sorted(data.glob("train/*/*.wav"))]
    names.append(f"train/{NAMES[0]}/gone.wav")
    (data / "table.csv").write_text("\n".join(["path,label", *(f"{n},{Path(n).parent.name}" for n in names)]) + "\n")
    (finding,) = examine(data / "table.csv").findings
    assert finding.what == f"1 of {len(names)} clips cannot be used"
    assert finding.mend.startswith(f"ls -l {data / 'train' / NAMES[0]}; put the files back")


def test_a_worker_of_the_doctor_that_is_killed_is_named_with_its_file(data: Path, monkeypatch) -> None:
    killed = data / FIRST

    def decode(path: Path, *rest: object, **more: object) -> torch.Tensor:
        if path == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_whole(path, *rest, **more)

    monkeypatch.setattr(listen, "decode", decode)
    with pytest.raises(
        DataError, match=rf"^{data}/train, .*: a decoding process failed .*SIGKILL.* while on .*{killed}"
    ):
        examine(data, workers=2)


def test_a_name_beside_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr0.001").mkdir()
    monkeypatch.chdir(tmp_path / "lr0.001")
    assert beside(".", "flexible") == str(tmp_path / "lr0.001-flexible")
    assert beside(tmp_path / "model.pth", "named") == str(tmp_path / "model-named")
