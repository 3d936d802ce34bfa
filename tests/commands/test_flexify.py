"""Any checkpoint made flexible by one command, the curve shown before and after."""

import dataclasses
import json
from pathlib import Path

import pytest

import flexiast
from flexiast import PatchSize
from flexiast.cli import main
from flexiast.commands.command_line import read_arguments
from flexiast.commands.flexify import FlexifyConfig, flexify
from flexiast.errors import ConfigError
from flexiast.runtime.arguments import AUTO, to_json
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.defaults import MOST_LONGER
from flexiast.traintest.options import FeatureOptions, ModelOptions, PatchOptions
from flexiast.traintest.patch_plan import FLEXIBLE_DROPOUT
from flexiast.traintest.train import Trainer
from tests.traintest.test_train import config


def test_the_command_prints_the_curve_before_and_after(sounds: Path, tmp_path: Path, capsys) -> None:
    Trainer(config(sounds, tmp_path / "run")).model.save_pretrained(tmp_path / "fixed")
    data = f"--data.train {sounds / 'train'} --data.val {sounds / 'val'} --data.workers 0 --log none"
    options = f"--out {tmp_path / 'flexible'} --epochs 0.3 --optim.warmup-steps 0 --optim.lr 1e-3"
    assert main(["flexify", str(tmp_path / "fixed"), *data.split(), *options.split()]) == 0
    table = capsys.readouterr().out
    measured = ["8", "10", "12", "16", "20", "24", "30", "32", "40", "48"]
    assert table.split("accuracy, %")[-1].split()[:10] == measured
    assert "before (pi)" in table
    assert "after (pi)" in table
    metadata = flexiast.load(tmp_path / "flexible").metadata
    assert metadata["trained_patch_sizes"] == [str(size) for size in range(8, 49)]
    assert metadata["trained_rectangles"] is True
    saved = tmp_path / "flexible" / "train_config.json"
    replay = read_arguments(TrainConfig, ["--config", str(saved)], "flexiast train")
    assert to_json(replay) == json.loads(saved.read_text())
    assert replay.model.init == str(tmp_path / "fixed")


@pytest.mark.slow
def test_sizes_that_do_not_fit_the_input_are_left_out(sounds: Path, tmp_path: Path) -> None:
    short = config(sounds, tmp_path / "run")
    network = flexiast.FlexiASTConfig(classes=6, frames=32, width=32, depth=1, heads=1)
    labels = Trainer(short).model.labels
    flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=32), labels).save_pretrained(tmp_path / "short")
    run = dataclasses.replace(short, model=ModelOptions(init=str(tmp_path / "short")), features=FeatureOptions())
    trainer = Trainer(run, flexible=True)
    assert trainer.plan.patches.sizes[-1] == PatchSize(32, 32)
    sides = [size.freq for size in trainer.config.patches.sizes]
    assert sides == list(range(8, 33))
    assert trainer.plan.patches.sizes == tuple(PatchSize(freq, time) for freq in sides for time in sides)
    given = dataclasses.replace(run, patches=PatchOptions(draw="uniform", rectangles="no", dropout=0.2))
    assert Trainer(given, flexible=True).config.patches == PatchOptions(
        trainer.config.patches.sizes, (), "no", "uniform", dropout=0.2
    )
    squares = Trainer(dataclasses.replace(run, compile=True), flexible=True)  # a graph for each rectangle would be many
    assert squares.plan.patches.sizes == squares.config.patches.sizes


def test_the_compute_is_that_of_training_at_one_size(sounds: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(config(sounds, tmp_path / "run"), epochs=AUTO)
    Trainer(run).model.save_pretrained(tmp_path / "fixed")
    run = dataclasses.replace(run, model=ModelOptions(init=str(tmp_path / "fixed")))
    alone, flexible = Trainer(run), Trainer(run, flexible=True)
    assert flexible.config.patches.dropout == FLEXIBLE_DROPOUT
    assert flexible.model.patch_dropout.rate == FLEXIBLE_DROPOUT
    assert alone.config.patches.dropout == 0
    size = alone.config.data.batch_size
    longer = flexible.config.epochs / alone.config.epochs
    assert 1.5 < longer < MOST_LONGER
    assert flexible.plan.flops(size) == pytest.approx(alone.plan.flops(size), rel=0.03)
    changed = FeatureOptions(frames=64, bins=64)  # another front end, whose patches cost otherwise
    alone, flexible = (Trainer(dataclasses.replace(run, features=changed), flexible=kind) for kind in (False, True))
    assert flexible.plan.flops(size) == pytest.approx(alone.plan.flops(size), rel=0.1)  # at three times the epochs
    given = dataclasses.replace(run, patches=PatchOptions((PatchSize(8, 8), PatchSize(16, 16))))
    reason = next(one.reason for one in Trainer(given, flexible=True).prepared.choices if one.setting == "epochs")
    assert "times" not in reason
    assert Trainer(given, flexible=True).config.epochs == alone.config.epochs  # they cost more, and are what was asked
    cheap = dataclasses.replace(run, patches=PatchOptions((PatchSize(48, 48),)))
    assert Trainer(cheap, flexible=True).config.epochs == pytest.approx(MOST_LONGER * alone.config.epochs)


def test_what_it_needs(sounds: Path, tmp_path: Path) -> None:
    run = config(sounds, tmp_path / "run")
    Trainer(run).model.save_pretrained(tmp_path / "fixed")
    without = dataclasses.replace(run, data=dataclasses.replace(run.data, val=0.0), model=ModelOptions())
    with pytest.raises(ConfigError, match=r"data\.val: found none"):
        flexify(FlexifyConfig(str(tmp_path / "fixed"), without), progress=False)
    with pytest.raises(ConfigError, match=r"model\.init: found b"):
        FlexifyConfig("a", dataclasses.replace(run, model=ModelOptions(init="b")))
