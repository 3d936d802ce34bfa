"""Exports as their users run them, in ONNX Runtime, transformers and torch, from raw waveforms."""

import builtins
import csv
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import flexiast
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.cli import main
from flexiast.data.manifest import Labels
from flexiast.errors import ConfigError, FileError
from flexiast.export import export as exporting
from flexiast.export import programs
from flexiast.export.export import export
from flexiast.export.job import ExportError, Job, program_difference
from flexiast.export.waveform_network import Scorer
from flexiast.features import FeatureConfig
from flexiast.models.config import FlexiASTConfig
from tests.classifier.test_budget import made_curve
from tests.full_disk import full_disk

FRAMES = 72
SAMPLES = 71 * 160 + 400


def classifier(loss="ce", frames: int = FRAMES, **settings) -> AudioClassifier:
    """A tiny random model, every parameter off its start."""
    torch.manual_seed(0)
    features = FeatureConfig(frames=frames, mean=-5.0, std=4.0)
    given = {"classes": 4, "frames": frames, "width": 32, "depth": 1, "heads": 2, "pad_value": features.pad_value}
    names = ("cat", "dog", "rain", "Größe")
    model = AudioClassifier(FlexiASTConfig(**given | settings), features, Labels(("a", "b", "c", "d"), names), loss)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def with_curve(model: AudioClassifier) -> AudioClassifier:
    """The same model with a curve in its description, which no export may mind."""
    model.metadata["curve"] = made_curve(model).to_json()
    return model


CURVES = pytest.mark.parametrize("curve", [False, True], ids=["plain", "curve"])


def waveforms(clips: int, samples: int = SAMPLES) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(clips))


@torch.no_grad()
def expected(model: AudioClassifier, waveform: Tensor, patch) -> tuple[np.ndarray, np.ndarray]:
    """Scores and logits of the model itself."""
    logits = model(model.front_end(waveform), patch)
    return model.probabilities(logits).numpy(), logits.numpy()


@pytest.mark.parametrize(
    ("coverage", "loss", "curve"), [("pad", "bce", True), pytest.param("drop", "ce", False, marks=pytest.mark.slow)]
)
def test_onnx_runtime_hears_waveforms(coverage: str, loss: str, curve: bool, tmp_path: Path) -> None:
    import onnxruntime

    model = classifier(loss, coverage=coverage)
    done = export(with_curve(classifier(loss, coverage=coverage)) if curve else model, tmp_path / "m.onnx", "onnx", 24)
    assert done.difference < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    session = onnxruntime.InferenceSession(done.path)
    assert [i.name for i in session.get_inputs()] == ["waveform", "lengths"]
    assert [o.name for o in session.get_outputs()] == ["scores", "logits"]
    for clips, samples in ((1, SAMPLES), (3, SAMPLES), (2, 3000), (1, 2 * SAMPLES)):
        x = waveforms(clips, samples)
        got = session.run(None, {"waveform": x.numpy(), "lengths": np.full(clips, samples)})
        for ours, theirs in zip(expected(model, x, 24), got, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-3)
    singles = [waveforms(1, samples) for samples in (3000, SAMPLES, 9000)]
    batch = torch.zeros(3, SAMPLES)
    for row, single in zip(batch, singles, strict=True):
        row[: single.shape[1]] = single[0]
    lengths = np.array([single.shape[1] for single in singles])
    _, logits = session.run(None, {"waveform": batch.numpy(), "lengths": lengths})
    alone = np.concatenate([expected(model, single, 24)[1] for single in singles])
    np.testing.assert_allclose(logits, alone, atol=1e-3)
    _, wrong = session.run(None, {"waveform": batch.numpy(), "lengths": np.full(3, SAMPLES)})
    assert np.abs(wrong - alone).max() > 0.01  # it is the lengths that make the difference
    metadata = session.get_modelmeta().custom_metadata_map
    told = {name: json.loads(text) for name, text in metadata.items() if name.startswith("flexiast.")}
    assert (metadata["model_type"], metadata["sample_rate"]) == ("flexiast", "16000")
    assert metadata["labels"].split("\n") == told["flexiast.labels"]
    table = list(csv.DictReader(metadata["class_labels_indices.csv"].splitlines()))
    assert [row["display_name"] for row in table] == told["flexiast.labels"]
    assert told["flexiast.labels"] == ["cat", "dog", "rain", "Größe"]
    assert told["flexiast.features"]["mean"] == -5.0
    assert told["flexiast.patch_size"] == "24"
    assert told["flexiast.scores"] == ("sigmoid" if loss == "bce" else "softmax")


