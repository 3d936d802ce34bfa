"""One pass over the data for all sizes: the same scores as one pass per size, and honest costs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast import PatchSize
from flexiast.data.audio import decode
from flexiast.data.manifest import Clip, Manifest, read_manifest
from flexiast.errors import ConfigError
from flexiast.runtime.distributed import World
from flexiast.traintest.evaluate import describe_clips, sweep
from flexiast.traintest.metrics import classification_metrics


@pytest.fixture(scope="module")
def data(sounds: Path):
    return read_manifest(sounds / "val")


@pytest.fixture(scope="module")
def model(data) -> flexiast.AudioClassifier:
    torch.manual_seed(0)
    network = flexiast.FlexiASTConfig(classes=6, frames=96, width=32, depth=2, heads=2)
    features = flexiast.FeatureConfig(frames=96)
    return _randomised(flexiast.AudioClassifier(network, features, data.labels))


def _randomised(model: flexiast.AudioClassifier) -> flexiast.AudioClassifier:
    """Every block of a new network is the identity; shake all weights, so that each has its say."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_scores_are_those_of_predict_clip_by_clip(model, data) -> None:
    patches = [PatchSize(16, 16), PatchSize(48, 16)]
    results = sweep({"m": model}, data, patches, batch_size=7, workers=0, precision="fp32", progress=False)
    assert [r.patch_size for r in results] == patches
    for result in results:
        for clip in (0, 13, 29):
            named = dict(model.predict(data.clips[clip].path, result.patch_size, top_k=6))
            expected = [named[name] for name in data.labels.names]
            np.testing.assert_allclose(result.scores[clip], expected, atol=1e-6)


def test_one_pass_equals_a_pass_per_size_and_resize(model, data) -> None:
    patches = [PatchSize(s, s) for s in (8, 20)]
    together = sweep({"m": model}, data, patches, ("pi", "bilinear"), batch_size=8, workers=0, progress=False)
    assert [(r.resize, r.patch_size) for r in together] == [(z, p) for z in ("pi", "bilinear") for p in patches]
    for result in together:
        alone = sweep(
            {"m": model}, data, [result.patch_size], (result.resize,), batch_size=8, workers=0, progress=False
        )[0]
        assert np.array_equal(result.scores, alone.scores)
        assert result.loss == alone.loss
    assert not np.allclose(together[0].scores, together[2].scores)


def test_metrics_loss_and_cost_are_of_all_clips(model, data) -> None:
    result = sweep({"m": model}, data, [PatchSize(16, 16)], batch_size=8, workers=0, progress=False)[0]
    targets = np.eye(6)[[clip.classes[0] for clip in data.clips]]
    assert result.metrics == classification_metrics(result.scores, targets)
    assert result.loss == pytest.approx(-np.log(result.scores[targets > 0]).mean(), rel=1e-5)
    assert result.tokens == 48
    assert result.gflops == model.config.flops(16) / 1e9
    assert result.clips_per_second > 0


def test_models_of_different_feature_settings_are_measured_each_its_own_way(model, data) -> None:
    network = flexiast.FlexiASTConfig(classes=6, frames=64, width=32, depth=1, heads=2)
    features = flexiast.FeatureConfig(frames=64, mean=0.0, std=1.0)
    other = _randomised(flexiast.AudioClassifier(network, features, data.labels))
    patch = [PatchSize(16, 16)]
    both = sweep({"a": model, "b": other}, data, patch, workers=0, progress=False)
    assert [r.model for r in both] == ["a", "b"]
    assert np.array_equal(both[1].scores, sweep({"b": other}, data, patch, workers=0, progress=False)[0].scores)
    assert both[1].tokens == 32


def test_a_size_that_does_not_fit_is_refused_before_any_work(model, data) -> None:
    with pytest.raises(ConfigError, match="16x97"):
        sweep({"m": model}, data, [PatchSize(16, 16), PatchSize(16, 97)], workers=0, progress=False)


# Clips longer than the window ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory):
    """Twelve 3 s clips of two tones: noise, and the tone in the last second alone; windows are of one second."""
    root, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    for name, pitch in (("high", 3000), ("low", 300)):
        (root / name).mkdir()
        for number in range(6):
            samples = 0.001 * rng.standard_normal(48_000)
            samples[32_000:] += 0.5 * np.sin(2 * np.pi * pitch * np.arange(16_000) / 16_000 + number)
            soundfile.write(root / name / f"{number}.wav", samples, 16_000)
    return read_manifest(root)


def _listener(data) -> flexiast.AudioClassifier:
    """A model of one-second windows that was taught the two tones in a moment."""
    torch.manual_seed(0)
    network = flexiast.FlexiASTConfig(classes=2, frames=98, width=32, depth=1, heads=2)
    model = flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=98), data.labels)
    time = torch.arange(16_000) / 16_000
    tones = torch.stack([0.5 * torch.sin(2 * torch.pi * pitch * time) for pitch in (3000, 300)])
    waveform = torch.cat([tones, torch.zeros(2, 16_000)]) + 0.001 * torch.randn(4, 16_000)
    targets = torch.tensor([[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])
    log_mel, optimizer = model.front_end(waveform), torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(log_mel, (16, 32)[step % 2]), targets).backward()
        optimizer.step()
    return model.eval()


