"""The learning rate against PyTorch's schedulers, and which optimizer has which parameter."""

from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR

from flexiast.errors import ConfigError
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from flexiast.traintest.optim import build_optimizers, lr_factor
from flexiast.traintest.options import OptimConfig

PUBLISHED = OptimConfig(
    name="adam", lr=1e-5, betas=(0.95, 0.999), weight_decay=5e-7, warmup_steps=1000, schedule="step", clip_norm=0
)
"""FlexiAST's and AST's settings."""


def optimizer() -> torch.optim.Optimizer:
    """Something for a scheduler to act on, with a rate of one."""
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def rates(scheduler, steps: int) -> list[float]:
    """The rate in each of so many steps."""
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("start", "every", "factor"),
    [(2, 1, 0.5), (10, 5, 0.5), (2, 1, 0.75), (5, 1, 0.85)],  # AudioSet; 2nd to 4th: as AST's other recipes write them
)
def test_step_schedule_is_multi_step_lr_by_epochs(start, every, factor):
    config = OptimConfig(schedule="step", step_from=start, step_every=every, step_factor=factor, warmup_steps=0)
    expected = rates(MultiStepLR(optimizer(), list(range(start, 1000, every)), factor), 25)
    per_epoch = 7
    got = [lr_factor(step, 25 * per_epoch, per_epoch, config) for step in range(25 * per_epoch)]
    assert got == pytest.approx([rate for rate in expected for _ in range(per_epoch)])


def test_published_schedule_halves_each_epoch_from_two():
    epochs = [lr_factor(epoch * 10, 200, 10, replace(PUBLISHED, warmup_steps=0)) for epoch in range(6)]
    assert epochs == [1, 1, 0.5, 0.25, 0.125, 0.0625]  # FlexiAST and AST: milestones 2, 3, 4, ..., factor 0.5


def test_drops_fall_where_epochs_end_inside_a_batch():
    got = [lr_factor(step, 100, 2.5, replace(PUBLISHED, warmup_steps=0, step_from=1)) for step in range(9)]
    assert got == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]  # epochs end at 2.5, 5 and 7.5 steps


def test_cosine_schedule_is_cosine_annealing():
    config = OptimConfig(schedule="cosine", warmup_steps=0)
    expected = rates(CosineAnnealingLR(optimizer(), T_max=50), 50)
    assert [lr_factor(step, 50, 10, config) for step in range(50)] == pytest.approx(expected)


def test_cosine_starts_after_warm_up_and_ends_at_zero():
    config = OptimConfig(schedule="cosine", warmup_steps=10)
    assert lr_factor(10, 50, 10, config) == 1
    assert lr_factor(30, 50, 10, config) == pytest.approx(0.5)
    assert lr_factor(50, 50, 10, config) == pytest.approx(0)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_warm_up_is_linear(schedule):
    config = OptimConfig(schedule=schedule, warmup_steps=10)
    expected = rates(LinearLR(optimizer(), start_factor=0.1, total_iters=9), 10)
    assert [lr_factor(step, 1000, 100, config) for step in range(10)] == pytest.approx(expected)


def test_constant_schedule_stays():
    config = OptimConfig(schedule="constant", warmup_steps=2)
    assert {lr_factor(step, 100, 10, config) for step in range(2, 200)} == {1.0}


@pytest.fixture(scope="module")
def model() -> FlexiAST:
    return FlexiAST(FlexiASTConfig(classes=3, frames=32, bins=16, patch_size=8, width=8, depth=2, heads=2))


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_every_parameter_is_in_exactly_one_group(name, model):
    optimizers = build_optimizers(model, OptimConfig(name=name, lr=1e-3, muon_lr=1e-2))
    groups = [group for one in optimizers for group in one.param_groups]
    found = sorted(id(p) for group in groups for p in group["params"])
    assert found == sorted(id(p) for p in model.parameters())
    assert all(group["peak_lr"] == group["lr"] for group in groups)


def test_frozen_parameters_are_left_out(model):
    model.kernel.requires_grad_(False)
    try:
        (only,) = build_optimizers(model, PUBLISHED)
    finally:
        model.kernel.requires_grad_(True)
    assert sum(len(group["params"]) for group in only.param_groups) == len(list(model.parameters())) - 1


def test_muon_has_the_matrices_of_the_blocks(model):
    adamw, muon = build_optimizers(model, OptimConfig(name="muon", lr=1e-3, muon_lr=1e-2))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)] for p in muon.param_groups[0]["params"]}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert found == {f"blocks.{i}.{layer}.weight" for i in range(2) for layer in layers}
    assert muon.param_groups[0]["peak_lr"] == 1e-2
    assert {group["peak_lr"] for group in adamw.param_groups} == {1e-3}


def test_adamw_decays_matrices_and_the_kernel_only(model):
    (adamw,) = build_optimizers(model, OptimConfig(name="adamw", lr=1e-3, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    decaying = {names[id(p)] for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    matrices = {
        name for name in names.values() if name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight"))
    }
    assert decaying == matrices | {"kernel", "head.weight"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0), ("muon_lr", -1), ("step_every", 0), ("warmup_steps", -1), ("weight_decay", -1), ("betas", (0.9, 1.0))],
)
def test_wrong_setting_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"optim\.{field}"):
        OptimConfig(**{field: value})


def test_lower_blocks_learn_more_slowly_and_the_classifier_at_its_own_rate():
    model = FlexiAST(FlexiASTConfig(classes=2, frames=32, width=32, depth=3, heads=2))
    for name in ("adam", "adamw", "muon"):
        config = OptimConfig(name=name, lr=1e-3, muon_lr=1e-2, layer_decay=0.5, head_lr=7e-3)
        optimizers = build_optimizers(model, config)
        rates = {id(p): g["peak_lr"] for o in optimizers for g in o.param_groups for p in g["params"]}
        found = {name: rates[id(p)] for name, p in model.named_parameters()}
        assert len(found) == len(rates)
        assert found["head.weight"] == found["head_norm.bias"] == 7e-3
        assert found["norm.weight"] == 1e-3
        scale = [found[f"blocks.{block}.norm1.weight"] for block in range(3)]
        assert scale == pytest.approx([1.25e-4, 2.5e-4, 5e-4])
        assert found["kernel"] == found["pos_embed"] == pytest.approx(6.25e-5)
        top = 5e-3 if name == "muon" else 5e-4
        assert found["blocks.2.attn.qkv.weight"] == pytest.approx(top)
        assert optimizers[0].param_groups[0]["lr"] == 1e-3  # the rate that is logged