@pytest.mark.slow
def test_onnx_runtime_sees_spectrograms(tmp_path: Path) -> None:
    import onnxruntime

    model = classifier()
    session = onnxruntime.InferenceSession(export(model, tmp_path / "m.onnx", "onnx", "16x24", "spectrogram").path)
    for clips in (1, 3):
        x = waveforms(clips)
        logits = session.run(["logits"], {"log_mel": model.front_end(x).numpy()})[0]
        np.testing.assert_allclose(logits, expected(model, x, "16x24")[1], atol=1e-4)


@CURVES
@pytest.mark.parametrize("kind", ["spectrogram", pytest.param("waveform", marks=pytest.mark.slow)])
@torch.no_grad()
def test_torch_program(kind: str, curve: bool, tmp_path: Path) -> None:
    model = classifier(prefix_tokens=2)
    done = export(
        with_curve(classifier(prefix_tokens=2)) if curve else model, tmp_path / "m.pt2", "torch", "12x8", kind
    )
    told = {"flexiast.json": ""}
    program = torch.export.load(done.path, extra_files=told).module()
    assert json.loads(json.loads(told["flexiast.json"])["flexiast.patch_size"]) == "12x8"
    for clips in (1, 3):
        x = waveforms(clips)
        got = program(x, torch.full((clips,), SAMPLES)) if kind == "waveform" else program(model.front_end(x))
        for ours, theirs in zip(expected(model, x, "12x8"), got, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-3 if kind == "waveform" else 1e-6)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("patch", [8, 16, 24, 32])
def test_transformers_loads_it(patch: int, prefix: int, tmp_path: Path) -> None:
    import transformers

    model = classifier("bce", coverage="drop", prefix_tokens=prefix, depth=3, classes=4)
    done = export(model, tmp_path / "hf", "hf", patch)
    network, report = transformers.AutoModelForAudioClassification.from_pretrained(done.path, output_loading_info=True)
    assert not any(report.values()), report  # nothing missing, unexpected or of another shape
    extractor = transformers.AutoFeatureExtractor.from_pretrained(done.path)
    for samples in (SAMPLES, 5000, 2 * SAMPLES):
        x = waveforms(3, samples)
        inputs = extractor(list(x.numpy()), sampling_rate=16_000, return_tensors="pt")
        np.testing.assert_allclose(network.eval()(**inputs).logits, expected(model, x, patch)[1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "curve"), [("ce", True), ("bce", False)])
def test_pipeline_names_the_sounds_of_a_file(loss: str, curve: bool, tmp_path: Path) -> None:
    import transformers

    model = classifier(loss)
    done = export(with_curve(classifier(loss)) if curve else model, tmp_path / "hf", "hf", 8)
    path = tmp_path / "clip.wav"
    soundfile.write(path, waveforms(1)[0].numpy(), 16_000, subtype="FLOAT")
    listen = transformers.pipeline("audio-classification", str(done.path))
    samples, rate = soundfile.read(path, dtype="float32")
    heard = [{"raw": samples, "sampling_rate": rate}]
    if shutil.which("ffmpeg"):  # which the pipeline uses for files
        heard.append(str(path))
    for sound in heard:
        got = listen(sound, top_k=4)
        ours = model.predict(path, 8, top_k=4)
        assert [g["label"] for g in got] == [p.label for p in ours]
        assert [g["score"] for g in got] == pytest.approx([p.score for p in ours], abs=1e-4)


def test_transformers_directory_is_read_back_by_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory's content, without the seconds that transformers takes to be imported."""
    monkeypatch.setattr(exporting, "needed", lambda module: None)
    monkeypatch.setitem(exporting.FORMATS, "hf", (exporting.write_huggingface, lambda job, path: (0.0, "nothing")))
    model = classifier("bce")
    export(model, tmp_path / "hf", "hf", 8)
    assert {p.name for p in (tmp_path / "hf").iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }
    back = flexiast.load(tmp_path / "hf")
    assert (back.labels.names, back.loss) == (model.labels.names, "bce")
    assert (back.feature_config.mean, back.feature_config.std, back.feature_config.frames) == (-5.0, 4.0, FRAMES)
    np.testing.assert_allclose(expected(back, waveforms(2), None)[1], expected(model, waveforms(2), 8)[1], atol=1e-4)


def test_a_curve_changes_nothing_for_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "needed", lambda module: None)
    monkeypatch.setitem(exporting.FORMATS, "hf", (exporting.write_huggingface, lambda job, path: (0.0, "nothing")))
    export(classifier(), tmp_path / "plain", "hf", 8)
    export(with_curve(classifier()), tmp_path / "curve", "hf", 8)
    plain, curve = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("plain", "curve"))
    assert plain == curve


