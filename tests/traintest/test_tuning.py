"""What fine-tuning changes and what it leaves, LoRA inside the saved weights, the moving average, exact resume."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast import PatchSize
from flexiast.errors import ConfigError, FlexiASTError
from flexiast.traintest import background as background_sounds
from flexiast.traintest.augment import AugmentConfig, clip_keys
from flexiast.traintest.background import add_background, read_background
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import ModelOptions, OptimConfig, PatchOptions
from flexiast.traintest.train import Trainer, train
from flexiast.traintest.tuning import MovingAverage, merged, parse_tune, select_trained
from tests.traintest.test_train import config, require_exact_resume, state, weights


@pytest.fixture(scope="module")
def start(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, trained for some steps, of the classes of `sounds`."""
    out = tmp_path_factory.mktemp("start") / "run"
    train(config(sounds, out, epochs=0.5), progress=False)
    return out


def tuned(sounds: Path, out: Path, start: Path, tune: str, **changes: object) -> TrainConfig:
    return config(sounds, out, model=ModelOptions(init=str(start)), tune=tune, epochs=0.5, **changes)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are not what they were."""
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


CLASSIFIER = {f"{layer}.{part}" for layer in ("head", "head_norm") for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("tune", "blocks"),
    [("head", ()), ("last:1", ("blocks.3.", "norm.")), ("lora:2", ("blocks.",)), ("all", ("",))],
)
def test_only_what_is_tuned_changes(tune: str, blocks: tuple[str, ...], start, sounds: Path, tmp_path: Path) -> None:
    train(tuned(sounds, tmp_path / "a", start, tune), progress=False)
    before = weights(start)
    changed = moved(before, weights(tmp_path / "a"))
    expected = {name for name in before if name in CLASSIFIER or name.startswith(blocks)}
    if tune == "lora:2":
        linear = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
        expected = {name for name in expected if name in CLASSIFIER or name.endswith(linear)}
    assert changed == expected


def test_lora_starts_as_the_model_and_is_merged_into_it(start: Path) -> None:
    model, x = flexiast.load(start), torch.randn(2, 96, 128)
    expected = model(x)
    select_trained(model, "lora:3")
    assert torch.equal(model(x), expected)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    width, depth = model.config.width, model.config.depth
    assert trained == depth * 3 * (4 * width + 2 * width + 2 * 5 * width) + 2 * width + 6 * (width + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.1)
    plain = merged(model)
    assert plain.state_dict().keys() == flexiast.load(start).state_dict().keys()
    torch.testing.assert_close(plain(x), model(x))
    assert (plain(x) - expected).abs().max() > 0.01


@pytest.mark.parametrize("text", ["", "body", "last", "last:0", "lora:0", "head:2", "last:-1"])
def test_what_cannot_be_tuned_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tune: found '.*', expected all, head, last:N, lora or lora:RANK"):
        parse_tune(text)


def test_a_part_of_a_model_needs_a_start_and_blocks(start: Path, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune: found head, expected all without a model to start from"):
        Trainer(config(sounds, tmp_path, tune="head"), progress=False)
    with pytest.raises(ConfigError, match="tune: found last:9, the network has 4 blocks"):
        Trainer(tuned(sounds, tmp_path, start, "last:9"), progress=False)
    with pytest.raises(ConfigError, match=r"optim\.layer_decay: found 0\.7, expected 1 with tune head"):
        tuned(sounds, tmp_path, start, "head", optim=OptimConfig(layer_decay=0.7))


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.2, 0.0])
def test_a_resumed_fine_tuning_equals_the_uninterrupted_one(
    ema: float, start: Path, sounds: Path, tmp_path: Path
) -> None:
    def run(name: str) -> TrainConfig:
        return dataclasses.replace(
            tuned(sounds, tmp_path / name, start, "lora" if ema else "all", save_every=2, ema=ema),
            model=ModelOptions(init=str(start), drop_path=0.2 if ema else 0.0),
            optim=OptimConfig(lr=1e-3, warmup_steps=1, layer_decay=0.7, head_lr=3e-3),
            patches=PatchOptions((PatchSize(16, 16), PatchSize(24, 32)), dropout=0.3),
        )

    require_exact_resume(run, dies_at=3, saved_at=2)


def test_the_average_is_what_is_kept(start: Path, sounds: Path, tmp_path: Path) -> None:
    train(tuned(sounds, tmp_path / "a", start, "all", ema=0.5), progress=False)
    saved, kept = state(tmp_path / "a"), weights(tmp_path / "a")
    assert saved["ema"]["steps"] == saved["step"] == 5
    assert not moved(saved["ema"]["mean"], {name: kept[name] for name in saved["ema"]["mean"]})
    assert moved(saved["model"], kept)


def test_the_moving_average_is_that_of_its_formula() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average, expected = MovingAverage.over(layer, share=0.1, total_steps=50), layer.weight.item()
    assert average.decay == pytest.approx(0.8)
    for step in range(1, 60):
        layer.weight.data.fill_(step)
        average.add(layer)
        decay = min(0.8, step / (9 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.mean["weight"]) == pytest.approx(expected, rel=1e-5)
    assert MovingAverage.over(layer, share=0, total_steps=50) is None


def test_drop_path_is_less_in_early_blocks_and_none_in_evaluation(sounds: Path, tmp_path: Path) -> None:
    made = Trainer(config(sounds, tmp_path, model=ModelOptions(size="micro", drop_path=0.4)), progress=False)
    assert [block.drop_path1.drop_prob for block in made.model.blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    x = torch.randn(1, 96, 128)
    made.model.eval()
    assert torch.equal(made.model(x), made.model(x))


def test_background_is_mixed_below_half_of_the_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(8000), 16_000)
    background = read_background(tmp_path, flexiast.FeatureConfig(frames=50))
    assert background.shape == (16_000,)
    clips = 0.3 * torch.randn(200, 4000, generator=torch.Generator().manual_seed(0))
    keys = clip_keys(0, torch.zeros(200, dtype=torch.int64), torch.arange(200))
    added = add_background(clips, background, keys) - clips
    mixed = added.abs().amax(dim=1) > 0
    assert 70 < mixed.sum() < 130
    snr = 10 * (clips.square().mean(dim=1) / added.square().mean(dim=1))[mixed].log10()
    assert 4.9 < float(snr.min()) < 8
    assert 22 < float(snr.max()) < 25.1
    with pytest.raises(ConfigError, match=r"augment\.background: .* holds 1\.0 s of sound, expected at least"):
        read_background(tmp_path, flexiast.FeatureConfig(frames=1024))


def test_background_beyond_the_longest_is_left_out_with_a_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(background_sounds, "LONGEST", 2)
    features = flexiast.FeatureConfig(frames=50)
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(16_000, 0.1 + 0.1 * number), 16_000)
        joined = read_background(tmp_path, features)
        assert len(joined) == min(number + 1, 2) * 16_000
        assert ("only the first 2 s of sound" in caplog.text) == (number > 0)
    assert joined[-1].item() == pytest.approx(0.2, abs=1e-4)


def test_gain_and_background_reach_the_student_alone_in_training(sounds: Path, tmp_path: Path) -> None:
    def inputs(augment: AugmentConfig) -> torch.Tensor:
        made = Trainer(config(sounds, tmp_path, augment=augment), progress=False)
        batch = made.dataset.__getitems__(made.plan.schedule[0])
        return made.objective.prepare(batch).student

    plain = {"roll": 0, "noise": 0, "freq_mask": 0, "time_mask": 0, "mixup": 0}
    difference = inputs(AugmentConfig(**plain, gain=6)) - inputs(AugmentConfig(**plain))
    logs = difference[:, 48] * 2 * 3.5 / (np.log(10) / 10)  # normalised log-energy back to decibels
    assert float(logs.abs().max()) < 6.01
    assert float(logs.std(dim=0).median()) > 1
    assert (inputs(AugmentConfig(**plain, background=sounds / "val")) != inputs(AugmentConfig(**plain))).any()


def test_a_missing_background_is_one_line(sounds: Path, tmp_path: Path) -> None:
    made = config(sounds, tmp_path, augment=AugmentConfig(background=tmp_path / "none"))
    with pytest.raises(FlexiASTError, match="none"):
        Trainer(made, progress=False)


def test_every_process_starts_lora_alike(start: Path, sounds: Path, tmp_path: Path) -> None:
    made = tuned(sounds, tmp_path, start, "lora")
    first, second = (Trainer(made, progress=False).model for _ in range(2))
    assert not moved(first.state_dict(), second.state_dict())
