"""`flexiast curve`: measured on real sounds, kept in the checkpoint, true on the clips that it was measured on."""

import json
import shutil
from pathlib import Path

import pytest

import flexiast
from flexiast.checkpoints.checkpoint import save_single_file
from flexiast.cli import main
from flexiast.commands.curve import SQUARES, ladder
from flexiast.data.manifest import read_manifest
from flexiast.models.geometry import PAPER_SIZES, PatchSize


@pytest.fixture(scope="module")
def trained(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro model, trained for a moment at three sizes."""
    out = tmp_path_factory.mktemp("curve") / "model"
    command = f"train --out {out} --data.train {sounds / 'train'} --data.val {sounds / 'val'} --data.workers 0"
    options = "--model.size micro --features.frames 96 --epochs 3 --patches.sizes 16 24 32 48"
    assert main([*command.split(), *options.split()]) == 0
    return out


def test_what_the_curve_says_is_what_predict_does(trained: Path, sounds: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(trained, tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    command = ["curve", str(tmp_path / "model"), "--data", str(sounds / "val"), "--workers", "0", "--precision", "fp32"]
    assert main([*command, "--patch-sizes", "48", "24", "16", "16x32"]) == 0
    printed = capsys.readouterr().out
    assert "Pareto front on 30 clips" in printed
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    model, data = flexiast.load(tmp_path / "model"), read_manifest(sounds / "val")
    curve = model.curve
    assert [str(p.patch_size) for p in curve.points] == ["48", "24", "16", "16x32"]
    assert all(p.ece_after < 1 and 0.05 <= p.temperature <= 20 for p in curve.points)
    (seconds,) = curve.seconds.values()
    assert seconds.keys() == {"front end", "48", "24", "16", "16x32"}
    best = curve.cascades[-1]
    got = model.predict([clip.path for clip in data.clips], cascade="auto", top_k=1)
    right = [one[0].label == data.labels.names[clip.classes[0]] for one, clip in zip(got, data.clips, strict=True)]
    assert sum(right) / len(right) == pytest.approx(best.score)
    for step, share in enumerate(best.reach):
        assert sum(len(one.patch_sizes) > step for one in got) / 30 == pytest.approx(share)
    assert model.predict(data.clips[0].path, budget="1s").choice.reason.endswith("on 30 validation clips")


@pytest.mark.slow
def test_a_checkpoint_of_another_format_gets_a_copy(trained: Path, sounds: Path, tmp_path: Path, capsys) -> None:
    single = tmp_path / "model.safetensors"
    save_single_file(single, flexiast.load(trained).checkpoint())
    command = ["curve", str(single), "--data", str(sounds / "val"), "--workers", "0", "--patch-sizes", "48"]
    assert main(command) == 2
    assert "--out DIRECTORY" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "new")]) == 0
    assert flexiast.load(tmp_path / "new").curve.clips == 30
    assert main([*command, "--out", str(tmp_path / "new")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_ladder_is_that_of_the_training(trained: Path) -> None:
    model = flexiast.load(trained)
    assert ladder(model) == tuple(PatchSize(s, s) for s in (16, 24, 32, 48))
    model.metadata["trained_patch_sizes"] = [str(s) for s in range(8, 49)]
    assert ladder(model) == SQUARES
    assert len(SQUARES) == 13
    del model.metadata["trained_patch_sizes"]
    assert ladder(model) == PAPER_SIZES
    model.metadata["trained_patch_sizes"] = [str(s) for s in range(17, 49)]
    sizes = ladder(model)
    assert len(sizes) == 13
    assert (sizes[0], sizes[-1]) == (PatchSize(17, 17), PatchSize(48, 48))


def test_rectangles_are_on_the_ladder_of_a_model_that_was_trained_at_them(trained: Path) -> None:
    model = flexiast.load(trained)
    model.metadata |= {"trained_patch_sizes": [str(s) for s in range(8, 49)], "trained_rectangles": True}
    rectangles = [PatchSize.parse(size) for size in ("16x8", "8x16", "16x32", "32x16")]
    assert ladder(model) == (*SQUARES, *rectangles)
    del model.metadata["trained_rectangles"]  # of an earlier version, whose settings say it, or say nothing
    for said, expected in (("yes", True), (True, True), ("no", False), (False, False), (None, False)):
        model.metadata["training"] = {"patches": {"rectangles": said}}
        assert ladder(model) == ((*SQUARES, *rectangles) if expected else SQUARES)
    for training in ({"patches": {}}, {}, "lost", None):
        model.metadata["training"] = training
        assert ladder(model) == SQUARES
    model.metadata["trained_rectangles"] = True
    model.metadata["trained_patch_sizes"] = ["16", "32"]
    assert [str(size) for size in ladder(model)] == ["16", "32", "16x32", "32x16"]
    model.metadata["trained_patch_sizes"] = ["16x32", "32x16"]
    assert [str(size) for size in ladder(model)] == ["16x32", "32x16"]


@pytest.mark.slow
def test_a_multi_label_front_is_by_map(sounds: Path, trained: Path, tmp_path: Path) -> None:
    model = flexiast.load(trained)
    model.loss = "bce"
    model.save_pretrained(tmp_path / "m")
    assert (
        main(
            ["curve", str(tmp_path / "m"), "--data", str(sounds / "val"), "--workers", "0", "--patch-sizes", "16", "48"]
        )
        == 0
    )
    content = json.loads((tmp_path / "m" / "config.json").read_text())["curve"]
    assert content["score_name"] == "mAP"
    assert content["cascades"][-1]["score"] >= max(p["score"] for p in content["points"])
