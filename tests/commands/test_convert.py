"""`flexiast convert`: any readable checkpoint into our own format, nothing lost and nothing overwritten."""

import json
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.cli import main
from flexiast.errors import FileError
from tests.full_disk import full_disk

GOLDEN = Path(__file__).parents[1] / "golden"
SOURCES = ["flexiast_vit_tiny.pth", "flexirepo_ast_p8_tiny.pth", "ast_orig_s16_tiny.pth", "hf_tiny_s10"]


@pytest.mark.parametrize("options", [[], ["--single-file"]], ids=["directory", "file"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_converted_checkpoint_is_the_same_model(name, options, tmp_path, capsys):
    out = tmp_path / "new" / "model"
    assert main(["convert", str(GOLDEN / name), str(out), "--heads", "2", *options]) == 0
    source, model = flexiast.load(GOLDEN / name, heads=2), flexiast.load(out)
    assert out.is_file() == bool(options)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in source.state_dict().items())
    for what in ("config", "feature_config", "labels", "loss"):
        assert getattr(model, what) == getattr(source, what)
    report = source.load_report
    assert model.metadata["converted_from"] == {"format": report.format, "notes": report.notes}
    printed = capsys.readouterr().out
    assert str(report) in printed
    assert f"\nwritten  {out}\n" in printed


def test_our_own_format_stays_as_it_is(tmp_path):
    shipped = Path(__file__).parents[2] / "pretrained_models" / "demo_flexible"
    assert main(["convert", str(shipped), str(tmp_path / "one.safetensors"), "--single-file"]) == 0
    assert main(["convert", str(tmp_path / "one.safetensors"), str(tmp_path / "back")]) == 0
    again, original = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "back", shipped))
    # What descriptions without them mean.
    original["features"] = {"resampler": "sinc", "window_ms": 25.0, "hop_ms": 10.0} | original["features"]
    assert again == original
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (shipped / "model.safetensors").read_bytes()


@pytest.mark.parametrize("options", [[], ["--single-file"]])
def test_what_is_there_is_replaced_only_if_told_so(options, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["convert", str(GOLDEN / SOURCES[0]), str(out), "--heads", "2", *options]
    assert main(command) == 0
    before = {path: path.stat().st_ino for path in [out, *tmp_path.rglob("*.*")]}
    assert main(command) == 2
    expected = f"flexiast: error: {out}: exists already, expected a new name, or --overwrite to replace it\n"
    assert capsys.readouterr().err == expected
    assert before == {path: path.stat().st_ino for path in before}
    assert main([*command, "--overwrite"]) == 0
    assert before[out] != out.stat().st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert flexiast.load(out).config.width == 64


def test_a_folder_with_other_things_is_never_replaced(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert main(["convert", str(GOLDEN / SOURCES[0]), str(tmp_path), "--overwrite"]) == 2
    assert "holds other files too (thesis.tex)" in capsys.readouterr().err


def test_a_conversion_that_fails_can_be_tried_again(tmp_path, monkeypatch, capsys):
    """On a disk that is full between the description and the weights."""

    def full(*_args, **_options):
        raise FileError("model.safetensors: No space left on device")

    command = ["convert", str(GOLDEN / SOURCES[0]), str(tmp_path / "out"), "--heads", "2"]
    monkeypatch.setattr("flexiast.checkpoints.checkpoint.save", full)
    assert main(command) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert main(command) == 0


def test_an_unusable_source_is_one_line_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(b"PK")
    assert main(["convert", str(tmp_path / "bad.pth"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"flexiast: error: {tmp_path / 'bad.pth'}: not readable")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_full_disk_names_the_file_and_leaves_nothing_that_refuses_the_retry(tmp_path, capsys):
    command = ["convert", str(GOLDEN / SOURCES[0]), str(tmp_path / "out"), "--heads", "2"]
    with full_disk(20_000):
        assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"flexiast: error: {tmp_path}/out")
    assert error.endswith("model.safetensors: File too large\n")
    assert not list(tmp_path.iterdir())
    assert main(command) == 0
