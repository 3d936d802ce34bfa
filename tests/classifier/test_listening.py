"""Many sounds at once: in order, past bad ones, by any number of workers; models that say what they are."""

import logging
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.classifier.results import Prediction, Window
from flexiast.errors import ConfigError, DataError
from tests.classifier.test_audio_classifier import classifier, named, noise, write
from tests.few_files import few_files


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    return classifier()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Seven files of different lengths, the fourth no audio."""
    paths = [write(tmp_path / f"{i}.wav", noise(0.2 + 0.3 * i)) for i in range(7)]
    paths[3].write_bytes(b"no audio")
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_a_list_gives_what_can_be_done_and_the_errors_beside_it(model, files, workers: int, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        results = model.predict(files, top_k=4, batch_size=2, workers=workers)
    assert results[3] == []
    assert str(results.errors[3]).startswith(f"{files[3]}: not readable as audio")
    assert list(results.errors) == [3]
    for place in (0, 1, 2, 4, 5, 6):
        alone = model.predict(files[place], top_k=4)
        torch.testing.assert_close(named(results[place]), named(alone), atol=1e-6, rtol=0)
    (record,) = caplog.records
    assert "1 of 7 clips could not be used, see .errors; the first, clip 3" in record.getMessage()


def test_windows_of_a_list(model, files) -> None:
    results = model.predict_windows(files)
    assert [len(windows) for windows in results] == [1, 1, 2, 0, 3, 4, 4]
    assert list(results.errors) == [3]
    for found, expected in zip(results[6], model.predict_windows(files[6]), strict=True):
        assert found[:2] == expected[:2]
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-6, rtol=0)


def test_a_single_bad_clip_and_a_list_of_nothing_else_raise(model, files) -> None:
    for audio in (files[3], [files[3]], [files[3], "gone.wav"]):
        with pytest.raises(DataError, match="not readable as audio"):
            model.predict(audio)


def test_a_file_that_breaks_off_gives_no_half_result(model, tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", noise(70.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + torch.tensor([float("nan")]).numpy().tobytes())
    results = model.predict([path, noise(0.5)])
    assert results[0] == []
    assert "NaN" in str(results.errors[0])
    assert results[1] == model.predict(noise(0.5))


def test_the_generator_of_a_folder_is_a_list(model, files) -> None:
    folder = files[0].parent
    assert len(model.predict(folder.glob("*.wav"))) == 7


def test_a_size_outside_the_training_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier()
    model.metadata["trained_patch_sizes"] = ["8", "16x12"]
    with caplog.at_level(logging.WARNING):
        for size in ("8", "10x9", "20", 20, "8x13", 4):
            model.predict(noise(0.5), size)
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ["patch size 20", "patch size 8x13", "patch size 4"]
    assert "the model was trained at 8, 16x12" in caplog.text


def test_rectangles_that_were_drawn_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier()
    model.metadata |= {"trained_patch_sizes": [str(s) for s in range(8, 17)], "trained_rectangles": True}
    with caplog.at_level(logging.WARNING):
        for size in ("16x8", "8x16", "9x11", "16x20"):
            model.predict(noise(0.5), size)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("patch size 16x20: the model was trained at 8 to 16")


def test_a_model_that_does_not_say_how_it_was_trained_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier()
    for told in (None, "all", ["many"], []):
        model.metadata["trained_patch_sizes"] = told
        model.predict(noise(0.5), 20)
    assert not caplog.records


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_precision_predict(dtype: torch.dtype) -> None:
    clip = noise(1.2)
    expected = [named(classifier().predict(clip, size, top_k=4)) for size in (8, "4x6")]
    model = classifier().to(dtype)
    for size, scores in zip((8, "4x6"), expected, strict=True):
        got = named(model.predict(clip, size, top_k=4, precision="auto"))
        torch.testing.assert_close(got, scores, atol=0.02, rtol=0)
    assert model.predict_windows(clip)[0].scores.dtype == torch.float32
    assert model.front_end(clip[None]).dtype == torch.float32


def test_bfloat16_is_asked_for(model) -> None:
    clip = noise(0.5)
    exact, fast = (named(model.predict(clip, top_k=4, precision=precision)) for precision in ("fp32", "bf16"))
    assert not torch.equal(exact, fast)
    torch.testing.assert_close(exact, fast, atol=0.02, rtol=0)


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_too_few_open_files_are_named_before_anything_is_read(command: str, model, files) -> None:
    with few_files(64), pytest.raises(ConfigError, match=r"^workers: found a limit of 64 open files for 7 decoding"):
        getattr(model, command)(files, batch_size=1, workers=8)


@pytest.mark.parametrize(("setting", "value"), [("workers", -1), ("workers", 1000), ("workers", 0.5)])
def test_wrong_settings_are_named(model, setting: str, value) -> None:
    with pytest.raises(ConfigError, match=f"{setting}: found {value}"):
        model.predict([noise(0.5)], **{setting: value})


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, model) -> None:
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="device: found 'quantum', which is not usable here"):
        flexiast.load(tmp_path / "model", device="quantum")
    assert flexiast.load(tmp_path / "model", device="auto").kernel.device.type in ("cpu", "cuda")


def test_what_is_shown_helps() -> None:
    model = classifier()
    model.metadata["trained_patch_sizes"] = ["8", "16"]
    weights = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert repr(model) == (
        "AudioClassifier(4 classes (0, 1, 2, ...), window 0.5 s at 16000 Hz, base patch 8, trained at 8, 16, 2 blocks"
        f" of width 16, {weights:.3g} M parameters)"
    )
    assert repr(Prediction("dog", 0.123456)) == "Prediction(label='dog', score=0.1235)"
    window = Window(0.0, 0.5, torch.tensor([0.1, 0.9]), [Prediction("dog", 0.9)])
    assert repr(window) == "Window(0.00 to 0.50 s, label='dog', score=0.9)"
    assert window.label == "dog"
    shown = model.predict_windows(noise(0.6))[0]
    assert shown.best == model.best(shown.scores, 1)[0]
    three = model.predict_windows(noise(0.6), top_k=3)[0]
    assert three.predictions == model.best(shown.scores, 3)
    assert three.label == three.predictions[0].label
    with pytest.raises(ConfigError, match="top_k: found 0"):
        model.predict_windows(noise(0.6), top_k=0)


def test_batches_heard_side_by_side_give_what_they_give_in_turn(model, files) -> None:
    before, scores, vectors = torch.get_num_threads(), [], []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        answered = model.predict(files, patch_size=24, top_k=4, batch_size=2)
        scores.append([named(answer) for place, answer in enumerate(answered) if place != 3])
        vectors.append(torch.cat(model.embed(files, batch_size=2)))
        assert list(answered.errors) == [3]
    torch.set_num_threads(before)
    assert all(map(torch.equal, *scores))
    assert torch.equal(*vectors)
