"""The loop: it learns, becomes flexible, resumes exactly, and refuses what makes no sense before it writes."""

import csv
import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast import PatchSize
from flexiast.data.audio import decode
from flexiast.data.dataset import load_batches
from flexiast.data.manifest import read_manifest
from flexiast.data.pack import pack
from flexiast.errors import CheckpointError, ConfigError, DataError
from flexiast.runtime.interruption import Interrupted
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.checkpointing import CheckpointStore, load_state
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import (
    DataConfig,
    DistillConfig,
    FeatureOptions,
    ModelOptions,
    OptimConfig,
    PatchOptions,
)
from flexiast.traintest.reporter import named
from flexiast.traintest.train import MOST_SKIPPED, Diverged, Trainer, train
from tests.sounds import write_folder

SIZES = tuple(PatchSize(s, s) for s in (8, 16, 24, 32, 48))


def config(sounds: Path, out: Path, **changes: object) -> TrainConfig:
    """A run of a few seconds; `changes` replace whole fields."""
    base = TrainConfig(
        out=out,
        data=DataConfig(train=sounds / "train", val=sounds / "val", batch_size=12, workers=0, mean=-6.0, std=3.5),
        features=FeatureOptions(frames=96),
        model=ModelOptions(size="micro", pool="mean"),
        optim=OptimConfig(name="adamw", lr=1e-3, warmup_steps=5, schedule="cosine"),
        augment=AugmentConfig(roll=4, noise=0.1, freq_mask=8, mixup=0.5),
        epochs=1,
        log_every=2,
        log="none",
    )
    return dataclasses.replace(base, **changes)


def state(run: Path) -> dict:
    """The newest saved state of a run."""
    return load_state(CheckpointStore(run / "checkpoints", keep=1).paths()[-1])


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
        model=ModelOptions(init=str(tmp_path / "fixed")),
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
    assert model.metadata["trained_rectangles"] is False
    first = sorted((sounds / "val" / "high_up").iterdir())[0]
    assert model.predict(first, patch_size=32, top_k=1)[0].label == "high_up"


def require_exact_resume(run: Callable[[str], TrainConfig], dies_at: int, saved_at: int) -> None:
    """A run that dies at a step and goes on ends with the weights and the log of one that was never interrupted.

    run: its settings, for a run directory of this name.
    """
    whole, broken = run("whole"), run("broken")
    train(whole, progress=False)
    step = Trainer._train_on

    def dies(self: Trainer, *args: object) -> None:
        if self.progress.step == dies_at:
            raise KeyboardInterrupt
        step(self, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_train_on", dies)
        with pytest.raises(KeyboardInterrupt):
            train(broken, progress=False)
    assert state(broken.out)["step"] == saved_at
    train(broken, progress=False)
    expected = weights(whole.out)
    for name, tensor in weights(broken.out).items():
        assert torch.equal(tensor, expected[name]), name
    assert records(broken.out) == records(whole.out)


@pytest.mark.parametrize(("optimizer", "workers"), [("adam", 1), ("muon", 0)])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    sounds: Path, tmp_path: Path, optimizer: str, workers: int
) -> None:
    def run(name: str) -> TrainConfig:
        base = config(sounds, tmp_path / name, save_every=3, eval_every=0.5, average_from=0.5)
        return dataclasses.replace(
            base,
            data=dataclasses.replace(base.data, workers=workers),
            optim=dataclasses.replace(base.optim, name=optimizer),
            patches=PatchOptions((PatchSize(16, 16), PatchSize(24, 32), PatchSize(48, 48))),
        )

    require_exact_resume(run, dies_at=8, saved_at=6)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_finishes_the_step_saves_and_the_run_goes_on(sounds, tmp_path: Path, monkeypatch, number) -> None:
    step = Trainer._train_on

    def signalled(self: Trainer, *args: object) -> None:
        if self.progress.step == 4:
            os.kill(os.getpid(), number)
        step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_on", signalled)
        with pytest.raises(Interrupted, match="after step 5 of 10"):
            train(config(sounds, tmp_path / "run"), progress=False)
    train(config(sounds, tmp_path / "run"), progress=False)
    train(config(sounds, tmp_path / "whole"), progress=False)
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_a_finished_run_says_so_and_does_nothing_when_run_again(sounds, tmp_path: Path, caplog) -> None:
    train(config(sounds, tmp_path / "run"), progress=False)
    before = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    with caplog.at_level("INFO", "flexiast"):
        train(config(sounds, tmp_path / "run"), progress=False)
    assert {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()} == before
    assert "already trained to step 10 of 10" in caplog.text


