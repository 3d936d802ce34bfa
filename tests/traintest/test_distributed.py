"""Two processes over gloo do what one does: losses, patch sizes, metrics, resume."""

import dataclasses
import json
import os
import shutil
import signal
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast import PatchSize
from flexiast.cli import main
from flexiast.data.clips import Clips
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.sampler import Draw, share_of
from flexiast.data.scores import write_scores
from flexiast.errors import ConfigError
from flexiast.runtime.distributed import World, connected
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.evaluate import Result, sweep
from flexiast.traintest.options import DataConfig, ModelOptions, PatchOptions
from flexiast.traintest.setup import setup_plan
from flexiast.traintest.train import Trainer, train
from tests.traintest import test_train, two_ranks
from tests.traintest.test_train import records

PATCHES = [PatchSize(16, 16), PatchSize(24, 32)]


def config(sounds: Path, out: Path, **changes: object) -> TrainConfig:
    """A run with mixup, an uneven split (three pairs over two ranks) and several patch sizes."""
    base = test_train.config(
        sounds,
        out,
        patches=PatchOptions((PatchSize(16, 16), PatchSize(24, 32), PatchSize(48, 48))),
        augment=AugmentConfig(roll=4, noise=0.1, mixup=0.5),
        log_every=1,
        save_every=1,
        precision="fp32",
    )
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, batch_size=6, workers=1), epochs=0.5)
    return dataclasses.replace(base, **changes)


def lora(sounds: Path, out: Path, start: Path) -> TrainConfig:
    """Fine-tuning with LoRA and a moving average of the weights."""
    return config(sounds, out, model=ModelOptions(init=str(start)), tune="lora", ema=0.5)


def seven_clips(sounds: Path) -> Manifest:
    whole = read_manifest(sounds / "val")
    return dataclasses.replace(whole, clips=Clips.of([*whole.clips[::5], whole.clips[1]]))


def evaluate(model: Path, sounds: Path, world: World) -> list[Result]:
    return sweep(
        {"m": flexiast.load(model)},
        seven_clips(sounds),
        PATCHES,
        batch_size=2,
        workers=0,
        precision="fp32",
        progress=False,
        world=world,
    )


def test_two_ranks_equal_one_process(sounds: Path, tmp_path: Path) -> None:
    ranks = two_ranks.start("train_and_evaluate", str(tmp_path / "two"), str(sounds))
    train(config(sounds, tmp_path / "one"), progress=False)
    first, second = (json.loads(out) for out in two_ranks.finish(ranks))

    alone = [line for line in records(tmp_path / "one") if "loss" in line]
    together = [line for line in records(tmp_path / "two") if "loss" in line]
    assert len(alone) == 10
    np.testing.assert_allclose([r["loss"] for r in together], [r["loss"] for r in alone], atol=1e-5)
    assert first["patches"] == second["patches"] == [line["patch_size"] for line in alone]
    assert len(set(first["patches"])) > 1
    assert first["wrapped"] == second["wrapped"] == 0  # DDP does not outlive its process group, or the end may hang

    assert len(seven_clips(sounds)) == 7
    expected = [vars(r.metrics) | {"loss": r.loss} for r in evaluate(tmp_path / "two", sounds, World())]
    assert first["metrics"] == second["metrics"] == expected


@pytest.mark.slow
def test_two_ranks_fine_tune_with_lora_as_one_process(sounds: Path, tmp_path: Path) -> None:
    train(config(sounds, tmp_path / "start"), progress=False)
    ranks = two_ranks.start("train_lora", str(tmp_path / "two"), str(sounds), str(tmp_path / "start"))
    train(lora(sounds, tmp_path / "one", tmp_path / "start"), progress=False)
    two_ranks.finish(ranks)
    alone, together = (flexiast.load(tmp_path / name).state_dict() for name in ("one", "two"))
    start = flexiast.load(tmp_path / "start").state_dict()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=0)
    assert (alone["blocks.0.mlp.fc1.weight"] - start["blocks.0.mlp.fc1.weight"]).abs().max() > 1e-4


