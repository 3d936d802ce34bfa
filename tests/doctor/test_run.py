"""Faults of a run and of a checkpoint, each found; a good run, in which nothing is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast.cli import main
from flexiast.data.manifest import Labels
from flexiast.doctor.checkpoint import examine_checkpoint
from flexiast.doctor.run import examine_run, never_predicted
from flexiast.errors import CheckpointError
from flexiast.traintest.finished_run import FinishedRun
from tests.sounds import CLASSES, write_folder

NAMES = tuple(sorted(CLASSES))
SIZES = ("8", "16", "24")


def small_model(names: tuple[str, ...] = NAMES, sizes: tuple[str, ...] = SIZES) -> flexiast.AudioClassifier:
    torch.manual_seed(0)
    config = flexiast.FlexiASTConfig(len(names), frames=96, width=16, depth=1, heads=2)
    labels, features = Labels(names, names), flexiast.FeatureConfig(frames=96)
    return flexiast.AudioClassifier(config, features, labels, metadata={"trained_patch_sizes": list(sizes)})


class Run:
    """A run as training leaves it, to plant faults in."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, small_model()
        self.settings: dict = {
            "loss": "ce",
            "seed": 0,
            "data": {"train": "nowhere", "val": 0.0, "labels": None, "root": None},
            "optim": {"lr": 1e-3},
            "distill": {"teacher": None},
        }
        self.steps = [{"step": n, "epoch": n / 10, "loss": 1.0, "lr": 1e-3, "patch_size": "8"} for n in range(1, 31)]
        self.validations = [
            {
                "step": 10 * n,
                "epoch": float(n),
                "train_loss": 1.0 / n,
                "mean": 0.8,
                "skipped_steps": 0,
                "validation": {size: {"loss": 0.9 / n, "accuracy": 0.8, "mAP": 0.8} for size in SIZES},
            }
            for n in (1, 2, 3)
        ]

    def write(self) -> FinishedRun:
        self.path.mkdir()
        (self.path / "train_config.json").write_text(json.dumps(self.settings))
        lines = [json.dumps(record) for record in self.steps + self.validations]
        (self.path / "train.jsonl").write_text("\n".join([*lines, '{"step": 31, "epo']))
        if self.model is not None:
            self.model.save_pretrained(self.path)
        return FinishedRun(self.path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def kinds(run: Run) -> set[str]:
    return {finding.kind for finding in examine_run(run.write(), progress=False).findings}


def at_chance(run: Run) -> None:
    for record in run.validations:
        record["train_loss"] = 1.79


def slow(run: Run) -> None:
    for record in run.steps:
        record["lr"] = 1e-4


def mostly_low(run: Run) -> None:
    for record in run.steps[10:]:
        record["lr"] = 1e-5


def overfitted(run: Run) -> None:
    for one in run.validations[2]["validation"].values():
        one["loss"] = 0.8


def dip(run: Run) -> None:
    run.validations[-1]["validation"]["16"]["accuracy"] = 0.3


def skipped(run: Run) -> None:
    run.validations[-1]["skipped_steps"] = 4


def not_finite(run: Run) -> None:
    run.model.head.weight.data[0, 0] = float("nan")


def fixed(run: Run) -> None:
    run.model = small_model(sizes=("16",))


def numbered(run: Run) -> None:
    run.model = small_model(tuple(map(str, range(6))))


def unfinished(run: Run) -> None:
    run.validations = []


FAULTS: dict[str, Callable[[Run], None]] = {
    "loss-at-chance": at_chance,
    "rate-never-rises": slow,
    "rate-mostly-low": mostly_low,
    "overfitting": overfitted,
    "dip-at-a-size": dip,
    "skipped-steps": skipped,
    "weights-not-finite": not_finite,
    "one-patch-size": fixed,
    "classes-without-names": numbered,
    "unfinished": unfinished,
}


def test_nothing_is_found_in_a_good_run(run: Run) -> None:
    found = examine_run(run.write(), progress=False)
    assert found.findings == ()
    assert found.facts["steps"] == "30"


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found_and_nothing_else(kind: str, run: Run) -> None:
    FAULTS[kind](run)
    assert kinds(run) == {kind}


def test_bad_files_and_a_missing_log_are_found(run: Run) -> None:
    finished = run.write()
    (run.path / "bad_files.csv").write_text("path,reason\na.wav,empty\n")
    (finding,) = examine_run(finished, progress=False).findings
    assert (finding.kind, "1 clip could" in finding.what, "a.wav" in finding.where) == ("bad-files", True, True)
    (run.path / "train.jsonl").unlink()
    (finding,) = examine_run(FinishedRun(run.path), progress=False).findings
    assert finding.kind == "log-missing"


def test_classes_that_are_never_predicted_are_named(run: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "sounds", 10, seed=0)
    run.settings["data"] |= {"train": str(tmp_path / "sounds"), "val": 0.4}
    run.model.head.bias.data[2] = 100.0
    found = examine_run(run.write(), progress=False)
    (finding,) = found.findings
    assert finding.kind == "classes-never-predicted"
    assert finding.what.startswith("5 of 6 classes")
    assert NAMES[2] not in finding.where
    assert found.facts["validation clips"] in ("24", "30")


def test_a_class_with_too_few_clips_does_not_count() -> None:
    scores, targets = (np.eye(3, dtype=np.float32)[rows] for rows in ([0, 0, 0, 0, 0, 1], [0, 0, 1, 2, 2, 2]))
    assert never_predicted(scores, targets) == [2]


def test_a_run_with_a_damaged_model_is_still_examined(run: Run) -> None:
    finished = run.write()
    (run.path / "model.safetensors").write_bytes(b"damaged")
    found = examine_run(finished, progress=False)
    assert [finding.kind for finding in found.findings] == ["checkpoint-unreadable"]
    assert found.facts["steps"] == "30"


def test_the_validation_clips_are_the_rows_that_were_held_out(run: Run, tmp_path: Path) -> None:
    rows = [f"{number}.wav,{NAMES[number % 2]},{number % 5}" for number in range(20)]
    (tmp_path / "clips.csv").write_text("\n".join(["file,label,fold", *rows]))
    for number in range(20):
        (tmp_path / f"{number}.wav").touch()
    table = str(tmp_path / "clips.csv")
    run.settings["data"] |= {"train": table, "val": table, "val_where": "fold=4", "where": [], "workers": 1}
    data = run.write().validation_data()
    assert [clip.path.name for clip in data.clips] == ["4.wav", "9.wav", "14.wav", "19.wav"]


def test_a_damaged_checkpoint_is_a_finding(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path / "model")
    assert examine_checkpoint(str(tmp_path / "model")).findings == ()
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").write_bytes(content[: len(content) // 2])
    found = examine_checkpoint(str(tmp_path / "model"))
    assert [finding.kind for finding in found.findings] == ["checkpoint-unreadable"]
    assert found.serious


def test_the_command_tells_the_kind_of_subject_and_ends_with_1_if_anything_is_serious(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_folder(tmp_path / "sounds", 4, seed=0)
    at_chance(run)
    run.write()
    small_model().save_pretrained(tmp_path / "model")
    capsys.readouterr()
    assert main(["doctor", str(run.path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["subject"], found["findings"][0]["kind"]) == (str(run.path), "loss-at-chance")
    assert found["findings"][0].keys() == {"kind", "severity", "what", "where", "why", "mend"}
    assert main(["doctor", str(tmp_path / "model"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["doctor", str(tmp_path / "sounds"), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing found"
    (tmp_path / "sounds" / NAMES[0] / "x\x1b.wav").write_bytes(b"")
    assert main(["doctor", str(tmp_path / "sounds"), "--workers", "0", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("warning: 1 of 25 clips cannot be used [unreadable]\n  where: ")
    assert "\x1b" not in said
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2


def test_the_hub_is_asked_once_for_a_model(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    folder, asked = Path(__file__).parents[2] / "pretrained_models" / "demo_flexible", list[str]()
    monkeypatch.setattr("flexiast.checkpoints.hub.snapshot_download", lambda name, **_: (asked.append(name), folder)[1])
    assert main(["doctor", "owner/of-words"]) == 0
    assert asked == ["owner/of-words"]
    told = capsys.readouterr()
    assert told.err.count("asking the Hugging Face Hub") == 1
    assert "owner/of-words: FlexiAST" in told.out  # the source of the tensors, not a folder of the cache


def test_a_name_that_is_not_here_is_asked_of_the_hub_and_both_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def missing(repository: str, **_options: object) -> str:
        raise OSError(f"no repository {repository}")

    monkeypatch.setattr("flexiast.checkpoints.hub.snapshot_download", missing)
    assert main(["doctor", "exp/fixd"]) == 2
    told = capsys.readouterr().err
    assert "exp/fixd: no such file or folder; asking the Hugging Face Hub for a model of that name" in told
    assert "exp/fixd: no such file or directory, and no model that the Hugging Face Hub gives (OSError: no" in told
    with pytest.raises(CheckpointError, match="no such file or directory, and no model that the Hugging Face Hub"):
        flexiast.load("exp/fixd")
    assert main(["doctor", "exp/fixed/more"]) == 2  # no name of the Hub
    assert "found exp/fixed/more, which is not there" in capsys.readouterr().err