@pytest.mark.slow
def test_distillation_alone_pulls_the_student_to_the_teacher(sounds: Path, tmp_path: Path) -> None:
    train(config(sounds, tmp_path / "teacher", epochs=3), progress=False)
    student = config(
        sounds,
        tmp_path / "student",
        epochs=3,
        distill=DistillConfig(teacher=str(tmp_path / "teacher"), label_weight=0.0, temperature=2.0),
    )
    train(student, progress=False)
    losses = [line["loss"] for line in records(tmp_path / "student") if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("clean", [True, False])
def test_teacher_sees_what_the_student_sees_unless_asked_to_be_clean(sounds: Path, tmp_path: Path, clean: bool) -> None:
    plain = config(sounds, tmp_path / "run", augment=AugmentConfig(noise=0.5))
    Trainer(plain).model.save_pretrained(tmp_path / "teacher")
    distill = DistillConfig(teacher=str(tmp_path / "teacher"), clean_teacher=clean)
    trainer = Trainer(dataclasses.replace(plain, distill=distill))
    seen: dict[str, torch.Tensor] = {}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher)):
        model.register_forward_pre_hook(lambda _model, inputs, name=name: seen.__setitem__(name, inputs[0]))
    batch = next(load_batches(trainer.dataset, trainer.plan.schedule.batches(0, 1), workers=0))
    trainer.objective(trainer.model, trainer.objective.prepare(batch), PatchSize(16, 16))
    waveform, lengths, _ = batch.on(torch.device("cpu"))
    unaugmented = trainer.model.front_end(waveform, lengths)
    assert torch.equal(seen["teacher"], unaugmented if clean else seen["student"])
    assert not torch.equal(seen["student"], unaugmented)


