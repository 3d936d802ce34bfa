"""Stored scores teach as the model that wrote them: `flexiast score`, then `--distill.scores`."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast.cli import main
from flexiast.data.scores import clips_named, read_scores
from flexiast.errors import ConfigError
from flexiast.traintest.augment import AugmentConfig, clip_keys, mixup
from flexiast.traintest.losses import distillation_loss
from flexiast.traintest.options import DistillConfig, ModelOptions
from flexiast.traintest.train import Trainer, train
from tests.data.test_webdataset import write_tars
from tests.traintest.test_train import config

PLAIN = AugmentConfig(roll=0, noise=0, freq_mask=0, time_mask=0, mixup=0)


@pytest.fixture(scope="module")
def scored(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher, and its scores of the training clips."""
    root = tmp_path_factory.mktemp("scored")
    train(config(sounds, root / "teacher"), progress=False)
    command = ["score", str(root / "teacher"), str(sounds / "train"), "--out", str(root / "scores.npz")]
    assert main([*command, "--workers", "0", "--precision", "fp32"]) == 0
    return root / "teacher", root / "scores.npz"


def test_the_file_holds_what_the_model_says_of_each_clip(scored, sounds: Path) -> None:
    model = flexiast.load(scored[0])
    with np.load(scored[1]) as file:
        assert file["labels"].tolist() == list(model.labels.names)
        assert len(file["clip"]) == 120
        for row in (0, 50, 119):
            clip = file["clip"][row]
            said = dict(model.predict(sounds / "train" / str(clip), top_k=6))
            assert file["probabilities"][row] == pytest.approx([said[name] for name in model.labels.names], abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_stored_scores_teach_as_the_teacher_itself(share: float, scored, sounds: Path, tmp_path: Path) -> None:
    """Clips of the window's length without augmentation: what was stored is what the teacher would say."""
    teacher, scores = scored
    losses = []
    for distill in (DistillConfig(teacher=str(teacher)), DistillConfig(scores=scores)):
        distill = dataclasses.replace(distill, temperature=2.0, label_weight=share)
        made = config(sounds, tmp_path, distill=distill, augment=PLAIN, precision="fp32")
        made = Trainer(dataclasses.replace(made, model=ModelOptions(size="micro", patch_size="32")), progress=False)
        batch = made.dataset.__getitems__(made.plan.schedule[0])
        made.model.eval()
        loss = made.objective(made.model, made.objective.prepare(batch), flexiast.PatchSize(32, 32))
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["webdataset", "packed"])
def test_scores_of_shards_teach_on_the_same_shards(kind: str, scored, sounds: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    if kind == "webdataset":
        write_tars(shards, sounds / "val", "txt")
    else:
        assert main(["pack", str(sounds / "val"), str(shards), "--shard-size", "0.2", "--quiet"]) == 0
    command = ["score", str(scored[0]), str(shards), "--out", str(tmp_path / "scores.npz")]
    assert main([*command, "--workers", "0", "--precision", "fp32", "--quiet"]) == 0
    made = config(sounds, tmp_path / "run", distill=DistillConfig(scores=tmp_path / "scores.npz"))
    made = Trainer(dataclasses.replace(made, data=dataclasses.replace(made.data, train=shards)), progress=False)
    teacher = flexiast.load(scored[0])
    assert made.scores is not None
    assert len(made.scores) == len(list((sounds / "val").rglob("*.wav")))
    for row in (0, 7, 29):
        said = dict(teacher.predict(made.train_data.clips[row].path, top_k=6))
        assert made.scores[row].tolist() == pytest.approx([said[name] for name in teacher.labels.names], abs=1e-5)
    names = read_scores(tmp_path / "scores.npz").clips
    assert clips_named(names, shards) == [clip.path for clip in made.train_data.clips]
    shutil.rmtree(shards)
    assert clips_named(names, shards) == [shards / name for name in names]


def test_mixup_mixes_the_scores_as_it_mixes_the_labels(scored, sounds: Path, tmp_path: Path) -> None:
    augment = dataclasses.replace(PLAIN, mixup=1.0)
    distill = DistillConfig(scores=scored[1])
    made = Trainer(config(sounds, tmp_path, distill=distill, augment=augment, precision="fp32"), progress=False)
    batch = made.dataset.__getitems__(made.plan.schedule[0])
    inputs = made.objective.prepare(batch)
    keys = clip_keys(made.config.seed, batch.epochs, batch.clips)
    waveform, lengths, targets = batch.on(torch.device("cpu"))
    mixed = mixup(waveform, lengths, targets, 1.0, keys)[2]
    expected = mixup(waveform, lengths, made.scores[batch.clips], 1.0, keys)[2]
    assert torch.equal(inputs.targets, mixed)
    assert torch.equal(inputs.scores, expected)
    (first, second) = inputs.parts(6)
    assert torch.equal(torch.cat([first.scores, second.scores]), expected)
    logits = made.model(inputs.student)
    loss = made.objective(made.model, inputs, made.model.config.patch_size)
    torch.testing.assert_close(loss, distillation_loss(logits, expected.log(), "ce"))


def test_a_run_is_not_resumed_with_other_scores(scored, sounds: Path, tmp_path: Path) -> None:
    with np.load(scored[1]) as file:
        arrays = dict(file)
    own = tmp_path / "scores.npz"
    np.savez(own, **arrays)
    made = config(sounds, tmp_path / "run", distill=DistillConfig(scores=own), epochs=0.2)
    train(made, progress=False)
    own.rename(tmp_path / "moved.npz")
    train(dataclasses.replace(made, distill=DistillConfig(scores=tmp_path / "moved.npz")), progress=False)
    np.savez(own, **{**arrays, "probabilities": arrays["probabilities"][::-1]})
    with pytest.raises(ConfigError, match=r"the teacher: the scores of .*scores\.npz"):
        train(made, progress=False)


def test_settings_of_a_teacher_do_not_go_with_scores(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"distill\.scores: found s\.npz, expected none beside a teacher"):
        DistillConfig(teacher="t", scores=Path("s.npz"))
    with pytest.raises(ConfigError, match=r"distill\.clean_teacher: found True, expected nothing without distill"):
        DistillConfig(scores=Path("s.npz"), clean_teacher=True)
    with pytest.raises(ConfigError, match=r"distill\.temperature: .* distill\.teacher or distill\.scores"):
        DistillConfig(temperature=2.0)


def test_a_bad_clip_is_told_and_the_others_are_written(scored, sounds: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "bad.wav").write_bytes(b"none")
    good = next((sounds / "val").rglob("*.wav"))
    (tmp_path / "clips" / "good.wav").write_bytes(good.read_bytes())
    out = tmp_path / "s.npz"
    assert main(["score", str(scored[0]), str(tmp_path / "clips"), "--out", str(out), "--workers", "0"]) == 2
    assert "1 of 2 files could not be used" in capsys.readouterr().err
    with np.load(out) as file:
        assert file["clip"].tolist() == ["good.wav"]
