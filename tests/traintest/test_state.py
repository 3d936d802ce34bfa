"""What a state puts back, field by field; what no run has saved; the log that is on the disk before it."""

import json
import os
from pathlib import Path

import pytest
import torch

from flexiast.errors import CheckpointError
from flexiast.traintest.checkpointing import CheckpointStore
from flexiast.traintest.train import Trainer, train
from tests.traintest.test_train import config, state

HOSTILE = {
    "step": ["3", 2.0, True, -1, None],
    "best": ["0.5", float("nan"), 1, [0.5]],
    "losses": [0.5, ["a"], [None], {"0": 0.5}, [True]],
    "epoch_losses": ["text"],
    "since_best": [-1, 0.0],
    "ended": [1, "no", None],
    "skipped": [-3],
    "skipped_in_a_row": [float("inf")],
    "validating": [0],
    "bad_files": [3, []],
    "suspicious": ["text"],
    "average": [{"count": 1, "mean": {}}, {"count": 2, "mean": {"w": 3}}, {"count": -1, "mean": {}}, {}, 7],
    "ema": [None, {"steps": -1, "mean": {}}, {"steps": "1", "mean": {}}, {"steps": 1, "mean": {}}],
    "optimizers": [[], 3, [{"state": {}, "param_groups": []}]],
    "rng": [{}, {"cpu": torch.zeros(3)}, {"cpu": "text"}],
    "model": [{}, {"kernel": 3}],
}


@pytest.fixture(scope="module")
def run(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run of two steps that has saved its state, and could go on."""
    made = config(sounds, tmp_path_factory.mktemp("state") / "run", epochs=0.2, eval_every=0.2, ema=0.5)
    train(made, progress=False)
    return Trainer(made, progress=False)


@pytest.mark.parametrize("field", HOSTILE)
def test_a_field_that_no_run_has_saved_is_refused_in_one_line(field: str, run: Trainer) -> None:
    saved = state(run.config.out)
    run._restore(saved)
    assert run.progress.step == 2
    for value in HOSTILE[field]:
        with pytest.raises(CheckpointError, match="checkpoints: does not fit this training"):
            run._restore(saved | {field: value})


def test_a_reason_that_is_no_text_is_refused(run: Trainer) -> None:
    path = str(run.train_data.clips[0].path)
    with pytest.raises(CheckpointError, match="bad_files: expected a text"):
        run._restore(state(run.config.out) | {"bad_files": {path: 3}})


def test_the_log_is_on_the_disk_before_each_state(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    made = config(sounds, tmp_path / "run", epochs=0.5, save_every=1, log_every=1)
    log, on_disk, saved = made.out / "train.jsonl", [0], []
    fsync, save = os.fsync, CheckpointStore.save

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        if log.exists() and os.path.samestat(os.fstat(descriptor), log.stat()):
            on_disk.append(os.fstat(descriptor).st_size)

    def noted_save(store: CheckpointStore, step: int, content: dict) -> None:
        assert content["log_bytes"] == on_disk[-1] == log.stat().st_size
        saved.append((step, on_disk[-1]))
        save(store, step, content)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(CheckpointStore, "save", noted_save)
    train(made, progress=False)
    assert [step for step, _ in saved] == [1, 2, 3, 4, 5]
    content = log.read_bytes()
    assert [json.loads(content[:size].splitlines()[-1])["step"] for _, size in saved] == [1, 2, 3, 4, 5]
