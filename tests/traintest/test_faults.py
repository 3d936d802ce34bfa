"""Kill, stop and fill the disk at any moment: the run goes on, to the same weights bit for bit.

Each life of a run is a forked process, so that hundreds of lives cost seconds.
"""

import csv
import dataclasses
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast import PatchSize
from flexiast.cli import main
from flexiast.errors import DataError
from flexiast.runtime.files import replacing
from flexiast.runtime.interruption import Interrupted
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.checkpointing import CheckpointStore, SaveError, load_state
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import PatchOptions
from flexiast.traintest.train import train
from tests.broken_audio import BROKEN
from tests.sounds import write_folder
from tests.traintest.test_train import config, records, weights

INTERRUPTED, SAVE_FAILED = 75, 3


def run_config(sounds: Path, out: Path) -> TrainConfig:
    """Seventy steps, saved at each of them, with validations, averaging and several patch sizes."""
    base = config(
        sounds,
        out,
        patches=PatchOptions((PatchSize(16, 16), PatchSize(48, 48))),
        augment=AugmentConfig(roll=4, mixup=0.5),
        epochs=3.5,
        save_every=1,
        average_from=1.0,
    )
    return dataclasses.replace(base, data=dataclasses.replace(base.data, batch_size=6))


@pytest.fixture(scope="module")
def whole(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    run = run_config(sounds, tmp_path_factory.mktemp("faults") / "whole")
    train(run, progress=False)
    return run.out


def life(run: TrainConfig, before: Callable[[], None] | None = None) -> multiprocessing.Process:
    """Start one life of a run in a process of its own; `before` spoils something there first."""

    def live() -> None:
        code = 0
        try:
            if before:
                before()
            train(run, progress=False)
        except Interrupted:
            code = INTERRUPTED
        except SaveError:
            code = SAVE_FAILED
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=live)
    process.start()
    return process


def die_before_rename() -> None:
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


def die_after_rename() -> None:
    rename = os.replace

    def renamed(*paths: object) -> None:
        rename(*paths)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = renamed  # type: ignore[assignment]


def die_in_the_middle_of_a_state() -> None:
    def half(_state: object, file) -> None:
        file.write(b"PK\x03\x04 half of a state")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half  # type: ignore[assignment]


def assert_same_run(one: Path, other: Path) -> None:
    expected = weights(other)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(one).items())
    assert records(one) == records(other)
    assert (one / "train_config.json").stat().st_size


def killed_life(run: TrainConfig, number: int, rng: random.Random) -> int:
    """Exit code of a life that gets signal `number` at a random moment after its first saved step."""
    store = CheckpointStore(run.out / "checkpoints", run.keep_checkpoints)
    before, process = store.paths()[-1:], life(run)
    while process.is_alive() and store.paths()[-1:] == before:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.03))  # one to three steps: in a step, in a validation, or in a save
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def test_killed_at_random_moments_and_in_the_save_it_ends_with_the_same_weights(sounds, whole, tmp_path: Path) -> None:
    run, rng = run_config(sounds, tmp_path / "killed"), random.Random(0)
    for _ in range(2):
        for spoiler in (die_before_rename, die_in_the_middle_of_a_state, die_after_rename):
            spoiled = life(run, spoiler)
            spoiled.join(60)
            assert spoiled.exitcode == -signal.SIGKILL
    assert [killed_life(run, signal.SIGKILL, rng) for _ in range(20)] == [-signal.SIGKILL] * 20
    last = life(run)
    last.join(60)
    assert last.exitcode == 0
    assert_same_run(run.out, whole)


@pytest.mark.slow
def test_stopped_at_random_moments_it_ends_with_the_same_weights(sounds, whole, tmp_path: Path) -> None:
    run, rng = run_config(sounds, tmp_path / "stopped"), random.Random(0)
    assert [killed_life(run, signal.SIGTERM, rng) for _ in range(3)] == [INTERRUPTED] * 3
    train(run, progress=False)
    assert_same_run(run.out, whole)


def test_a_second_signal_ends_at_once(sounds: Path, tmp_path: Path) -> None:
    def endless_step() -> None:
        from flexiast.traintest.train import Trainer

        def step(*_: object) -> None:
            (tmp_path / "stepping").touch()
            time.sleep(60)

        Trainer._train_on = step  # type: ignore[method-assign]

    process = life(run_config(sounds, tmp_path / "run"), endless_step)
    while not (tmp_path / "stepping").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == -signal.SIGTERM


