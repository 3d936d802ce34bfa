"""An exported cascade, run by ONNX Runtime: its scores and its ways are the model's."""

import json
from pathlib import Path

import numpy as np
import pytest

from flexiast.classifier.cascade import Rule
from flexiast.cli import main
from flexiast.errors import CheckpointError, ConfigError, FileError
from flexiast.export import cascade
from flexiast.export.cascade import export_cascade, open_cascade
from flexiast.models.geometry import PatchSize
from flexiast.runtime.files import write_atomically
from tests.export.test_export import classifier, waveforms
from tests.full_disk import full_disk

SIZES = (PatchSize(48, 48), PatchSize(24, 24))


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "input"), [("ce", "waveform"), ("bce", "spectrogram")])
def test_members_and_rule_give_what_predict_gives(loss: str, input: str, tmp_path: Path) -> None:
    model, clips = classifier(loss), waveforms(8)
    once = model.predict(list(clips), cascade=[48, 24], threshold=0.0, top_k=4)
    leads = sorted(one[0].score - one[1].score for one in once)
    threshold = (leads[3] + leads[4]) / 2 if loss == "ce" else 0.02
    rule = Rule(SIZES, (threshold,), average=True)
    done = export_cascade(model, tmp_path / "c", rule, input)
    assert done.difference < 1e-3
    assert {path.name for path in tmp_path.iterdir()} == {"c"}
    assert {path.name for path in done.path.iterdir()} == {"model.onnx", "cascade.json"}
    expected = model.predict(list(clips), cascade=[48, 24], threshold=threshold, top_k=4)
    lengths = np.full(8, clips.shape[1])
    given = (clips.numpy(), lengths) if input == "waveform" else (model.front_end(clips).numpy(),)
    got = open_cascade(tmp_path / "c")(*given)
    assert got.looks.tolist() == [len(one.patch_sizes) for one in expected]
    if loss == "ce":
        assert sorted(set(got.looks.tolist())) == [1, 2]
    for one, scores in zip(expected, got.scores, strict=True):
        assert [p.score for p in one] == pytest.approx(sorted(scores, reverse=True), abs=1e-3)
    rule_text = json.loads((tmp_path / "c" / "cascade.json").read_text())
    assert rule_text["rule"]["sizes"] == ["48", "24"]
    assert rule_text["labels"][-1] == "Größe"
    with pytest.raises(ConfigError, match="exists already"):
        export_cascade(model, tmp_path / "c", rule, input)


@pytest.mark.parametrize(("size", "file"), [(200, "model.onnx"), (50, "cascade.json")])
def test_a_full_disk_names_the_file_and_leaves_nothing(size: int, file: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cascade, "export", lambda model, out, *rest, **named: write_atomically(out, bytes(size)))
    monkeypatch.chdir(tmp_path)
    with full_disk(100), pytest.raises(FileError, match=rf"^c/{file}: File too large"):
        export_cascade(classifier(), "c", Rule(SIZES, (0.5,), average=True))
    assert not list(tmp_path.iterdir())


def test_the_command_needs_onnx_and_thresholds(tmp_path: Path, capsys) -> None:
    classifier().save_pretrained(tmp_path / "m")
    command = ["export", str(tmp_path / "m"), "--out", str(tmp_path / "c"), "--cascade"]
    assert main([*command, "48", "24", "--threshold", "0.5", "--format", "torch"]) == 2
    assert "format: found torch, expected onnx" in capsys.readouterr().err
    assert main([*command, "48", "24"]) == 2
    assert "threshold: found none" in capsys.readouterr().err
    assert main([*command, "auto"]) == 2
    assert "flexiast curve" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"cascade\.json"):
        open_cascade(tmp_path / "m")
