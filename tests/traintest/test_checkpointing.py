"""The state of a training run: restored exactly, refused when damaged; and the average of weights."""

import argparse
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flexiast.errors import CheckpointError
from flexiast.traintest.checkpointing import CheckpointStore, WeightAverage, load_state, restore_rng, rng_state


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A layer and its optimizer after some steps on random inputs."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    further(model, optimizer, steps)
    return model, optimizer


def further(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


def test_restored_state_goes_on_as_if_never_stopped(tmp_path):
    model, optimizer = trained(3)
    store = CheckpointStore(tmp_path, keep=1)
    store.save(3, {"step": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng_state()})
    further(model, optimizer, 4)

    again, its_optimizer = trained(0)
    state = store.latest()
    again.load_state_dict(state["model"])
    its_optimizer.load_state_dict(state["optimizer"])
    restore_rng(state["rng"])
    further(again, its_optimizer, 4)
    assert state["step"] == 3
    assert torch.equal(again.weight, model.weight)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"PK\x03\x04" + bytes(100),
        lambda content: b"\x80\x02.",
        lambda content: np.random.default_rng(0).bytes(1000),
    ],
    ids=["empty", "truncated", "zip", "pickle", "random"],
)
def test_damaged_state_is_refused(damage, tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"step": 3, "tensor": torch.zeros(1000)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_state(path)


def bad_opcode(path: Path) -> None:
    """Replace the pickle in a state by one whose only opcode does not exist."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, b"\x80\x02\xff." if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("kind", ["program", "opcode"])
def test_a_state_that_would_run_code_is_refused_without_the_advice_to_let_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"step": 3} | ({"arguments": argparse.Namespace(lr=1)} if kind == "program" else {}), path)
    if kind == "opcode":
        bad_opcode(path)
    found = "Unsupported (global: GLOBAL argparse.Namespace|operand 255)"
    with pytest.raises(CheckpointError, match=rf"state\.pt: not readable as a training state \(.*{found}") as refused:
        load_state(path)
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_state_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "none.pt"))):
        load_state(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, [1, 2], torch.zeros(2)])
def test_what_is_no_training_state_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: found no training state"):
        load_state(tmp_path / "other.pt")


def test_average_is_the_plain_mean():
    average, weights = WeightAverage(), []
    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Linear(3, 2)
        average.add(model)
        weights.append(model.weight.detach().clone())
    torch.testing.assert_close(average.weights()["weight"], torch.stack(weights).mean(dim=0))
    assert average.weights()["weight"].dtype == torch.float32


def test_average_goes_on_from_a_saved_one(tmp_path):
    models = [nn.Linear(3, 2) for _ in range(4)]
    whole, halves = WeightAverage(), WeightAverage()
    for model in models:
        whole.add(model)
    for model in models[:2]:
        halves.add(model)
    torch.save({"step": 0, "average": halves.state_dict()}, tmp_path / "state.pt")
    resumed = WeightAverage()
    resumed.load_state_dict(load_state(tmp_path / "state.pt")["average"])
    for model in models[2:]:
        resumed.add(model)
    assert all(torch.equal(resumed.weights()[name], mean) for name, mean in whole.weights().items())
