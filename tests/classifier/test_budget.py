"""Budgets and cascades in `predict`: read, kept and explained; what hears a clip, and what comes of it."""

import json
import math
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.classifier import latency
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.classifier.budget import Budget
from flexiast.classifier.cascade import Rule
from flexiast.classifier.curve import Cascade, Curve, Point
from flexiast.classifier.latency import Times
from flexiast.cli import main
from flexiast.errors import CheckpointError, ConfigError
from flexiast.models.geometry import PatchSize
from tests.classifier.test_audio_classifier import SAMPLES, classifier, named, noise, scores_of, write

COARSE, MIDDLE, FINE = PatchSize(16, 16), PatchSize(8, 16), PatchSize(8, 8)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("20ms", "ms", 20),
        (" 0.1 s ", "ms", 100),
        ("5GFLOPs", "GFLOPs", 5),
        ("800 MFLOPs", "GFLOPs", 0.8),
        ("1 GFLOP", "GFLOPs", 1),
        ("256tokens", "tokens", 256),
        ("1 token", "tokens", 1),
        ("accuracy>=0.9", "score", 0.9),
        ("mAP >= 45%", "score", 0.45),
    ],
)
def test_units_are_read(text: str, kind: str, limit: float) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.limit) == (kind, pytest.approx(limit))


@pytest.mark.parametrize(
    "text", ["", "20", "20 hours", "-5ms", "0ms", "accuracy>0.9", "accuracy>=90", "fast", None, 20]
)
def test_what_is_no_budget_is_refused_with_the_forms(text) -> None:
    with pytest.raises(ConfigError, match=r"^budget: found .*expected a form such as 20ms"):
        Budget.parse(text)


def made_curve(model: AudioClassifier) -> Curve:
    """A curve in which the middle size is best, and a cascade is better still."""
    frames = model.feature_config.frames
    points = [
        Point(size, model.config.grid(size, frames).tokens, model.config.flops(size, frames) / 1e9, score, t, 0.2, 0.1)
        for size, score, t in ((COARSE, 0.6, 1.5), (MIDDLE, 0.9, 1.2), (FINE, 0.8, 2.0))
    ]
    rule = Rule((COARSE, MIDDLE), (0.5,), (1.5, 1.2), True)
    cascades = [
        Cascade(Rule((COARSE,), (), (1.5,)), (1.0,), points[0].gflops, 0.6),
        Cascade(rule, (1.0, 0.25), points[0].gflops + points[1].gflops / 4, 0.92),
    ]
    here = latency.machine(model.kernel.device)
    seconds = {here: {str(COARSE): 0.002, str(MIDDLE): 0.010, str(FINE): 0.030}}
    return Curve("accuracy", 100, tuple(points), tuple(cascades), seconds)


@pytest.fixture
def model() -> AudioClassifier:
    model = classifier()
    model.metadata["curve"] = made_curve(model).to_json()
    return model


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        ("20ms", MIDDLE),
        ("1s", MIDDLE),
        ("5ms", COARSE),
        ("999tokens", MIDDLE),
        ("8tokens", COARSE),
        ("1TFLOPs", MIDDLE),
        ("accuracy>=0.5", COARSE),
        ("accuracy>=0.7", MIDDLE),
    ],
)
def test_the_best_size_within_a_budget_hears_the_clip(model: AudioClassifier, budget: str, chosen: PatchSize) -> None:
    clip = noise(0.5)
    got = model.predict(clip, top_k=4, budget=budget)
    assert got.patch_sizes == (chosen,) == got.choice.rule.sizes
    assert got == model.predict(clip, chosen, top_k=4)
    assert f"scored at {chosen}" in repr(got)
    assert "accuracy" in got.choice.reason
    assert "100 validation clips" in got.choice.reason
    assert budget in got.choice.reason


def test_a_curve_says_what_it_holds(model: AudioClassifier) -> None:
    assert repr(model.curve) == "Curve(accuracy at 3 patch sizes on 100 clips, 2 cascades)"


def test_what_is_chosen_without_a_budget_is_not_explained(model: AudioClassifier) -> None:
    got = model.predict(noise(0.5), 16)
    assert got.choice is None
    assert repr(got) == repr(list(got))


@pytest.mark.parametrize("budget", ["1ms", "1tokens", "0.001MFLOPs", "accuracy>=0.99"])
def test_a_budget_that_nothing_keeps_names_what_comes_nearest(model: AudioClassifier, budget: str) -> None:
    nearest = "the best, 8x16" if "acc" in budget else "the cheapest, 16"
    with pytest.raises(ConfigError, match=f"no size of the curve keeps; {nearest}, takes"):
        model.predict(noise(0.5), budget=budget)


