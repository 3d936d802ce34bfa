"""Every line, every epoch, every curve; nothing twice after a resume."""

import csv
import json
import re
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flexiast.errors import ConfigError, FileError
from flexiast.traintest.run_log import RunLog, require_log


def write_epoch(log: RunLog, step: int, accuracy: float) -> None:
    log.write(step - 1, step / 10, loss=1.0, patch_size="16", lr=0.1)
    log.write(step, step / 10, train_loss=0.5, validation={"16": {"accuracy": accuracy}}, mean=accuracy)
    log.write_epochs()


def test_lines_epochs_and_curves_agree_and_a_resume_repeats_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "tensorboard", {})
    write_epoch(log, 10, 0.3)
    size = log.size
    write_epoch(log, 20, 0.9)  # lost: the last checkpoint is of step 10
    log.close()
    log = RunLog(tmp_path, "tensorboard", {}, step=10, size=size)
    write_epoch(log, 20, 0.5)
    log.close()

    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [9, 10, 19, 20]
    with open(tmp_path / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["step"], r["epoch"], r["train_loss"], r["accuracy@16"]) for r in rows] == [
        ("10", "1.0", "0.5", "0.3"),
        ("20", "2.0", "0.5", "0.5"),
    ]
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    points = [(p.step, round(p.value, 3)) for p in curves.Scalars("accuracy@16")]
    assert points == [(10, 0.3), (20, 0.5)]
    assert {"loss", "lr", "train_loss", "mean"} <= set(curves.Tags()["scalars"])


def test_weights_and_biases_is_imported_only_when_asked_for(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="log: found wandb, which is not installed"):
        require_log("wandb")
    started, logged = [], []
    wandb = ModuleType("wandb")
    wandb.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    run = SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append("finished")
    )
    wandb.init = lambda **options: started.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (0, 5):  # started, then resumed
        log = RunLog(tmp_path / "run", "wandb", {"seed": 1}, step) if step else _in_new(tmp_path / "run")
        log.write(step + 1, 0.1, loss=2.0, patch_size="16")
        log.close()
    assert started[0]["id"] == started[1]["id"]
    assert started[0]["config"] == {"seed": 1}
    assert started[0]["resume"] == "allow"
    assert logged == [(1, {"loss": 2.0}), "finished", (6, {"loss": 2.0}), "finished"]


def _in_new(directory: Path) -> RunLog:
    directory.mkdir()
    return RunLog(directory, "wandb", {"seed": 1})


def test_none_writes_no_curves(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "none", {})
    write_epoch(log, 10, 0.3)
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "epochs.csv"}


@pytest.mark.parametrize("damage", ["cut", "zeros", "deleted"])
def test_a_damaged_tail_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    log = RunLog(tmp_path, "none", {})
    write_epoch(log, 10, 0.3)
    write_epoch(log, 20, 0.4)
    log.sync()
    size = log.size
    log.close()
    content = log.path.read_bytes()
    if damage == "deleted":
        log.path.unlink()
    else:
        log.path.write_bytes(content[:-30] + (bytes(30) if damage == "zeros" else b""))
    log = RunLog(tmp_path, "none", {}, step=20, size=size)
    write_epoch(log, 30, 0.5)
    log.close()
    steps = [json.loads(line)["step"] for line in log.path.read_text().splitlines()]
    assert steps == ([] if damage == "deleted" else [9, 10, 19]) + [29, 30]
    said = "deleted or emptied" if damage == "deleted" else f"damaged or cut after .* of {size} bytes"
    assert re.search(rf"train\.jsonl: {said}.* step 20", caplog.text)


def test_a_run_directory_that_is_moved_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    log = RunLog(tmp_path / "run", "none", {})
    log.write(1, 0.1, loss=1.0)
    (tmp_path / "run").rename(tmp_path / "moved")
    for action in (lambda: log.write(2, 0.2, loss=1.0), log.sync):
        with pytest.raises(FileError, match=r"run/train\.jsonl: moved or removed .*; put .*run back and repeat"):
            action()
    assert len((tmp_path / "moved" / "train.jsonl").read_text().splitlines()) == 1


def test_curves_that_cannot_be_written_are_told_once_and_the_run_goes_on(tmp_path: Path, caplog) -> None:
    log = RunLog(tmp_path, "tensorboard", {})
    log.curves.records.close()
    log.curves.records._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    log.write(1, 0.1, loss=1.0)
    log.write(2, 0.2, loss=1.0)
    log.close()
    assert caplog.text.count("curves: not written ([Errno 28] No space left on device)") == 1
    assert len(log.path.read_text().splitlines()) == 2


def test_a_line_that_does_not_fit_names_the_file_and_leaves_no_half(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "none", {})
    log.write(1, 0.1, loss=1.0)
    before = log.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(FileError, match=r"train\.jsonl: File too large"):
            log.write(2, 0.2, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.path.read_bytes() == before
