"""Embeddings against the network by hand: any layer, over time, in windows; HEAR's contract."""

import pytest
import torch

from flexiast.classifier import hear
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.errors import ConfigError, DataError
from flexiast.models.geometry import PatchSize
from tests.classifier.test_audio_classifier import RATE, classifier, noise, write

WINDOW = classifier().feature_config.samples


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    return classifier().requires_grad_(False)


@pytest.mark.parametrize("patch", [8, "16x4"])
def test_a_clip_of_one_window_is_what_the_classifier_sees(model: AudioClassifier, patch, tmp_path) -> None:
    clip = noise(0.3)
    expected = model.features(model.front_end(clip[None]), patch)[0]
    torch.testing.assert_close(model.embed(clip, patch), expected)
    from_file, from_samples = model.embed([write(tmp_path / "a.wav", clip), clip], patch, workers=0)
    torch.testing.assert_close(from_file, expected)
    torch.testing.assert_close(from_samples, expected)
    torch.testing.assert_close(model.head(model.head_norm(from_file)), model(model.front_end(clip[None]), patch)[0])


@pytest.mark.parametrize(("layer", "blocks"), [(0, [0]), (-1, [1]), (1, [1]), ("mean", [0, 1])])
def test_any_layer_and_the_mean_of_them_over_columns_that_hold_sound(model: AudioClassifier, layer, blocks) -> None:
    clip = noise(0.3)
    frames = model.feature_config.frame_count(len(clip))
    x, tokens = model.embed_patches(model.front_end(clip[None]), 8), []
    for block in model.blocks:
        x = block(x)
        tokens.append(x)
    tokens[-1] = model.norm(x)
    grid = model.config.grid(8, model.feature_config.frames)
    by_column = sum(tokens[b][0, 1:].unflatten(0, grid).mean(dim=0) for b in blocks) / len(blocks)
    heard = -(-frames // 8)
    assert heard < grid.time  # some columns are padding
    torch.testing.assert_close(model.embed(clip, 8, layer=layer), by_column[:heard].mean(dim=0))
    over_time = model.embed(clip, 8, layer=layer, time=True)
    torch.testing.assert_close(over_time.vectors, by_column[:heard])
    assert over_time.starts.tolist() == pytest.approx([0.08 * column for column in range(heard)])
    assert float(over_time.ends[0]) == pytest.approx(0.08)
    assert float(over_time.ends[-1]) == pytest.approx(0.3)


def test_a_long_clip_goes_on_in_the_next_window(model: AudioClassifier) -> None:
    clip, hop = noise(1.2), model.feature_config.frames * model.feature_config.hop
    whole = model.embed(clip, 8, time=True)
    first, second = model.embed(clip[:WINDOW], 8, time=True), model.embed(clip[hop : hop + WINDOW], 8, time=True)
    columns = len(first.vectors)
    torch.testing.assert_close(whole.vectors[:columns], first.vectors)
    torch.testing.assert_close(whole.vectors[columns : 2 * columns], second.vectors)
    assert float(whole.starts[columns]) == pytest.approx(hop / RATE)
    assert (whole.starts.diff() > 0).all()


def test_a_bad_clip_of_a_list_is_empty_and_a_single_one_an_error(model: AudioClassifier, tmp_path, caplog) -> None:
    (tmp_path / "bad.wav").write_bytes(b"none")
    good, bad = model.embed([noise(0.3), tmp_path / "bad.wav"])
    assert (good.shape, bad.shape) == ((16,), (0,))
    assert "1 of 2 clips could not be used" in caplog.text
    with pytest.raises(DataError, match=r"bad\.wav"):
        model.embed(tmp_path / "bad.wav")
    with pytest.raises(ConfigError, match="layer: found 2, expected mean, or -2 to 1"):
        model.embed(noise(0.3), layer=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    model, clip = classifier().requires_grad_(False), noise(0.4)
    expected = model.embed(clip, 8, layer="mean")
    found = model.to(dtype).embed(clip, 8, layer="mean")
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())


def test_hear_gets_what_it_asks_for(model: AudioClassifier, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = hear.load_model(str(tmp_path))
    assert (loaded.sample_rate, loaded.scene_embedding_size, loaded.timestamp_embedding_size) == (RATE, 16, 16)
    audio = torch.stack([noise(1.0), 0.5 * noise(1.0)])
    scenes = hear.get_scene_embeddings(audio, loaded)
    vectors, centres = hear.get_timestamp_embeddings(audio, loaded)
    assert scenes.shape == (2, 16)
    assert scenes.dtype == vectors.dtype == torch.float32
    assert vectors.shape == (*centres.shape, 16)
    assert torch.equal(centres[0], centres[1])
    assert (centres.diff(dim=1) > 0).all()
    assert 0 < float(centres[0, 0]) < float(centres[0, -1]) <= 1000
    torch.testing.assert_close(scenes[1], loaded.embed(audio[1], layer=-1))
    with pytest.raises(ConfigError, match="model_file_path: found none"):
        hear.load_model()


@pytest.mark.parametrize("coverage", ["drop", "pad"])
@pytest.mark.parametrize("patch", [4, 8, "16x20", 32])
@pytest.mark.parametrize("seconds", [0.06, 0.3, 1.07, 1.98, 4.0])
def test_hear_timestamps_are_evenly_spaced_and_within_the_sound(coverage, patch, seconds, tmp_path) -> None:
    """The rules of hearvalidator 2021.0.2: equal shapes, float32, intervals that deviate by less than 1e-3 ms."""
    model = classifier(coverage=coverage)
    model.save_pretrained(tmp_path)
    loaded = hear.load_model(str(tmp_path), patch)
    size = PatchSize.parse(patch)
    audio = torch.stack([noise(seconds), noise(seconds).flip(0)])
    vectors, centres = hear.get_timestamp_embeddings(audio, loaded)
    assert vectors.shape == (*centres.shape, 16)
    gaps = centres.diff(dim=1)
    assert torch.all((gaps - 10 * size.time).abs() < 1e-3)
    assert float(centres[0, 0]) == pytest.approx(5 * size.time)
    assert centres.shape[1] == 1 or float(centres[0, -1]) <= 1000 * seconds
    # Not more is missing at the end than half a patch, a window of the spectrogram and what a window leaves over.
    missing = 10 * size.time + 35 + 0.1 * 10 * model.feature_config.frames
    assert float(centres[0, -1]) > 1000 * seconds - missing


def test_hear_vectors_beyond_the_first_window_are_those_of_whole_columns(tmp_path) -> None:
    model = classifier(coverage="pad")
    model.save_pretrained(tmp_path)
    loaded = hear.load_model(str(tmp_path), 20)  # 50 frames: two whole columns, the third is half padding
    clip = noise(0.9)
    vectors, _ = hear.get_timestamp_embeddings(clip[None], loaded)
    for window in range(2):
        start = window * 40 * model.feature_config.hop
        expected = model.embed(clip[start : start + WINDOW], 20, time=True).vectors[:2]
        torch.testing.assert_close(vectors[0, 2 * window : 2 * window + 2], expected)
