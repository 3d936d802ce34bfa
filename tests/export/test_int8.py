"""int8 weights: smaller, close to the model on real sounds, and measured before and after on the command line."""

import logging
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.cli import main
from flexiast.data.manifest import Labels, read_manifest
from flexiast.export.export import export
from flexiast.export.int8 import onnx_scores
from flexiast.export.job import Job
from flexiast.features import FeatureConfig
from flexiast.models.config import FlexiASTConfig
from flexiast.models.geometry import PatchSize


@pytest.fixture(scope="module")
def model(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    labels: Labels = read_manifest(sounds / "val").labels
    config = FlexiASTConfig(len(labels), frames=48, bins=32, width=64, depth=2, heads=2, patch_size=16)
    made = AudioClassifier(config, FeatureConfig(frames=48, bins=32), labels).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(tmp_path_factory.mktemp("int8") / "model")
    return tmp_path_factory.getbasetemp() / "int80" / "model"


def test_weights_are_int8_the_log_mel_is_not_and_both_are_measured(
    model: Path, sounds: Path, tmp_path, capsys, caplog
) -> None:
    out = tmp_path / "small.onnx"
    handlers = list(logging.getLogger().handlers)
    assert main(["export", str(model), "--out", str(out), "--int8", "--data", str(sounds / "val")]) == 0
    said, errors = capsys.readouterr()
    assert "WARNING" not in errors
    assert not [
        record for record in caplog.records if record.name == "root"
    ]  # what ONNX Runtime's tools log is no advice for the user
    assert logging.getLogger().handlers == handlers
    before, after = map(float, re.search(r"accuracy on 30 clips +([\d.]+) % before, ([\d.]+) % after", said).groups())
    assert abs(before - after) <= 100 * 2 / 30
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    nodes = onnx.load(out).graph.node
    assert (
        sum(node.op_type == "MatMulInteger" for node in nodes) == 1 + 2 * 4 + 1
    )  # patches; qkv, projection, MLP; classifier
    assert any(name.startswith("front_end.") for node in nodes if node.op_type == "MatMul" for name in node.input)


@pytest.mark.slow
def test_several_sizes_are_measured_one_by_one(model: Path, sounds: Path, tmp_path: Path, capsys) -> None:
    out, data = tmp_path / "small.onnx", sounds / "val"
    command = ["export", str(model), "--out", str(out), "--int8", "--data", str(data), "--patch-size", "16", "8"]
    assert main([*command, "--input", "spectrogram"]) == 0
    said = capsys.readouterr().out
    found = re.findall(r"accuracy on 30 clips at (\d+) +([\d.]+) % before, ([\d.]+) % after", said)
    assert [size for size, _, _ in found] == ["16", "8"]
    assert all(abs(float(before) - float(after)) <= 100 * 3 / 30 for _, before, after in found)
    whole = AudioClassifier.from_pretrained(model)
    clips = [clip.path for clip in read_manifest(data, whole.labels).clips]
    right = [one[0].label == Path(clip).parent.name for one, clip in zip(whole.predict(clips, 8), clips, strict=True)]
    assert float(found[1][1]) == pytest.approx(100 * sum(right) / 30, abs=0.01)
    nodes = onnx.load(out).graph.node
    assert (
        sum(node.op_type == "MatMulInteger" for node in nodes) == 2 * 4 + 1
    )  # not the patches, whose kernel is chosen


@pytest.mark.slow
def test_scores_of_a_file_are_those_of_predict_over_windows(model: Path, sounds: Path, tmp_path: Path) -> None:
    loaded = AudioClassifier.from_pretrained(model)
    export(loaded, tmp_path / "whole.onnx", "onnx", 8)
    clips = [clip.path for clip in read_manifest(sounds / "val").clips[:3]]  # of a second, two windows each
    (scores,) = onnx_scores(tmp_path / "whole.onnx", Job(loaded, (PatchSize(8, 8),), "waveform"), clips)
    for row, clip in zip(scores, clips, strict=True):
        (best,) = loaded.predict(clip, 8, top_k=1)
        assert float(row.max()) == pytest.approx(best.score, abs=1e-4)
        assert int(np.argmax(row)) == loaded.labels.names.index(best.label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8", "--format", "hf"], "format: found hf, expected onnx or web beside --int8"),
        (["--data", "x"], "data: found x, expected it beside --int8 of --format onnx only"),
        (["--int8", "--cascade", "auto"], "int8: found it beside --cascade"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: list[str], message: str, model: Path, tmp_path, capsys) -> None:
    assert main(["export", str(model), "--out", str(tmp_path / "x.onnx"), *options]) == 2
    assert message in capsys.readouterr().err