def test_a_sound_at_the_end_of_a_clip_is_heard(long_clips) -> None:
    model = _listener(long_clips)
    (result,) = sweep({"m": model}, long_clips, [PatchSize(16, 16)], workers=0, progress=False)
    assert result.metrics.accuracy == 1.0
    assert (result.longer, result.shorter) == (12, 0)
    starts = [model.predict(decode(clip.path, max_samples=16_000), top_k=1)[0].label for clip in long_clips.clips]
    labels = [long_clips.labels.names[clip.classes[0]] for clip in long_clips.clips]
    assert np.mean([one == other for one, other in zip(starts, labels, strict=True)]) < 0.8  # chance is 0.5


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_of_long_clips_are_those_of_predict(model, long_clips, workers: int, tmp_path: Path) -> None:
    """Three seconds, and rests of all kinds; at several sizes, in batches that part the clips."""
    lengths = (48_000, 15_000, 16_500, 31_000, 500, 60_000, 17_500)
    clips = []
    for number, length in enumerate(lengths):
        soundfile.write(tmp_path / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, length), 16_000)
        clips.append(Clip(tmp_path / f"{number}.wav", (number % 6,)))
    data = Manifest(tmp_path, tuple(clips), model.labels)
    patches = [PatchSize(16, 16), PatchSize(8, 8), PatchSize(24, 48)]
    results = sweep({"m": model}, data, patches, batch_size=4, workers=workers, precision="fp32", progress=False)
    for result in results:
        predicted = model.predict([clip.path for clip in clips], result.patch_size, top_k=6)
        expected = [[dict(one)[name] for name in model.labels.names] for one in predicted]
        np.testing.assert_allclose(result.scores, expected, atol=1e-5)
        targets = np.eye(6)[[clip.classes[0] for clip in clips]]
        assert result.loss == pytest.approx(-np.log(result.scores[targets > 0]).mean(), rel=1e-5)
        assert (result.longer, result.shorter) == (4, 1)
    assert describe_clips(results[0], model.feature_config) == [
        "4 of 7 clips are longer than the model's window of 0.96 s: cut into several",
        "1 of 7 clips are shorter than the model's window of 0.96 s: padded",
    ]


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_the_loss_is_that_of_the_mean_scores(loss, long_clips) -> None:
    torch.manual_seed(1)
    network = flexiast.FlexiASTConfig(classes=2, frames=98, width=16, depth=1, heads=2)
    model = _randomised(flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=98), long_clips.labels, loss))
    (result,) = sweep({"m": model}, long_clips, [PatchSize(32, 32)], workers=0, progress=False, precision="fp32")
    targets = np.eye(2)[[clip.classes[0] for clip in long_clips.clips]]
    likely = np.where(targets > 0, result.scores, 1 - result.scores)
    expected = -np.log(likely[targets > 0] if loss == "ce" else likely).mean()
    assert result.loss == pytest.approx(expected, rel=1e-5)


def test_an_unusable_long_clip_is_left_out_whole(model, tmp_path: Path) -> None:
    good, bad = np.random.default_rng(0).normal(0, 0.1, (2, 16_000 * 61))
    bad[-1] = np.nan
    for name, samples in (("good", good), ("bad", bad)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    clips = tuple(Clip(tmp_path / f"{name}.wav", (0,)) for name in ("good", "bad", "good"))
    patch = [PatchSize(48, 48)]
    (result,) = sweep({"m": model}, Manifest(tmp_path, clips, model.labels), patch, workers=0, progress=False)
    assert [failure.clip for failure in result.excluded] == [1]
    assert len(result.scores) == 2
    assert np.array_equal(result.scores[0], result.scores[1])


class _InTurn(World):
    """One of several ranks that run as threads of this process."""

    def any(self, flag):
        return any(self.gather(flag))

    def gather(self, value):
        barrier, values = self.control
        values[self.rank] = value
        barrier.wait(30)
        everywhere = list(values)
        barrier.wait(30)
        return everywhere


@pytest.mark.parametrize("batch_size", [4, 50])
def test_ranks_share_the_clips_and_all_get_all_results(model, data, tmp_path: Path, batch_size: int) -> None:
    """Short clips, a long one and a bad one; with batches of 50 the second rank has nothing to do."""
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 60_000), 16_000)
    extra = (Clip(tmp_path / "long.wav", (0,)), Clip(tmp_path / "gone.wav", (1,)))
    mixed = Manifest(tmp_path, (*data.clips[:9], *extra, *data.clips[9:]), data.labels)
    options = {"workers": 0, "batch_size": batch_size, "progress": False}
    (alone,) = sweep({"m": model}, mixed, [PatchSize(16, 16)], **options)
    control = (threading.Barrier(2), [None, None])
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(sweep, {"m": model}, mixed, [PatchSize(16, 16)], world=_InTurn(rank, 2, 0, control), **options)
            for rank in range(2)
        ]
        results = [rank.result()[0] for rank in ranks]
    for result in results:
        assert np.array_equal(result.scores, alone.scores)
        assert (result.loss, result.metrics) == (alone.loss, alone.metrics)
        assert [failure.clip for failure in result.excluded] == [10]
        assert (result.longer, result.shorter) == (1, 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_heard_side_by_side_give_what_they_give_in_turn(model, data, precision) -> None:
    patches = [PatchSize(16, 16), PatchSize(32, 8)]
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(sweep({"m": model}, data, patches, batch_size=4, workers=0, precision=precision, progress=False))
    torch.set_num_threads(before)
    for in_turn, together in zip(*results, strict=True):
        assert np.array_equal(in_turn.scores, together.scores)
        assert in_turn.loss == together.loss
        assert together.clips_per_second > 0