def test_a_teacher_with_a_front_end_and_classes_of_its_own_hears_the_clip_at_its_rate(sounds, tmp_path: Path) -> None:
    names = read_manifest(sounds / "train").labels.names
    labels = flexiast.data.manifest.Labels(("extra", *names[::-1]), ("extra", *names[::-1]))
    features = flexiast.FeatureConfig(sample_rate=8_000, frames=96, bins=40, mean=-3.0)
    network = flexiast.FlexiASTConfig(len(labels), frames=96, bins=40, width=16, depth=1, heads=2, patch_size=8)
    flexiast.AudioClassifier(network, features, labels).save_pretrained(tmp_path / "teacher")
    run = config(sounds, tmp_path / "run", distill=DistillConfig(teacher=str(tmp_path / "teacher")))
    run = dataclasses.replace(run, augment=AugmentConfig(roll=4, mixup=0.0))
    trainer = Trainer(run)
    assert trainer.teacher.labels == trainer.model.labels
    batch = next(load_batches(trainer.dataset, trainer.plan.schedule.batches(0, 1), workers=0))
    inputs = trainer.objective.prepare(batch)
    assert inputs.teacher.shape == (12, 96, 40)
    clip = trainer.train_data.clips[batch.clips[0]].path
    expected = trainer.teacher.front_end(decode(clip, 8_000, resampler="sinc")[None])
    assert float((inputs.teacher[0] - expected[0]).abs().mean()) < 0.02
    train(run, progress=False)
    losses = [line["loss"] for line in records(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0]


def test_patch_sizes_in_the_log_are_those_of_the_sampler(sounds: Path, tmp_path: Path) -> None:
    sizes = (PatchSize(16, 16), PatchSize(16, 32), PatchSize(48, 48))
    run = config(sounds, tmp_path / "run", patches=PatchOptions(sizes, (1, 1, 2)), log_every=1)
    train(run, progress=False)
    logged = [line["patch_size"] for line in records(tmp_path / "run") if "patch_size" in line]
    assert logged == [named(Trainer(run).plan.patches[step]) for step in range(10)]
    assert len(set(logged)) > 1


def test_steps_without_a_finite_loss_are_skipped_named_and_stop_the_run(sounds: Path, tmp_path: Path) -> None:
    wild = config(sounds, tmp_path / "run", optim=OptimConfig(lr=1e30, warmup_steps=0), log_every=1, epochs=3)
    with pytest.raises(Diverged, match=r"no finite value or gradient in 6 steps up to step \d+, patch size 16"):
        train(wild, progress=False)
    skipped = [line for line in records(tmp_path / "run") if "skipped" in line]
    assert len(skipped) == MOST_SKIPPED + 1
    assert all(len(line["files"]) == 12 and line["patch_size"] == "16" for line in skipped)
    saved = state(tmp_path / "run")
    assert saved["skipped"] == saved["skipped_in_a_row"] == MOST_SKIPPED + 1


def test_one_bad_gradient_leaves_weights_and_optimizer_as_they_were(sounds: Path, tmp_path: Path) -> None:
    trainer = Trainer(config(sounds, tmp_path / "run"))
    batch = next(load_batches(trainer.dataset, trainer.plan.schedule.batches(0, 1), workers=0))
    inputs = trainer.objective.prepare(batch)
    trainer.stepper.step(inputs, [PatchSize(16, 16)], 1.0)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    infinite = inputs._replace(student=inputs.student * float("inf"))
    assert trainer.stepper.step(infinite, [PatchSize(16, 16)], 1.0)[1] == "not finite"
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(s["step"] == 1 for s in trainer.stepper.optimizers[0].state.values())


@pytest.mark.slow
def test_average_of_weights_is_what_is_kept(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run", epochs=2, average_from=1.0, optim=OptimConfig(lr=1e-3, warmup_steps=0))
    train(run, progress=False)
    last = state(tmp_path / "run")
    assert last["average"]["count"] == 2
    kept = weights(tmp_path / "run")
    assert all(torch.equal(kept[name], mean.float()) for name, mean in last["average"]["mean"].items())
    assert not torch.equal(kept["head.weight"], last["model"]["head.weight"])


def test_a_model_is_adapted_to_other_labels_and_a_shorter_input(sounds: Path, tmp_path: Path) -> None:
    labels = flexiast.data.manifest.Labels.numbers(35)
    network = flexiast.FlexiASTConfig(classes=35, frames=128, width=96, depth=4, heads=3)
    big = flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=128), labels)
    big.save_pretrained(tmp_path / "big")
    trainer = Trainer(config(sounds, tmp_path / "run", model=ModelOptions(init=str(tmp_path / "big"))))
    assert trainer.model.pos_embed.shape == (8, 6, 96)
    assert torch.equal(trainer.model.pos_embed, big.pos_embed[:, 1:7])  # cut to the centre, as AST does
    assert trainer.model.head.weight.shape == (6, 96)
    assert torch.equal(trainer.model.kernel, big.kernel)


