"""A batch in parts gives the gradients of the whole, in less memory; what does not fit is tried in smaller parts."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from flexiast import PatchSize
from flexiast.data.dataset import load_batches
from flexiast.errors import CheckpointError
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.objective import Inputs
from flexiast.traintest.options import FeatureOptions, ModelOptions, OptimConfig
from flexiast.traintest.train import Trainer, train
from tests.traintest.test_train import config, state

EIGHT, SIXTEEN = PatchSize(8, 8), PatchSize(16, 16)
TOKENS_AT_16 = 8 * 8 + 1  # 128 bins and 128 frames, and the cls token


def trainer(sounds: Path, out: Path, **changes: object) -> Trainer:
    """Not to be run; its blocks are not the identity, so that all gradients flow."""
    made = Trainer(
        config(sounds, out, **{"features": FeatureOptions(frames=128), "precision": "fp32", **changes}), progress=False
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def first_inputs(made: Trainer) -> Inputs:
    return made.objective.prepare(next(load_batches(made.dataset, made.plan.schedule.batches(0, 1), workers=0)))


def part_sizes(made: Trainer, patch: PatchSize) -> list[int]:
    """Clips of each micro-batch."""
    return [len(part.targets) for part in made.stepper.micro_batches(first_inputs(made), patch)]


def gradients(made: Trainer, patch: PatchSize) -> tuple[float, torch.Tensor]:
    loss = made.stepper._gradients(first_inputs(made), [patch])
    return loss, torch.cat([p.grad.flatten() for p in made.model.parameters()])


@pytest.mark.parametrize("limit", [{"micro_batch": 5}, {"token_budget": 700}])
def test_parts_give_the_gradients_of_the_undivided_batch(sounds: Path, tmp_path: Path, limit: dict[str, int]) -> None:
    changes = {"augment": AugmentConfig(roll=4, noise=0.1, freq_mask=8, mixup=0.5)}
    whole_loss, whole = gradients(trainer(sounds, tmp_path / "a", **changes), EIGHT)
    divided = trainer(sounds, tmp_path / "b", **changes, **limit)
    assert part_sizes(divided, EIGHT)[0] < 12
    loss, parts = gradients(divided, EIGHT)
    assert loss == pytest.approx(whole_loss, abs=1e-5)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_a_batch_at_two_sizes_has_the_mean_of_their_gradients(sounds: Path, tmp_path: Path) -> None:
    made = trainer(sounds, tmp_path / "a")
    inputs = first_inputs(made)
    half = len(inputs.targets) // 2
    made.stepper._gradients(inputs, [EIGHT, SIXTEEN])
    mixed = torch.cat([p.grad.flatten() for p in made.model.parameters()])
    expected = torch.zeros_like(mixed)
    for patch, part in zip((EIGHT, SIXTEEN), inputs.parts(half), strict=True):
        made.model.zero_grad()
        made.objective(made.model, part, patch).backward()
        expected += torch.cat([p.grad.flatten() for p in made.model.parameters()]) / 2
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def activation_bytes(made: Trainer, patch: PatchSize) -> int:
    """The most bytes that one forward pass keeps for its backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in made.model.parameters()}
    passes: list[dict[int, int]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            passes[-1][storage.data_ptr()] = storage.nbytes()
        return tensor

    network = made.model.forward

    def counted(*inputs: object) -> torch.Tensor:
        passes.append({})
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            return network(*inputs)

    made.model.forward = counted  # type: ignore[method-assign]
    made.stepper._gradients(first_inputs(made), [patch])
    return max(sum(one.values()) for one in passes)


def test_token_budget_trains_patch_8_in_the_memory_of_patch_16(sounds: Path, tmp_path: Path) -> None:
    budgeted = trainer(sounds, tmp_path / "b", token_budget=12 * TOKENS_AT_16, model=ModelOptions(size="micro"))
    assert part_sizes(budgeted, SIXTEEN) == [12]
    assert part_sizes(budgeted, EIGHT) == [3, 3, 3, 3]
    at_16, at_8 = activation_bytes(budgeted, SIXTEEN), activation_bytes(budgeted, EIGHT)
    assert at_8 <= 1.2 * at_16
    free = trainer(sounds, tmp_path / "f", model=ModelOptions(size="micro"))
    assert activation_bytes(free, EIGHT) > 3 * at_16  # what the budget saves


def test_out_of_memory_is_met_with_smaller_parts_remembered_and_logged_once(sounds, tmp_path: Path, caplog) -> None:
    _, expected = gradients(trainer(sounds, tmp_path / "a"), EIGHT)
    small = trainer(sounds, tmp_path / "b")
    network, tried = small.model.forward, []

    def needs_much(log_mel: torch.Tensor, patch: PatchSize) -> torch.Tensor:
        tried.append(len(log_mel))
        if patch == EIGHT and len(log_mel) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return network(log_mel, patch)

    small.model.forward = needs_much  # type: ignore[method-assign]
    _, found = gradients(small, EIGHT)
    assert tried == [12, 6, 3, 3, 3, 3]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    tried.clear()
    gradients(small, EIGHT)
    gradients(small, SIXTEEN)
    assert tried == [3, 3, 3, 3, 12]
    assert [r.message for r in caplog.records] == [
        "out of memory at patch size 8: from now on 6 clips at once",
        "out of memory at patch size 8: from now on 3 clips at once",
    ]


def test_what_does_not_fit_clip_by_clip_is_an_error(sounds: Path, tmp_path: Path) -> None:
    made = trainer(sounds, tmp_path / "a")

    def never(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    made.model.forward = never  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        gradients(made, SIXTEEN)


def test_clipping_bounds_the_step(sounds: Path, tmp_path: Path) -> None:
    made = trainer(sounds, tmp_path / "a", optim=OptimConfig(clip_norm=1e-3))
    made.stepper.step(first_inputs(made), [SIXTEEN], 1.0)
    norm = torch.nn.utils.get_total_norm([p.grad for p in made.model.parameters()])
    assert norm == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_compiled_blocks_train_as_plain_ones(sounds: Path, tmp_path: Path) -> None:
    plain_loss, plain = gradients(trainer(sounds, tmp_path / "a"), SIXTEEN)
    compiled = trainer(sounds, tmp_path / "b", compile=True)
    for patch in (SIXTEEN, PatchSize(32, 32)):
        loss, found = gradients(compiled, patch)
        if patch == SIXTEEN:
            assert loss == pytest.approx(plain_loss, abs=1e-5)
            torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)
    assert list(compiled.model.state_dict()) == list(trainer(sounds, tmp_path / "c").model.state_dict())


def test_scaling_the_loss_changes_no_gradient_and_a_step_too_large_for_float16_no_weight(sounds, tmp_path) -> None:
    """In float32, where a power of two as scale is exact; `fp16` makes the same scaler."""
    plain, scaled = trainer(sounds, tmp_path / "a"), trainer(sounds, tmp_path / "b")
    scaled.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for made in (plain, scaled):
        assert made.stepper.step(first_inputs(made), [SIXTEEN], 1.0)[1] == "used"
    expected = plain.model.state_dict()
    for name, tensor in scaled.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    before = {name: tensor.clone() for name, tensor in scaled.model.state_dict().items()}
    objective = scaled.objective
    scaled.stepper.objective = lambda *inputs: 100 * objective(*inputs)  # times 2^127 it is beyond float32
    scaled.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    assert scaled.stepper.step(first_inputs(scaled), [SIXTEEN], 1.0)[1] == "rescaled"
    assert scaled.stepper.scaler.get_scale() == 2.0**126
    assert all(torch.equal(tensor, before[name]) for name, tensor in scaled.model.state_dict().items())
    scaled.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)  # no smaller scale would help
    scaled.stepper.objective = lambda *inputs: objective(*inputs).mul(0).sqrt()  # of 0: 0, with an infinite slope
    assert scaled.stepper.step(first_inputs(plain), [SIXTEEN], 1.0)[1] == "not finite"


@pytest.mark.slow
def test_fp16_trains_and_keeps_the_scale_in_its_state(sounds: Path, tmp_path: Path) -> None:
    made = config(sounds, tmp_path / "run", precision="fp16", epochs=0.3)
    train(made, progress=False)
    saved = state(tmp_path / "run")
    assert saved["skipped"] == 0
    assert saved["scaler"]["scale"] > 2.0**5
    again = Trainer(dataclasses.replace(made, epochs=0.4), progress=False)
    again.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**5)
    again.state.restore(saved)
    assert again.stepper.scaler.get_scale() == saved["scaler"]["scale"]
    hostile = [
        {"scale": "x"},
        {"scale": 0.0},
        {"scale": math.inf},
        {"growth_factor": None},
        {"growth_interval": 0.5},
        {},
    ]
    for change in hostile:
        scaler = saved["scaler"] | change if change else {"scale": 1.0}
        with pytest.raises(CheckpointError, match="checkpoints: does not fit this training"):
            again._restore(saved | {"scaler": scaler})
