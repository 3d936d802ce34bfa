"""The ablations' quick trainings: equal compute, variants that start as the model they are made from, resumption."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import flexiast
from flexiast import PatchSize
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.traintest.objective import Inputs
from flexiast.traintest.train import train
from tests.scripts import script
from tests.traintest.test_train import config

variants, tried, draws, quick, questions, second_look = (
    script(f"egs/ablations/{name}.py") for name in ("variants", "tried", "draws", "quick", "questions", "second_look")
)


@pytest.fixture(scope="module")
def start(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start")
    train(config(sounds, out, epochs=0.5), progress=False)
    return out


@pytest.fixture(scope="module")
def model(start: Path) -> AudioClassifier:
    return flexiast.load(start).eval()


@pytest.fixture(scope="module")
def clips(sounds: Path, model: AudioClassifier) -> object:
    return quick.Clips.read(sounds / "train", model)


@pytest.mark.slow
def test_arms_spend_the_same_and_a_second_call_trains_nothing(sounds, start, tmp_path, capsys) -> None:
    command = ["compute", str(start), "--train", str(sounds / "train"), "--val", str(sounds / "val")]
    command += ["--out", str(tmp_path), "--epochs", "0.5", "--arms", "published", "loss-driven"]
    assert questions.main(command) == 0
    shown = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    spent = {row["arm"]: float(row["tflops"]) for row in rows}
    assert spent["loss-driven"] == pytest.approx(spent["published"], rel=0.3)  # its draws are few, and by chance
    nine = [100 * float(row["accuracy"]) for row in rows if row["arm"] == "published"
            and row["patch_size"] in map(str, questions.NINE)]  # fmt: skip
    assert f"| {np.mean(nine):.1f} |" in next(line for line in shown.splitlines() if line.startswith("| published"))
    assert (tmp_path / "compute.png").stat().st_size > 10_000
    before = (tmp_path / "results.csv").read_text()
    assert questions.main(command) == 0
    assert (tmp_path / "results.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arms in questions.QUESTIONS.items() if name != "frontier"])
def test_every_arm_trains(name: str, model: AudioClassifier, clips: object) -> None:
    for arm in questions.QUESTIONS[name].values():
        arm = quick.dataclasses.replace(arm, sizes=questions.fitting(arm.sizes, model))
        outcome = quick.train_arm(arm, model, clips, 1e9, seed=0)
        assert outcome.tflops > 0
        assert all(torch.isfinite(p).all() for p in outcome.model.parameters())


@pytest.mark.parametrize(
    "change",
    [{"lr": 2e-3}, {"optimizer": "muon"}, {"average": 0.5}, {"drop_path": 0.5}, {"mask": 2.0}, {"ties": "self"},
     {"ties": "teacher"}, {"coverage": "drop"}],
    ids=str,
)  # fmt: skip
def test_what_an_arm_changes_changes_its_model(change: dict, model: AudioClassifier, clips: object) -> None:
    sizes = (PatchSize(24, 24), PatchSize(32, 32))
    plain, changed = (
        quick.train_arm(quick.Arm(sizes=sizes, **more), model, clips, 3e9, seed=0).model for more in ({}, change)
    )
    log_mel = torch.randn(2, model.feature_config.frames, model.config.bins)
    assert (plain.eval()(log_mel, 24) - changed.eval()(log_mel, 24)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("name", "size", "furthest"),
    [
        ("size token", "8", 1e-4),
        ("size token", "24x40", 1e-4),
        ("size in the norms", "8", 1e-4),
        ("size in the norms", "24x40", 1e-4),
        ("kernel pyramid", "16", 1e-4),
        ("finer positions", "16", 0.05),  # the grid of 8 x 8 patches holds the base's to that
    ],
)
def test_a_variant_starts_as_its_model(name: str, size: str, furthest: float, model: AudioClassifier) -> None:
    variant = variants.VARIANTS[name].of(model).eval()
    log_mel = torch.randn(2, model.feature_config.frames, model.config.bins)
    assert (variant(log_mel, size) - model(log_mel, size)).abs().max() < furthest


@pytest.mark.parametrize("name", sorted(variants.VARIANTS))
def test_a_variant_learns_what_it_adds(name: str, model: AudioClassifier) -> None:
    variant = variants.VARIANTS[name].of(model)
    for size in ("8", "24x40"):
        variant(torch.randn(2, model.feature_config.frames, model.config.bins), size).square().sum().backward()
    had = dict(model.named_parameters())
    added = [p for n, p in variant.named_parameters() if n not in had]
    assert added
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in added)


def test_sizes_that_lag_are_drawn_more() -> None:
    sizes = [PatchSize(side, side) for side in (8, 16, 48)]
    sampler = tried.LossDriven(sizes, (), 0)
    plain = sampler.shares(0)
    for size, loss in zip(sizes, (3.0, 1.0, 1.0), strict=True):
        sampler.heard(size, loss)
    sampler.losses = np.where(np.isnan(sampler.losses), 1.0, sampler.losses)
    assert sampler.shares(1)[0] > plain[0]


def test_the_coarser_size_learns_from_the_finer_one(model: AudioClassifier) -> None:
    inputs = Inputs(torch.randn(4, model.feature_config.frames, model.config.bins), None,
                    torch.eye(len(model.labels))[:4])  # fmt: skip
    doubled, patches = tried.twice(inputs, [PatchSize(32, 32), PatchSize(16, 16)])
    assert patches == [PatchSize(16, 16), PatchSize(32, 32)]
    first, second = doubled.parts(2)
    assert torch.equal(first.student, second.student)
    assert torch.equal(first.targets, inputs.targets[:2])

    class Plain:
        device, precision, loss = torch.device("cpu"), "fp32", "ce"

    shaken = quick.copy.deepcopy(model)
    with torch.no_grad():
        for parameter in shaken.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    objective = tried.Twins(Plain(), 0.5)
    of_finer, of_coarser = (objective(shaken, part, size) for part, size in zip((first, second), patches, strict=True))
    finer, coarser = (shaken(first.student, size) for size in patches)
    labels = [F.cross_entropy(logits, first.targets) for logits in (finer, coarser)]
    learnt = F.kl_div(coarser.log_softmax(-1), finer.softmax(-1), reduction="batchmean")
    torch.testing.assert_close(of_finer, labels[0])
    torch.testing.assert_close(of_coarser, 0.5 * labels[1] + 0.5 * learnt)
    assert objective.finer is None


def test_a_second_look_without_coarse_tokens_is_the_model(model: AudioClassifier) -> None:
    looking = second_look.SecondLook.of(model).eval()
    log_mel = torch.randn(2, model.feature_config.frames, model.config.bins)
    coarse, fine = looking.look(log_mel, PatchSize(24, 24), PatchSize(32, 32))
    assert torch.allclose(coarse, model(log_mel, 32), atol=1e-5)
    assert not torch.allclose(fine, model(log_mel, 24), atol=1e-3)
    x = looking.encode(log_mel, PatchSize(24, 24))
    assert torch.allclose(looking.classify(x, model.config.prefix_tokens), model(log_mel, 24), atol=1e-5)


@pytest.mark.slow
def test_second_looks_are_measured(sounds: Path, start: Path, tmp_path: Path) -> None:
    data = ["--train", str(sounds / "train"), "--val", str(sounds / "val")]
    assert second_look.main([str(start), *data, "--out", str(tmp_path), "--epochs", "0.5"]) == 0
    exits = list(csv.DictReader((tmp_path / "early_exit.csv").open()))
    assert {row["blocks"] for row in exits} == {str(n) for n in range(1, flexiast.load(start).config.depth + 1)}
    looks = list(csv.DictReader((tmp_path / "coarse_tokens.csv").open()))
    assert {row["coarse_tokens"] for row in looks} == {"False", "True"}
    assert all(0 <= float(row["averaged"]) <= 1 for row in looks)
    costs = {(row["coarse_tokens"], row["patch_size"]): float(row["gflops_of_both"]) for row in looks}
    assert all(costs["True", size] > cost for (tokens, size), cost in costs.items() if tokens == "False")