@pytest.mark.slow
def test_a_killed_rank_stops_the_run_and_two_ranks_go_on_to_the_same_weights(sounds: Path, tmp_path: Path) -> None:
    two_ranks.finish(two_ranks.start("train_and_evaluate", str(tmp_path / "whole"), str(sounds)))
    ranks = two_ranks.start("train_and_evaluate", str(tmp_path / "broken"), str(sounds))
    log = tmp_path / "broken" / "train.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        time.sleep(0.05)
    os.kill(ranks[1].pid, signal.SIGKILL)
    ranks[0].kill()  # as torchrun does when one of its processes dies
    for rank in ranks:
        rank.communicate()
    two_ranks.finish(two_ranks.start("train_and_evaluate", str(tmp_path / "broken"), str(sounds)))
    whole, broken = (flexiast.load(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in broken.items())


@pytest.mark.slow
def test_a_signal_in_a_validation_of_two_ranks_saves_and_the_validation_is_made_up(sounds, tmp_path: Path) -> None:
    def finished(name: str, stop: str) -> list[str]:
        return two_ranks.finish(two_ranks.start("train_with_validations", str(tmp_path / name), str(sounds), stop))

    assert finished("whole", "no") == ["", ""]
    first, second = finished("run", "yes")
    assert first == "stopped by signal of another process after step 8 of 10; the same command goes on from there\n"
    assert second == f"stopped by signal {signal.SIGTERM:d} after step 8 of 10; the same command goes on from there\n"
    saved = test_train.state(tmp_path / "run")
    assert (saved["step"], saved["validating"]) == (8, True)
    assert [line["step"] for line in records(tmp_path / "run") if "validation" in line] == [4]
    assert finished("run", "no") == ["", ""]
    assert records(tmp_path / "run") == records(tmp_path / "whole")
    whole, run = (flexiast.load(tmp_path / name).state_dict() for name in ("whole", "run"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in run.items())


def write_unlike(folder: Path, sounds: Path) -> None:
    """What `two_ranks.disagree` gives its ranks: in one a clip less, a louder sample, another teacher."""
    teacher = Trainer(config(sounds, folder / "out"), progress=False).model
    clips = [clip.path for clip in read_manifest(sounds / "train").clips]
    scores = np.full((len(clips), 6), 1 / 6, dtype=np.float32)
    for rank in range(2):
        own = folder / str(rank)
        shutil.copytree(sounds / "train", own / "fewer")
        shutil.copytree(sounds / "train", own / "louder")
        if rank == 1:
            next((own / "fewer").rglob("*.wav")).unlink()
            first = own / "louder" / clips[0].relative_to(sounds / "train")
            first.write_bytes(first.read_bytes()[:-2] + b"ab")
            scores[0] = (1, 0, 0, 0, 0, 0)
            with torch.no_grad():
                teacher.head.bias[0] += 1
        teacher.save_pretrained(own / "teacher")
        write_scores(own / "scores.npz", list(map(str, clips)), teacher.labels.names, scores)


@pytest.mark.slow
def test_ranks_started_unlike_one_another_are_refused(sounds: Path, tmp_path: Path) -> None:
    write_unlike(tmp_path, sounds)
    first, second = two_ranks.finish(two_ranks.start("disagree", str(tmp_path), str(sounds)))
    assert first == second
    said = dict(line.split(": ", 1) for line in first.splitlines())
    end = "; start all processes with the same command, code and data"
    assert {
        way: text.removeprefix("rank 1: was started unlike rank 0 ").removesuffix(end) for way, text in said.items()
    } == {
        "settings": "(optim.lr: 0.001 -> 0.002)",
        "patches": '(patches.sizes: ["16"] -> ["24x32"])',
        "code": '(commit: "code 0" -> "code 1")',
        "data": "(data: other files, sizes or classes; contents: other contents of the same files)",
        "contents": "(contents: other contents of the same files)",
        "teacher": "(teacher: other weights or scores)",
        "scores": "(teacher: other weights or scores)",
        "measure": "(contents: other contents of the same files; models: other weights)",
    }
    assert not list(tmp_path.rglob("out"))


@pytest.mark.slow
def test_a_silent_rank_costs_the_other_one_line() -> None:
    _, said = two_ranks.finish(two_ranks.start("wait_for_the_silent", "0.05"))
    assert said == (
        "a process of this job has waited 0.05 minutes for another one (dist_timeout); if that one was at work,"
        " allow more\n"
    )


@pytest.mark.parametrize("command", ["train", "flexify", "measure", "python"])
def test_every_command_waits_as_long_as_it_is_told(command: str, tmp_path: Path, monkeypatch) -> None:
    told = []

    def connected(timeout: float):
        told.append(timeout)
        raise ConfigError("enough")

    for name in ("commands.train", "commands.flexify", "commands.measure", "traintest.train"):
        monkeypatch.setattr(import_module(f"flexiast.{name}"), "connected", connected)
    data = "--data" if command == "measure" else "--data.train"
    if command == "python":
        with pytest.raises(ConfigError, match="enough"):
            train(TrainConfig(DataConfig(tmp_path), tmp_path / "out", dist_timeout=7))
    else:
        model = [] if command == "train" else ["model"]
        assert main([command, *model, data, str(tmp_path), "--out", str(tmp_path / "out"), "--dist-timeout", "7"]) == 2
    assert told == [7]


@pytest.mark.parametrize(("clips", "size", "unit"), [(12, 2, 2), (12, 3, 1), (7, 3, 2), (5, 2, 1), (6, 2, 2)])
def test_shares_are_disjoint_complete_and_keep_pairs(clips: int, size: int, unit: int) -> None:
    batch = [Draw(0, clip) for clip in range(clips)]
    shares = [share_of(batch, rank, size, unit) for rank in range(size)]
    assert [draw for share in shares for draw in share] == batch
    assert all(shares)
    assert all(share[0].clip % unit == 0 for share in shares)


def test_a_batch_too_small_for_the_processes_is_refused(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run")
    alone = Trainer(run, progress=False)
    with pytest.raises(ConfigError, match=r"data\.batch_size: found 6 for 4 processes, expected at least 8 \(mixup"):
        setup_plan(run, alone.train_data, alone.model, World(rank=0, size=4))


def test_without_torchrun_one_process_is_alone() -> None:
    with connected() as world:
        assert world == World()
        assert world.is_rank0
        assert world.any(True)
        assert not world.any(False)
        assert world.gather(3) == [3]
        assert world.broadcast("x") == "x"