def test_a_mismatch_is_told_of_the_output_and_leaves_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    classifier().save_pretrained(tmp_path / "model")
    out = tmp_path / "m.pt2"
    out.write_bytes(b"what was here before")
    monkeypatch.setattr(programs, "scorer", _wrong_scorer)
    command = f"export {tmp_path / 'model'} --format torch --input spectrogram --patch-size 24 --out {out}"
    command += " --overwrite"
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert f"{out}: its logits differ from the model's by" in printed.err
    assert not printed.out
    assert out.read_bytes() == b"what was here before"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "m.pt2"}


@pytest.mark.parametrize("kind", ["--int8", "--cascade 24 8 --threshold 0.5", "--format web"])
def test_an_error_within_a_larger_export_names_no_temporary_path(
    kind: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    classifier().save_pretrained(tmp_path / "model")
    monkeypatch.setitem(exporting.FORMATS, "onnx", (lambda job, path: None, lambda job, path: (1.0, "nothing")))
    out = tmp_path / ("m.onnx" if kind == "--int8" else "folder")
    file = out if kind == "--int8" else out / "model.onnx"
    assert main(["export", str(tmp_path / "model"), *kind.split(), "--out", str(out)]) == 2
    assert f"{file}: its logits differ from the model's by 1.00e+00" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch", "hf", "transformers"])
def test_a_full_disk_names_the_file_and_leaves_nothing(format, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = {"onnx": "a.onnx", "torch": "a.pt2"}.get(format, "a")
    file = "a/model.safetensors" if out == "a" else out
    with full_disk(4_000), pytest.raises(FileError, match=rf"^{file}: File too large"):
        export(classifier(pool="cls", frames=64), out, format)
    assert not list(tmp_path.iterdir())


def _wrong_scorer(job: Job):
    scorer = Scorer(job.model.freeze(job.patch), multi_label=False)
    with torch.no_grad():
        scorer.network.head.bias[1] += 0.01
    return scorer


@pytest.mark.parametrize("difference", [float("nan"), 2e-4])
def test_what_does_not_agree_is_no_success(difference: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = (lambda job, path: path.write_text("x"), lambda job, path: (difference, "nothing"))
    monkeypatch.setitem(exporting.FORMATS, "onnx", fake)
    with pytest.raises(ExportError, match="differ"):
        export(classifier(), tmp_path / "m.onnx", "onnx", 8, "spectrogram")
    assert not (tmp_path / "m.onnx").exists()


def test_not_a_number_is_the_largest_difference() -> None:
    job = Job(classifier(), (flexiast.PatchSize(8, 8),), "waveform")
    assert program_difference(job, lambda given: torch.full((len(given["waveform"]), 4), torch.nan)) == torch.inf


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job, path):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(exporting.FORMATS, "onnx", (fail, fail))
    with pytest.raises(KeyboardInterrupt):
        export(classifier(), tmp_path / "m.onnx", "onnx", 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxscript"), ("hf", "transformers")])
def test_a_missing_package_is_named(format, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(importlib, "import_module", without)
    out = tmp_path / ("m.onnx" if format == "onnx" else "m")
    with pytest.raises(ExportError, match=rf"{package}: not installed .*extra `export`"):
        export(classifier(), out, format, 8)
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "FORMATS", {})
    model, full = classifier(), tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for arguments, message in [
        ((full / "x.onnx", "tflite"), "format: found 'tflite'"),
        ((full / "x.onnx", "onnx", 8, "mp3"), "input: found 'mp3'"),
        ((tmp_path / "x", "hf", 8, "spectrogram"), "input: found 'spectrogram'"),
        ((tmp_path / "x", "onnx"), "ends in .onnx"),
        ((tmp_path / "x.onnx", "torch"), "ends in .pt2"),
        ((full, "hf"), "full: exists already, expected a new name, or --overwrite"),
        ((full / "notes.txt", "hf"), "notes.txt: exists already"),
        ((full / "notes.txt" / "x.onnx", "onnx"), "not writable"),
        ((tmp_path / "x.onnx", "onnx", "8x73"), "patch size 8x73"),
    ]:
        with pytest.raises((ConfigError, FileError)) as error:
            export(model, *arguments)
        assert message in str(error.value)
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "notes.txt"}


def test_the_model_itself_is_not_touched(tmp_path: Path) -> None:
    model = classifier().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path / "m.pt2", "torch", 8, "spectrogram")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_command_reports_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    classifier().save_pretrained(tmp_path / "model")
    out = tmp_path / "sub" / "m.pt2"
    command = f"export {tmp_path / 'model'} --format torch --input spectrogram --patch-size 16x24 --out {out}"
    assert main(command.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["written", str(out)]
    assert printed[2].startswith("largest difference of logits  ")
    assert out.exists()


def test_one_rule_for_what_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(job, path) -> None:
        path.write_text("new")

    def write_directory(job, path) -> None:
        path.mkdir()
        (path / "config.json").write_text("new")

    monkeypatch.setitem(exporting.FORMATS, "onnx", (write, lambda job, path: (0.0, "nothing")))
    monkeypatch.setitem(exporting.FORMATS, "hf", (write_directory, lambda job, path: (0.0, "nothing")))
    model, file, folder = classifier(), tmp_path / "m.onnx", tmp_path / "hf"
    for out, kind in ((file, "onnx"), (folder, "hf")):
        export(model, out, kind, 8)
        with pytest.raises(ConfigError, match="exists already, expected a new name, or --overwrite to replace it"):
            export(model, out, kind, 8)
    file.write_text("old")
    (folder / "config.json").write_text("old")
    (folder / "model.safetensors").write_text("old")
    export(model, file, "onnx", 8, overwrite=True)
    export(model, folder, "hf", 8, overwrite=True)
    assert (file.read_text(), (folder / "config.json").read_text()) == ("new", "new")
    assert not (folder / "model.safetensors").exists()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other files too \(thesis\.tex\)"):
        export(model, folder, "hf", 8, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "hf"}


# Numbers to predict ----------------------------------------------------------------------------------------------


def regression(**settings) -> AudioClassifier:
    """A model of numbers in units far from one another."""
    model = classifier("mse", **settings)
    model.metadata["targets"] = {"mean": [1e4, -20.0, 0.0, 3.0], "std": [250.0, 8.0, 1e-3, 1.0]}
    return model


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_scores_of_numbers_are_values_in_their_units(format: str, tmp_path: Path) -> None:
    import onnxruntime

    model, x = regression(), waveforms(2)
    path = export(model, tmp_path / f"m{exporting.SUFFIX[format]}", format, 24, "spectrogram").path
    log_mel = model.front_end(x)
    if format == "onnx":
        session = onnxruntime.InferenceSession(path)
        scores, logits = session.run(None, {"log_mel": log_mel.numpy()})
        facts = session.get_modelmeta().custom_metadata_map
        assert json.loads(facts["flexiast.scores"]) == "values"
    else:
        scores, logits = (one.detach().numpy() for one in torch.export.load(path).module()(log_mel))
    values, outputs = expected(model, x, 24)
    np.testing.assert_allclose(logits, outputs, atol=1e-4)
    np.testing.assert_allclose(scores, outputs * [250.0, 8.0, 1e-3, 1.0] + [1e4, -20.0, 0.0, 3.0], rtol=1e-4)
    np.testing.assert_allclose(scores, values, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["transformers", "hf"])
def test_logits_of_numbers_are_values_in_transformers(format: str, tmp_path: Path) -> None:
    import transformers

    model = regression(bins=128, frames=96, prefix_tokens=2, coverage="drop")
    path = export(model, tmp_path / "m", format, 16).path
    assert json.loads((path / "config.json").read_text())["problem_type"] == "regression"
    pipe = transformers.pipeline("audio-classification", str(path), trust_remote_code=format == "transformers")
    sound = waveforms(1)[0].numpy()
    got = {one["label"]: one["score"] for one in pipe(sound)}
    values, _ = expected(model, torch.from_numpy(sound)[None], 16)
    for name, value, std in zip(model.labels.names, values[0], model.scale.std, strict=True):
        assert got[name] == pytest.approx(value, abs=1e-3 * std, rel=1e-6)
    assert model.scale.mean[0] == 1e4  # the model itself is as it was


@pytest.mark.slow
def test_8_bit_weights_keep_the_units(tmp_path: Path) -> None:
    import onnxruntime

    from flexiast.export.int8 import export_int8

    model = regression()
    done, _ = export_int8(model, tmp_path / "m.onnx", (24,), "spectrogram")
    log_mel = model.front_end(waveforms(2))
    scores, logits = onnxruntime.InferenceSession(done.path).run(None, {"log_mel": log_mel.numpy()})
    np.testing.assert_allclose(scores, model.scale.values(torch.from_numpy(logits)).numpy(), rtol=1e-5, atol=1e-5)