@pytest.mark.slow
def test_resume_refuses_other_settings_and_other_data_unless_overridden(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run")
    train(run, progress=False)
    before = state(tmp_path / "run")["step"]
    with pytest.raises(ConfigError, match=r"checkpoints: belongs to a run with other settings \(epochs: 1 -> 1.5\)"):
        train(dataclasses.replace(run, epochs=1.5), progress=False)
    swapped = dataclasses.replace(run.data, train=sounds / "val", val=sounds / "train")
    with pytest.raises(ConfigError, match=r"the data: .* have changed"):
        train(dataclasses.replace(run, data=swapped), progress=False)
    assert state(tmp_path / "run")["step"] == before == 10
    train(dataclasses.replace(run, epochs=1.5, override=True), progress=False)
    assert state(tmp_path / "run")["step"] == 15


@pytest.mark.slow
def test_a_damaged_state_is_named_and_the_one_before_is_used(sounds: Path, tmp_path: Path, caplog) -> None:
    run = config(sounds, tmp_path / "run", save_every=4, epochs=0.7)
    train(run, progress=False)
    whole = weights(tmp_path / "run")
    older, newest = CheckpointStore(tmp_path / "run" / "checkpoints", keep=2).paths()
    newest.write_bytes(newest.read_bytes()[:1000])
    train(run, progress=False)
    assert f"{newest}: not readable" in caplog.text
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(tmp_path / "run").items())
    for path in (older, newest):
        path.write_bytes(b"PK")
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"step-0+7\.pt: not readable.*step-0+4\.pt: not readable"):
        train(run, progress=False)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": PatchOptions((PatchSize(16, 128),))}, r"patch size 16x128"),
        ({"patches": PatchOptions((PatchSize(16, 16),), (1.0, 2.0))}, r"patches\.weights"),
        ({"model": ModelOptions(init="nowhere")}, r"nowhere: no such file or directory"),
        ({"distill": DistillConfig(teacher="nobody")}, r"nobody: no such file or directory"),
        ({"device": "quantum"}, r"device: found 'quantum'"),
        ({"data": DataConfig(train=Path("no/such/folder.json"), labels=Path("no.csv"))}, r"no\.csv"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(sounds: Path, tmp_path: Path, changes, message) -> None:
    with pytest.raises((ConfigError, CheckpointError, DataError), match=message):
        train(config(sounds, tmp_path / "run", **changes), progress=False)
    assert not (tmp_path / "run").exists()


def break_clip(path: Path) -> None:
    """Leave a wav header that promises samples, and none."""
    path.write_bytes(path.read_bytes()[:44])


@pytest.fixture
def broken_sounds(tmp_path: Path) -> Path:
    """Twenty-four training clips, two of them unusable, and one of six validation clips."""
    write_folder(tmp_path / "sounds" / "train", 4, seed=0)
    write_folder(tmp_path / "sounds" / "val", 1, seed=1)
    for name in ("train/low_up/0.wav", "train/mid_up/3.wav", "val/low_up/0.wav"):
        break_clip(tmp_path / "sounds" / name)
    return tmp_path / "sounds"


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_clips_are_named_once_replaced_and_excluded(broken_sounds, tmp_path: Path, caplog, workers) -> None:
    run = config(broken_sounds, tmp_path / "run", epochs=2, log_every=1)
    train(dataclasses.replace(run, data=dataclasses.replace(run.data, max_bad=0.1, workers=workers)), progress=False)
    with open(tmp_path / "run" / "bad_files.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(r["path"]).relative_to(broken_sounds).as_posix() for r in rows} == {
        "train/low_up/0.wav",
        "train/mid_up/3.wav",
    }
    assert len(rows) == 2
    assert all("found 0 samples" in r["reason"] for r in rows)
    assert caplog.text.count("replaced:") == 2
    assert len([line for line in records(tmp_path / "run") if "loss" in line]) == 4  # batches are as many as ever
    assert [line["excluded"] for line in records(tmp_path / "run") if "validation" in line] == [1, 1]


def test_too_many_unusable_clips_or_strictness_stop_the_run(broken_sounds, tmp_path: Path) -> None:
    for number in range(2):
        break_clip(broken_sounds / "train" / "low_down" / f"{number}.wav")
    run = config(broken_sounds, tmp_path / "run")
    with pytest.raises(DataError, match=r"4 of 24 clips are unusable, expected at most 3 \(data\.max_bad 0\.01\)"):
        train(run, progress=False)
    strict = dataclasses.replace(run.data, strict=True, max_bad=1.0)
    with pytest.raises(DataError, match=r"wav: found 0 samples"):
        train(dataclasses.replace(run, data=strict), progress=False)


def test_without_any_usable_clip_the_run_stops(broken_sounds, tmp_path: Path) -> None:
    for clip in (broken_sounds / "train").rglob("*.wav"):
        break_clip(clip)
    run = config(broken_sounds, tmp_path / "run")
    with pytest.raises(DataError, match="found no usable clip to take the place"):
        train(dataclasses.replace(run, data=dataclasses.replace(run.data, max_bad=1.0)), progress=False)


@pytest.mark.slow
def test_shards_train_as_files_do_and_can_be_read_shard_by_shard(sounds: Path, tmp_path: Path) -> None:
    pack(read_manifest(sounds / "train"), tmp_path / "shards", shard_size=0.8, progress=False)
    files = config(sounds, tmp_path / "files")
    packed = dataclasses.replace(
        files, out=tmp_path / "packed", data=dataclasses.replace(files.data, train=tmp_path / "shards")
    )
    train(files, progress=False)
    train(packed, progress=False)
    expected = weights(files.out)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(packed.out).items())
    local = Trainer(dataclasses.replace(packed, data=dataclasses.replace(packed.data, sampling="local")))
    epoch = [draw.clip for step in range(10) for draw in local.plan.schedule[step]]
    assert sorted(epoch) == list(range(120))
    with pytest.raises(ConfigError, match=r"data\.sampling: found local, expected .* to be shards"):
        Trainer(dataclasses.replace(files, data=dataclasses.replace(files.data, sampling="local")))
