"""Clips at their native length in a training: each with its own frames, in fewer tokens, and resumed exactly."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast import PatchSize
from flexiast.cli import main
from flexiast.errors import ConfigError
from flexiast.traintest.augment import AugmentConfig, augment_clips, augment_features, clip_keys
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import ModelOptions, PatchOptions
from flexiast.traintest.train import Trainer, train
from tests.sounds import CLASSES, SAMPLE_RATE
from tests.sounds import sweep as sweeping
from tests.traintest import test_train, two_ranks
from tests.traintest.test_stepper import first_inputs, gradients
from tests.traintest.test_train import accuracies, records, weights

SIXTEEN = PatchSize(16, 16)
TOKENS_OF_HALF = 8 * 3 + 1  # 128 bins and 48 frames at patch 16, and the cls token


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `train` (20 clips in each of 6 classes) and `val` (5 each), of 0.3 to 1.2 s."""
    root, rng = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0)
    for split, clips in (("train", 20), ("val", 5)):
        for name, (start, end) in CLASSES.items():
            (root / split / name).mkdir(parents=True)
            for number in range(clips):
                samples = sweeping(start, end, rng, rng.uniform(0.3, 1.2))
                soundfile.write(root / split / name / f"{number}.wav", samples, SAMPLE_RATE)
    return root


def config(sounds: Path, out: Path, **changes: object) -> TrainConfig:
    base = test_train.config(sounds, out)
    return dataclasses.replace(base, data=dataclasses.replace(base.data, length="native"), **changes)


