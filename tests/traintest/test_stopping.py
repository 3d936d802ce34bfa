"""Runs with decoding processes, alone and under torchrun: signalled as a group, in a validation, launcher killed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.traintest.checkpointing import CheckpointStore, load_state
from tests.traintest.stopped_runs import TIMEOUT, assert_all_end, command, processes, ranks, start, wait_for_lines

INTERRUPTED = 75


def saved_step(out: Path) -> int:
    return load_state(CheckpointStore(out / "checkpoints", 2).paths()[-1])["step"]


def steps(out: Path) -> list[int]:
    """Of the training lines of a log."""
    records = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


@pytest.mark.slow
def test_a_signalled_group_with_decoding_processes_saves_and_goes_on(sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*command(sounds, out, "--epochs", "5000", "--log-every", "1"))
    wait_for_lines(out, 3, process)
    second = start(*command(sounds, out))
    assert second.wait(TIMEOUT) == 2
    assert f"is in use by process {process.pid} on " in second.stderr.read()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(TIMEOUT) == INTERRUPTED, process.stderr.read()
    assert "the same command goes on from there" in process.stderr.read()
    assert_all_end(out)
    assert saved_step(out) == steps(out)[-1] >= 3


@pytest.mark.slow
def test_ctrl_c_at_any_moment_of_the_start_ends_without_a_traceback(sounds: Path, tmp_path: Path) -> None:
    for delay in (0.5, 1, 2, 3, 4):
        process = start(*command(sounds, tmp_path / str(delay)))
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        code, said = process.wait(TIMEOUT), process.stderr.read()
        assert code in (-signal.SIGINT, 130, INTERRUPTED)
        assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["group", "torchrun", "launcher killed", "rank killed"])
def test_two_ranks_with_decoding_processes_save_and_go_on_to_the_same_weights(sounds, tmp_path: Path, how: str) -> None:
    def two(name: str) -> list[str]:
        options = ["--epochs", "3", "--eval-every", "3", "--save-every", "3", "--precision", "fp32"]
        return command(sounds, tmp_path / name, *options, ranks=2)

    whole = start(*two("whole"))
    assert whole.wait(TIMEOUT) == 0, whole.stderr.read()
    out = tmp_path / "run"
    process = start(*two("run"))
    wait_for_lines(out, 4, process)
    assert len(processes(out)) == 1 + 2 + 2 * 2  # torchrun, ranks, decoding processes
    if how == "group":
        os.killpg(process.pid, signal.SIGTERM)
    elif how == "rank killed":
        os.kill(ranks(process.pid, out)[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM if how == "torchrun" else signal.SIGKILL)
    process.wait(TIMEOUT)
    assert_all_end(out)
    # The launcher stops the other rank too, which saves, unless it is waiting for the killed one in the middle of a
    # step: then the last state is that of every third step.
    last = steps(out)[-1]
    assert saved_step(out) in ({last // 3 * 3, last} if how == "rank killed" else {last})
    assert last >= 3
    again = start(*two("run"))
    assert again.wait(TIMEOUT) == 0, again.stderr.read()
    assert steps(out) == steps(tmp_path / "whole") == list(range(1, 24))  # three epochs of 120 clips, 16 at a time
    expected = flexiast.load(tmp_path / "whole").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in flexiast.load(out).state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_ranks_whose_launcher_is_killed_while_they_start_end_too(sounds: Path, tmp_path: Path, seconds: float) -> None:
    out = tmp_path / "run"
    process = start(*command(sounds, out, "--epochs", "5000", ranks=2))
    while not ranks(process.pid, out):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait(TIMEOUT)
    assert_all_end(out)
