"""The loop: it learns, becomes flexible, resumes exactly, and refuses what makes no sense before it writes."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast import PatchSize
from flexiast.data.augment import AugmentConfig
from flexiast.data.dataset import load_batches
from flexiast.errors import CheckpointError, ConfigError, DataError
from flexiast.traintest.config import (
    DataConfig,
    DistillConfig,
    FeatureOptions,
    ModelOptions,
    OptimConfig,
    PatchOptions,
    TrainConfig,
)
from flexiast.traintest.train import Interrupted, Trainer, train

SIZES = tuple(PatchSize(s, s) for s in (8, 16, 24, 32, 48))


def config(sounds: Path, out: Path, **changes: object) -> TrainConfig:
    """A run of a few seconds; `changes` replace whole fields."""
    base = TrainConfig(
        out=out,
        data=DataConfig(train=sounds / "train", val=sounds / "val", batch_size=12, workers=0),
        features=FeatureOptions(frames=96, mean=-6.0, std=3.5),
        model=ModelOptions(size="micro", pool="mean"),
        optim=OptimConfig(name="adamw", lr=1e-3, warmup_steps=5, schedule="cosine"),
        augment=AugmentConfig(roll=4, noise=0.1, freq_mask=8, mixup=0.5),
        epochs=1,
        log_every=2,
    )
    return dataclasses.replace(base, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return flexiast.load(run).state_dict()


def records(run: Path) -> list[dict]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "clips_per_second"} for line in lines]


def accuracies(run: Path) -> dict[str, float]:
    """Validation accuracy by patch size at the end of a run."""
    last = [line for line in records(run) if "validation" in line][-1]
    return {patch: metrics["accuracy"] for patch, metrics in last["validation"].items()}


def test_a_small_run_learns_collapses_at_other_sizes_and_becomes_flexible(sounds: Path, tmp_path: Path) -> None:
    common = {"augment": AugmentConfig(roll=4), "eval_patch_sizes": SIZES, "eval_every": 100.0}
    fixed = config(sounds, tmp_path / "fixed", epochs=20, **common)
    train(fixed, progress=False)
    flexible = dataclasses.replace(
        fixed,
        out=tmp_path / "flexible",
        model=ModelOptions(init=tmp_path / "fixed"),
        patches=PatchOptions(SIZES, (1, 2, 2, 3, 3)),
    )
    train(flexible, progress=False)
    before, after = accuracies(tmp_path / "fixed"), accuracies(tmp_path / "flexible")
    assert before["16"] >= 0.8
    assert min(after.values()) >= 0.7
    for large in ("32", "48"):
        assert after[large] >= before[large] + 0.25
    model = flexiast.load(tmp_path / "flexible")
    assert model.metadata["trained_patch_sizes"] == [str(s) for s in SIZES]
    first = sorted((sounds / "val" / "high_up").iterdir())[0]
    assert model.predict(first, patch_size=32, top_k=1)[0].label == "high_up"


@pytest.mark.parametrize(("optimizer", "workers"), [("adam", 1), ("muon", 0)])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, workers: int
) -> None:
    def run(name: str) -> TrainConfig:
        base = config(sounds, tmp_path / name, save_every=3, eval_every=0.5, average_from=0.5)
        return dataclasses.replace(
            base,
            data=dataclasses.replace(base.data, workers=workers),
            optim=dataclasses.replace(base.optim, name=optimizer),
            patches=PatchOptions((PatchSize(16, 16), PatchSize(24, 32), PatchSize(48, 48))),
        )

    train(run("whole"), progress=False)
    step = Trainer._step

    def dies_at_step_8(self: Trainer, *args: object) -> torch.Tensor:
        if self.step == 8:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", dies_at_step_8)
        with pytest.raises(KeyboardInterrupt):
            train(run("broken"), progress=False)
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 6
    train(run("broken"), progress=False)

    expected = weights(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "broken").items():
        assert torch.equal(tensor, expected[name]), name
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def test_a_signal_finishes_the_step_saves_and_the_run_goes_on(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    step = Trainer._step

    def signalled(self: Trainer, *args: object) -> torch.Tensor:
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", signalled)
        with pytest.raises(Interrupted, match="after step 5 of 10"):
            train(config(sounds, tmp_path / "run"), progress=False)
    train(config(sounds, tmp_path / "run"), progress=False)
    train(config(sounds, tmp_path / "whole"), progress=False)
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_a_finished_run_does_nothing_when_run_again(sounds: Path, tmp_path: Path) -> None:
    train(config(sounds, tmp_path / "run"), progress=False)
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}
    train(config(sounds, tmp_path / "run"), progress=False)
    assert {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()} == before


def test_distillation_alone_pulls_the_student_to_the_teacher(sounds: Path, tmp_path: Path) -> None:
    train(config(sounds, tmp_path / "teacher", epochs=3), progress=False)
    student = config(
        sounds,
        tmp_path / "student",
        epochs=3,
        distill=DistillConfig(teacher=tmp_path / "teacher", label_weight=0.0, temperature=2.0),
    )
    train(student, progress=False)
    losses = [line["loss"] for line in records(tmp_path / "student") if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("clean", [True, False])
def test_teacher_sees_what_the_student_sees_unless_asked_to_be_clean(sounds: Path, tmp_path: Path, clean: bool) -> None:
    plain = config(sounds, tmp_path / "run", augment=AugmentConfig(noise=0.5))
    Trainer(plain).model.save_pretrained(tmp_path / "teacher")
    distill = DistillConfig(teacher=tmp_path / "teacher", clean_teacher=clean)
    trainer = Trainer(dataclasses.replace(plain, distill=distill))
    seen: dict[str, torch.Tensor] = {}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher)):
        model.register_forward_pre_hook(lambda _model, inputs, name=name: seen.__setitem__(name, inputs[0]))
    batch = next(load_batches(trainer.dataset, trainer.schedule.batches(0, 1), workers=0))
    trainer._loss(batch, PatchSize(16, 16))
    unaugmented = trainer.model.front_end(batch.waveform, batch.lengths)
    assert torch.equal(seen["teacher"], unaugmented if clean else seen["student"])
    assert not torch.equal(seen["student"], unaugmented)


def test_patch_sizes_in_the_log_are_those_of_the_sampler(sounds: Path, tmp_path: Path) -> None:
    sizes = (PatchSize(16, 16), PatchSize(16, 32), PatchSize(48, 48))
    run = config(sounds, tmp_path / "run", patches=PatchOptions(sizes, (1, 1, 2)), log_every=1)
    train(run, progress=False)
    logged = [line["patch_size"] for line in records(tmp_path / "run") if "patch_size" in line]
    assert logged == [str(Trainer(run).patches[step]) for step in range(10)]
    assert len(set(logged)) > 1


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(sounds: Path, tmp_path: Path) -> None:
    wild = config(sounds, tmp_path / "run", optim=OptimConfig(lr=1e30, warmup_steps=0), log_every=1)
    with pytest.raises(ConfigError, match=r"found NaN by step \d+, patch size 16"):
        train(wild, progress=False)


def test_average_of_weights_is_what_is_kept(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run", epochs=2, average_from=1.0, optim=OptimConfig(lr=1e-3, warmup_steps=0))
    train(run, progress=False)
    last = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert last["average"]["count"] == 2
    kept = weights(tmp_path / "run")
    assert all(torch.equal(kept[name], mean.float()) for name, mean in last["average"]["mean"].items())
    assert not torch.equal(kept["head.weight"], last["model"]["head.weight"])


def test_a_model_is_adapted_to_other_labels_and_a_shorter_input(sounds: Path, tmp_path: Path) -> None:
    labels = flexiast.data.manifest.Labels.numbers(35)
    network = flexiast.FlexiASTConfig(classes=35, frames=128, width=96, depth=4, heads=3)
    big = flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=128), labels)
    big.save_pretrained(tmp_path / "big")
    trainer = Trainer(config(sounds, tmp_path / "run", model=ModelOptions(init=tmp_path / "big")))
    assert trainer.model.pos_embed.shape == (8, 6, 96)
    assert torch.equal(trainer.model.pos_embed, big.pos_embed[:, :6])
    assert trainer.model.head.weight.shape == (6, 96)
    assert torch.equal(trainer.model.kernel, big.kernel)


def test_resume_refuses_other_settings_and_other_data(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run")
    train(run, progress=False)
    state = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: belongs to a run with other settings \(seed: 0 -> 1\)"):
        train(dataclasses.replace(run, seed=1), progress=False)
    swapped = DataConfig(train=sounds / "val", val=sounds / "train", batch_size=12, workers=0)
    with pytest.raises(ConfigError, match="other data"):
        train(dataclasses.replace(run, data=swapped), progress=False)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == state


def test_a_damaged_state_is_named_and_left_alone(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run")
    train(run, progress=False)
    state = tmp_path / "run" / "checkpoint.pt"
    state.write_bytes(state.read_bytes()[:1000])
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not readable"):
        train(run, progress=False)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": PatchOptions((PatchSize(16, 128),))}, r"patch size 16x128"),
        ({"patches": PatchOptions((PatchSize(16, 16),), (1.0, 2.0))}, r"patches\.weights"),
        ({"model": ModelOptions(init=Path("nowhere"))}, r"nowhere: no such checkpoint"),
        ({"distill": DistillConfig(teacher=Path("nobody"))}, r"nobody: no such checkpoint"),
        ({"device": "quantum"}, r"device: found 'quantum'"),
        ({"data": DataConfig(train=Path("no/such/folder.json"), labels=Path("no.csv"))}, r"no\.csv"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(sounds: Path, tmp_path: Path, changes, message) -> None:
    with pytest.raises((ConfigError, CheckpointError, DataError), match=message):
        train(config(sounds, tmp_path / "run", **changes), progress=False)
    assert not (tmp_path / "run").exists()


def test_an_empty_clip_stops_the_run_and_keeps_what_was_saved(tmp_path: Path) -> None:
    from tests.sounds import write_folder

    root = tmp_path / "sounds"
    write_folder(root / "train", 4, seed=0)
    write_folder(root / "val", 1, seed=1)
    run = config(root, tmp_path / "run", epochs=3, save_every=1)
    trainer = Trainer(run)
    last_drawn = trainer.schedule[1][-1].clip  # the first epoch is two batches of twelve
    victim = trainer.train_data.clips[last_drawn].path
    victim.write_bytes(victim.read_bytes()[:44])  # a wav header that promises samples, and none
    with pytest.raises(DataError, match=victim.name):
        trainer.run()
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 1