def shaken(made: Trainer) -> Trainer:
    """Not to be run; its blocks are not the identity, so that all gradients flow."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def test_every_clip_keeps_its_own_frames_and_the_window_is_the_most(uneven: Path, tmp_path: Path) -> None:
    made = Trainer(config(uneven, tmp_path, augment=AugmentConfig(0, 0, 4, 0.1, 0)), progress=False)
    batch = made.dataset.__getitems__(made.plan.schedule[0])
    expected = made.model.feature_config.frame_count(batch.lengths).clamp(max=96).tolist()
    assert made.objective.prepare(batch).frames == expected
    assert len(set(expected)) > 6
    assert max(expected) == 96


def test_augmentation_of_a_clip_depends_on_its_own_key_and_stays_within_its_frames() -> None:
    features, keys = flexiast.FeatureConfig(frames=60), clip_keys(0, torch.zeros(4).long(), torch.arange(4))
    clips = [torch.arange(1.0, frames + 1)[:, None].expand(frames, 128) for frames in (60, 20, 33, 7)]
    several = AugmentConfig(freq_mask=9, time_mask=8, roll=9, noise=0.1)
    together = augment_clips(clips, features, several, keys)
    for number, clip in enumerate(clips):
        alone = augment_clips([clip], features, several, keys[number : number + 1])[0]
        assert torch.equal(together[number], alone)
    assert torch.equal(together[0], augment_features(clips[0][None], features, several, keys[:1])[0])
    for clip, rolled in zip(clips, augment_clips(clips, features, AugmentConfig(0, 0, 9, 0.0), keys), strict=True):
        assert torch.equal(rolled.sort(dim=0).values, features.normalise(clip))  # no frame lost, none put in


@pytest.mark.parametrize("limit", [{"micro_batch": 5}, {"token_budget": 4 * TOKENS_OF_HALF}])
def test_parts_give_the_gradients_of_clips_one_at_a_time(uneven: Path, tmp_path: Path, limit: dict[str, int]) -> None:
    whole = shaken(Trainer(config(uneven, tmp_path / "a", precision="fp32"), progress=False))
    inputs = first_inputs(whole)
    for clip, target in zip(inputs.student, inputs.targets, strict=True):
        logits = whole.model(clip[None], SIXTEEN)
        (-(target * logits.log_softmax(-1)).sum() / len(inputs.targets)).backward()
    expected = torch.cat([p.grad.flatten() for p in whole.model.parameters()])
    divided = shaken(Trainer(config(uneven, tmp_path / "b", precision="fp32", **limit), progress=False))
    assert len(list(divided.stepper.micro_batches(inputs, SIXTEEN))) > 2
    _, found = gradients(divided, SIXTEEN)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_shorter_clips_share_larger_micro_batches(uneven: Path, tmp_path: Path) -> None:
    made = Trainer(config(uneven, tmp_path, token_budget=5 * TOKENS_OF_HALF), progress=False)
    parts = list(made.stepper.micro_batches(first_inputs(made), SIXTEEN))
    frames = [part.frames for part in parts]
    together = [one for part in frames for one in part]
    assert together == sorted(together)
    assert len(frames[0]) > len(frames[-2])
    assert all(sum(8 * -(-one // 16) + 1 for one in part) <= 5 * TOKENS_OF_HALF for part in frames)


@pytest.mark.slow
def test_a_small_run_learns_and_is_measured_at_native_length(uneven: Path, tmp_path: Path, caplog) -> None:
    run = config(uneven, tmp_path / "run", epochs=14, eval_every=100.0, augment=AugmentConfig(0, 0, 4, 0, 0))
    with caplog.at_level(logging.INFO, logger="flexiast"):
        train(run, progress=False)
    assert "clips are shorter than the model's window of 0.96 s: heard at their own length" in caplog.text
    assert accuracies(tmp_path / "run")["16"] >= 0.7
    assert flexiast.load(tmp_path / "run").feature_config.length == "native"


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(uneven, tmp_path: Path, monkeypatch) -> None:
    def run(name: str) -> TrainConfig:
        changes = {
            "patches": PatchOptions((SIXTEEN, PatchSize(24, 32), PatchSize(48, 48)), parts=2),
            "model": ModelOptions(size="micro", drop_path=0.2),
        }
        return config(uneven, tmp_path / name, save_every=2, epochs=0.6, token_budget=150, **changes)

    train(run("whole"), progress=False)
    step = Trainer._train_on

    def dies_at_step_5(self: Trainer, *args: object) -> None:
        if self.progress.step == 5:
            raise KeyboardInterrupt
        step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_on", dies_at_step_5)
        with pytest.raises(KeyboardInterrupt):
            train(run("broken"), progress=False)
    train(run("broken"), progress=False)
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "broken").items())
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def test_a_step_in_bfloat16_is_near_float32(uneven: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        made = shaken(Trainer(config(uneven, tmp_path / precision, precision=precision), progress=False))
        losses.append(gradients(made, SIXTEEN)[0])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.slow
def test_the_command_line_trains_at_native_length_and_goes_on_with_it(uneven: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    data = ["--data.train", str(uneven / "val"), "--data.val", str(uneven / "val")]
    quick = [*data, "--data.workers", "0", "--epochs", "0.3", "--log", "none"]
    assert main(["train", "--out", str(first), "--data.length", "native", *quick]) == 0
    assert json.loads((first / "config.json").read_text())["features"]["length"] == "native"
    assert main(["flexify", str(first), "--out", str(second), *quick, "--patches.sizes", "16", "48"]) == 0
    assert flexiast.load(second).feature_config.length == "native"


def test_compiled_blocks_are_refused(uneven: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compile: found True, expected False for clips of native length"):
        Trainer(config(uneven, tmp_path / "run", compile=True), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks_train_as_one_process(uneven: Path, tmp_path: Path) -> None:
    ranks = two_ranks.start("train_native", str(tmp_path / "two"), str(uneven))
    train(distributed(uneven, tmp_path / "one"), progress=False)
    two_ranks.finish(ranks)
    alone, together = ([r["loss"] for r in records(tmp_path / name) if "loss" in r] for name in ("one", "two"))
    assert len(alone) == 4
    np.testing.assert_allclose(together, alone, atol=1e-5)


def distributed(sounds: Path, out: Path) -> TrainConfig:
    """A short run whose ranks have different numbers of micro-batches."""
    return config(sounds, out, epochs=0.4, token_budget=100, precision="fp32", log_every=1)