def test_without_a_curve_the_command_is_named() -> None:
    for how in ({"budget": "5GFLOPs"}, {"cascade": "auto"}):
        with pytest.raises(ConfigError, match="flexiast curve CHECKPOINT --data VALIDATION"):
            classifier().predict(noise(0.5), **how)
    broken = classifier()
    broken.metadata["curve"] = {"points": 3}
    with pytest.raises(CheckpointError, match="curve: not valid"):
        broken.predict(noise(0.5), budget="5GFLOPs")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"budget": "5GFLOPs", "patch_size": 16}, "patch_size"),
        ({"budget": "5GFLOPs", "cascade": [16, 8], "threshold": 0.5}, "budget"),
        ({"budget": "mAP>=0.5"}, "expected accuracy"),
        ({"cascade": [16, 8]}, "threshold"),
        ({"cascade": "auto", "threshold": 0.5}, "threshold"),
        ({"threshold": 0.5}, "threshold"),
        ({"cascade": [16, 99], "threshold": 0.5}, "patch size 99x99"),
    ],
)
def test_what_contradicts_is_refused(model: AudioClassifier, how: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model.predict(noise(0.5), **how)


def tempered(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    return (scores.double().log() / temperature).softmax(dim=-1)


def test_a_cascade_hears_only_the_clips_in_doubt_again(model: AudioClassifier, monkeypatch) -> None:
    clips = [noise(0.5) * level for level in (1.0, 0.1, 0.01, 3.0, 0.5)]
    coarse = torch.stack([tempered(scores_of(model, clip, COARSE), 1.5) for clip in clips])
    fine = torch.stack([tempered(scores_of(model, clip, FINE), 2.0) for clip in clips])
    lead = coarse.topk(2).values
    lead = lead[:, 0] - lead[:, 1]
    threshold = float(lead.sort().values[2:4].mean())  # three in doubt, two sure
    front_ends, original = [], model.front_end.log_mel.forward
    monkeypatch.setattr(model.front_end.log_mel, "forward", lambda x: front_ends.append(len(x)) or original(x))
    got = model.predict(clips, top_k=4, cascade=[16, 8], threshold=threshold)
    assert front_ends == [5]  # log-mel once, for all
    for one, sure, first, second in zip(got, lead, coarse, fine, strict=True):
        again = float(sure) < threshold
        assert one.patch_sizes == ((COARSE, FINE) if again else (COARSE,))
        expected = (first + second) / 2 if again else first
        torch.testing.assert_close(named(one).double(), expected, atol=1e-6, rtol=0)
    assert got.choice.rule.thresholds == (threshold,)


def test_a_long_clip_is_routed_window_by_window(model: AudioClassifier) -> None:
    clip = torch.cat([noise(0.5), 0.01 * noise(0.5), 3 * noise(0.49)])
    windows = [clip[i * 8000 : i * 8000 + SAMPLES] for i in range(3)]
    coarse = [model.predict(window, 16, top_k=4) for window in windows]
    assert len({one[0].label for one in coarse} | {round(one[0].score, 3) for one in coarse}) > 2
    got = model.predict(clip, top_k=4, cascade=[16, 8], threshold=0.5, batch_size=2)
    parts = [model.predict(window, top_k=4, cascade=[16, 8], threshold=0.5) for window in windows]
    torch.testing.assert_close(named(got), torch.stack([named(part) for part in parts]).mean(dim=0), atol=1e-5, rtol=0)
    assert got.patch_sizes == max((part.patch_sizes for part in parts), key=len)


def test_windows_are_routed_as_the_clips_that_they_are() -> None:
    model, clip = classifier(), torch.cat([noise(0.5), 0.01 * noise(0.5), 3 * noise(0.49)])
    best = [window.predictions for window in model.predict_windows(clip, 16, top_k=2)]
    leads = [first.score - second.score for first, second in best]
    threshold = sum(sorted(leads)[:2]) / 2
    got = model.predict_windows(clip, cascade=[16, 8], threshold=threshold, top_k=4)
    assert [len(window.patch_sizes) for window in got] == [1 + (lead < threshold) for lead in leads]
    assert got.patch_sizes == got.choice.rule.sizes == (COARSE, FINE)
    for number, window in enumerate(got):
        alone = model.predict(
            clip[number * 8000 : number * 8000 + SAMPLES], cascade=[16, 8], threshold=threshold, top_k=4
        )
        assert window.patch_sizes == alone.patch_sizes
        torch.testing.assert_close(window.scores, named(alone), atol=1e-5, rtol=0)


def test_windows_are_heard_within_a_budget(model: AudioClassifier) -> None:
    clip = noise(1.2)
    got, expected = model.predict_windows(clip, budget="20ms"), model.predict_windows(clip, MIDDLE)
    assert [window.best for window in got] == [window.best for window in expected]
    assert got.choice.reason.startswith("best for 20ms")
    assert model.predict_windows([clip, clip], budget="20ms").choice == got.choice
    assert expected.choice is None
    assert repr(expected) == repr(list(expected))
    with pytest.raises(ConfigError, match="patch_size"):
        model.predict_windows(clip, MIDDLE, budget="20ms")


def test_auto_takes_the_best_of_the_front_or_the_best_within_a_budget(model: AudioClassifier) -> None:
    clip = noise(0.5)
    assert model.predict(clip, cascade="auto").choice.rule.sizes == (COARSE, MIDDLE)
    on_average = 2 + 10 / 4
    assert model.predict(clip, cascade="auto", budget=f"{on_average + 0.1}ms").choice.rule.sizes == (COARSE, MIDDLE)
    assert model.predict(clip, cascade="auto", budget=f"{on_average - 0.1}ms").choice.rule.sizes == (COARSE,)


def test_times_are_measured_once_on_a_machine(tmp_path: Path, monkeypatch) -> None:
    model = classifier()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = latency.seconds_of(model, [COARSE, FINE], {"another machine": {"16": 1e-9, "8": 1e-9}})
    assert all(1e-5 < seconds < 10 for seconds in measured.sizes.values())
    assert 1e-6 < measured.front_end < min(measured.sizes.values())
    monkeypatch.setattr(latency, "measure_seconds", lambda *a: pytest.fail("measured again"))
    assert latency.seconds_of(model, [COARSE, FINE], {}) == measured
    (tmp_path / "flexiast" / "latency.json").write_text("no JSON")
    monkeypatch.setattr(
        latency, "measure_seconds", lambda model, sizes, precision: Times(0.1, dict.fromkeys(sizes, 0.5))
    )
    assert latency.seconds_of(model, [FINE], {}) == (0.1, {FINE: 0.5})
    assert json.loads((tmp_path / "flexiast" / "latency.json").read_text())


def test_the_front_end_of_a_cascade_is_counted_once(model: AudioClassifier) -> None:
    here = latency.machine(model.kernel.device)
    model.metadata["curve"]["seconds"][here][latency.FRONT_END] = 0.0015
    model.metadata["curve"] = dict(model.metadata["curve"])  # a curve is read once
    on_average = 1.5 + (2 - 1.5) + (10 - 1.5) / 4
    clip = noise(0.5)
    assert model.predict(clip, cascade="auto", budget=f"{on_average + 0.01}ms").choice.rule.sizes == (COARSE, MIDDLE)
    assert model.predict(clip, cascade="auto", budget=f"{on_average - 0.01}ms").choice.rule.sizes == (COARSE,)
    with pytest.raises(ConfigError, match="takes 2 ms"):  # a single size takes what it took
        model.predict(clip, budget="1ms")


def test_times_that_are_remembered_replace_older_ones(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(latency, "measure_seconds", lambda *a: pytest.fail("measured again"))
    model = classifier()
    latency.remember(model, Times(0.1, {COARSE: 0.5, FINE: 2.0}))
    latency.remember(model, Times(0.2, {COARSE: 0.6}))
    assert latency.seconds_of(model, [COARSE, FINE], {}) == (0.2, {COARSE: 0.6, FINE: 2.0})
    here = latency.machine(model.kernel.device)
    assert latency.seconds_of(model, [FINE], {here: {"8": 3.0}}) == (0.0, {FINE: 3.0})  # of the curve, an old one


def test_the_curve_is_kept_by_the_checkpoint(model: AudioClassifier, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a")
    again = flexiast.load(tmp_path / "a")
    again.save_pretrained(tmp_path / "b")
    assert again.curve == flexiast.load(tmp_path / "b").curve == made_curve(model)
    assert classifier().curve is None


def test_the_command_says_what_was_chosen(model: AudioClassifier, tmp_path: Path, capsys) -> None:
    model.save_pretrained(tmp_path / "model")
    clip = write(tmp_path / "clip.wav", noise(0.5))
    command = ["predict", str(tmp_path / "model"), str(clip), "--precision", "fp32", "--top-k", "1"]
    assert main([*command, "--budget", "999tokens", "--json"]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert content["patch_sizes"] == ["8x16"]
    assert "best for 999tokens" in content["chosen"]
    assert "patch size 8x16 (best for 999tokens" in printed.err
    assert main([*command, "--cascade", "16", "8", "--threshold", "1.0", "--out", str(tmp_path / "out.csv")]) == 0
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "path,start,end,label,score,error,patch_sizes,chosen"
    assert ",16>8,16 > 8 averaged (as asked for)" in row
    assert math.isclose(
        float(row.split(",")[4]), model.predict(clip, cascade=[16, 8], threshold=1)[0].score, abs_tol=1e-5
    )
    assert main([*command, "--budget", "soon"]) == 2
    assert "budget: found 'soon'" in capsys.readouterr().err