def quota(size: int) -> None:
    """Files of this process cannot grow beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_when_the_disk_takes_no_more_the_last_checkpoint_is_intact_and_the_run_goes_on(
    sounds: Path, whole: Path, tmp_path: Path
) -> None:
    run = run_config(sounds, tmp_path / "full")
    stopped = life(run)
    while not len(CheckpointStore(run.out / "checkpoints", 1).paths()) > 1:
        time.sleep(0.01)
    os.kill(stopped.pid, signal.SIGTERM)
    stopped.join()
    store = CheckpointStore(run.out / "checkpoints", 2)
    before = store.paths()[-1]
    content = before.read_bytes()
    full = life(run, lambda: quota(len(content) // 2))
    full.join()
    assert full.exitcode == SAVE_FAILED
    assert before.read_bytes() == content
    assert load_state(before)["step"] == int(before.stem.split("-")[1])
    assert not list(run.out.rglob("*.part"))
    train(run, progress=False)
    assert_same_run(run.out, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_what_is_there_stays(small_disk: Path) -> None:
    store = CheckpointStore(small_disk, keep=1)
    store.save(1, {"step": 1, "weights": torch.arange(100_000)})
    with pytest.raises(SaveError, match=r"step-0+2\.pt: not written .* the last good checkpoint is .*step-0+1\.pt"):
        store.save(2, {"step": 2, "weights": torch.arange(200_000)})
    assert torch.equal(store.latest()["weights"], torch.arange(100_000))
    assert [path.name for path in small_disk.iterdir()] == ["step-00000001.pt"]


def test_replacing_keeps_the_old_content_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_last_k_states_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 5, 10, 200):
        store.save(step, {"step": step})
    assert [path.name for path in store.paths()] == ["step-00000010.pt", "step-00000200.pt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [("dies", "(exited unexpectedly|killed by signal|EOFError|reset by peer)"), ("hangs", "timed out after")],
)
def test_a_worker_that_dies_or_hangs_is_reported_with_its_file(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    from flexiast.data import dataset

    decode = dataset.decode

    def faulty(path: Path, *rest: object, **options: object) -> torch.Tensor:
        if path.name == "7.wav" and path.parent.name == "mid_up":
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return decode(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "decode", faulty)
    run = config(sounds, tmp_path / "run")
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, workers=1, timeout=2))
    with pytest.raises(DataError, match=rf"a decoding process failed \(.*{message}.* while on .*mid_up/7\.wav"):
        train(run, progress=False)


@pytest.mark.slow
def test_the_exit_code_reaches_the_shell(sounds: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flexiast.cli", "train", "--out", str(tmp_path / "run"), "--log", "none"]
    command += ["--data.train", str(sounds / "train"), "--data.workers", "0", "--model.size", "micro", "--epochs", "99"]
    command += ["--features.frames", "96"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run").glob("train.jsonl")):
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == INTERRUPTED
    assert "the same command goes on from there" in process.stderr.read()


@pytest.mark.slow
def test_five_percent_of_broken_files_cost_nothing_but_a_list(tmp_path: Path) -> None:
    """Twelve of 240 clips, of twelve kinds; of 60 validation clips one is a standard error of five points."""
    write_folder(tmp_path / "val", 10, seed=1)
    for name in ("clean", "broken"):
        write_folder(tmp_path / name / "train", 40, seed=0)
        (tmp_path / name / "val").symlink_to(tmp_path / "val")
    victims = random.Random(0).sample(sorted((tmp_path / "broken" / "train").rglob("*.wav")), 12)
    for victim, spoil in zip(victims, BROKEN.values(), strict=True):
        spoil(victim)
    listed = [
        (str(clip.relative_to(tmp_path / "clean")), clip.parent.name)
        for clip in sorted((tmp_path / "clean" / "train").rglob("*.wav"))
    ]
    scores = {}
    for name in ("clean", "broken"):
        # A list of files, as from a manifest: a folder that is read would not show what is missing from it.
        with open(tmp_path / name / "train.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *listed])
        run = config(tmp_path / name, tmp_path / f"run_{name}", epochs=12, eval_every=12.0)
        data = dataclasses.replace(run.data, train=tmp_path / name / "train.csv", max_bad=0.05)
        train(dataclasses.replace(run, data=data, augment=AugmentConfig(roll=4)), progress=False)
        scores[name] = records(run.out)[-1]["mean"]
    with open(tmp_path / "run_broken" / "bad_files.csv", newline="") as file:
        named = [row["path"] for row in csv.DictReader(file)]
    assert sorted(named) == sorted(map(str, victims))
    assert not (tmp_path / "run_clean" / "bad_files.csv").exists()
    assert scores["clean"] > 0.8
    assert scores["broken"] >= scores["clean"] - 0.1


@pytest.mark.slow
def test_clips_of_no_possible_scale_are_named_and_the_run_ends_well(tmp_path: Path, capsys) -> None:
    for split, seed in (("train", 0), ("val", 1)):
        write_folder(tmp_path / split, 4, seed=seed)
        clip = tmp_path / split / "low_up" / "1.wav"
        soundfile.write(clip, 1e30 * np.sign(soundfile.read(clip)[0]), 16_000, subtype="FLOAT")
    command = f"train --data.train {tmp_path}/train --data.val {tmp_path}/val --out {tmp_path}/run --data.batch-size 6"
    options = "--data.workers 2 --model.size micro --features.frames 96 --epochs 2 --log none --device cpu --threads 1"
    assert main([*command.split(), *options.split()]) == 0
    said = capsys.readouterr().err
    reason = r"low_up/1\.wav: found a sample of magnitude 1e\+30, expected about 1"
    assert len(re.findall(rf"replaced: {tmp_path}/train/{reason}", said)) == 1
    assert len(re.findall(rf"excluded from the validation: {tmp_path}/val/{reason}", said)) == 2  # at each of them
    with open(tmp_path / "run" / "bad_files.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"{tmp_path}/train/low_up/1.wav"]
    lines = records(tmp_path / "run")
    assert not [line for line in lines if "skipped" in line]
    assert [line["excluded"] for line in lines if "validation" in line] == [1, 1]


@pytest.mark.slow
def test_a_stop_in_a_validation_saves_the_state_before_it_and_the_validation_is_made_up(
    sounds: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flexiast.traintest import evaluate

    run = dataclasses.replace(run_config(sounds, tmp_path / "run"), save_every=1000)
    load, calls = evaluate.load_windows, []

    def signalled(*arguments: object, **options: object):
        calls.append(1)
        for number, batch in enumerate(load(*arguments, **options)):
            if number == 1 and len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert number < 3 or len(calls) != 2, "the validation goes on after the signal"
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "load_windows", signalled)
        with pytest.raises(Interrupted, match="after step 40 of 70"):
            train(run, progress=False)
    state = load_state(CheckpointStore(run.out / "checkpoints", 2).paths()[-1])
    assert (state["step"], state["validating"]) == (40, True)
    assert [line["step"] for line in records(run.out) if "validation" in line] == [20]
    train(run, progress=False)
    assert_same_run(run.out, whole)


def test_a_pending_stop_wins_over_the_death_of_a_worker(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    from flexiast.traintest.train import Trainer

    step = Trainer._train_on

    def both(self: Trainer, *args: object) -> None:
        step(self, *args)
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            for child in multiprocessing.active_children():
                child.kill()
            raise DataError("a decoding process failed")

    run = config(sounds, tmp_path / "run")
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, workers=1))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_on", both)
        with pytest.raises(Interrupted, match="after step 3 of 10"):
            train(run, progress=False)
    assert load_state(CheckpointStore(run.out / "checkpoints", 2).paths()[-1])["step"] == 3


@pytest.mark.slow
def test_a_run_directory_moved_in_mid_run_stops_the_run(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    from flexiast.traintest.train import Trainer

    step, run = Trainer._train_on, config(sounds, tmp_path / "run", save_every=1)

    def moves(self: Trainer, *args: object) -> None:
        if self.progress.step == 3:
            run.out.rename(tmp_path / "moved")
        step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_on", moves)
        with pytest.raises(SaveError, match=r"run/train\.jsonl: moved or removed .* where it is now"):
            train(run, progress=False)
    assert not run.out.exists()
    (tmp_path / "moved").rename(run.out)
    train(run, progress=False)
    assert records(run.out)[-1]["step"] == 10


def test_training_in_a_thread_leaves_signals_alone(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run", epochs=0.2)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, workers=1))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            train(run, progress=False)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert (run.out / "model.safetensors").exists()


@pytest.mark.slow
def test_a_lost_best_model_is_replaced_by_the_best_of_the_rest(sounds: Path, tmp_path: Path, caplog) -> None:
    run = config(sounds, tmp_path / "run", epochs=2, save_every=1)
    stopped = life(run)
    while not (run.out / "model.safetensors").exists():
        time.sleep(0.01)
    os.kill(stopped.pid, signal.SIGTERM)
    stopped.join()
    (run.out / "model.safetensors").unlink()
    train(run, progress=False)
    assert "the best model is gone" in caplog.text
    assert (run.out / "model.safetensors").exists()
