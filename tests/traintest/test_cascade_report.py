"""Cascades reported by `flexiast measure`: with the curve's thresholds, on other data, paired by clip."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import flexiast
from flexiast.cli import main


def test_measure_reports_the_cascades_of_a_curve(sounds: Path, tmp_path: Path, capsys) -> None:
    train = f"train --out {tmp_path / 'm'} --data.train {sounds / 'train'} --data.val {sounds / 'val'}"
    options = "--data.workers 0 --model.size micro --features.frames 96 --epochs 2 --patches.sizes 16 48"
    assert main([*train.split(), *options.split()]) == 0
    common = ["--workers", "0", "--precision", "fp32", "--patch-sizes", "16", "32", "48"]
    assert main(["curve", str(tmp_path / "m"), "--data", str(sounds / "train"), *common]) == 0
    assert (
        main(["measure", str(tmp_path / "m"), "--data", str(sounds / "val"), "--out", str(tmp_path / "o"), *common])
        == 0
    )
    with open(tmp_path / "o" / "cascades.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    curve = flexiast.load(tmp_path / "m").curve
    assert [row["cascade"] for row in rows[::2]] == [str(c.rule) for c in curve.cascades]
    assert [row["by"] for row in rows[:2]] == ["gflops", "ms"]
    content = json.loads((tmp_path / "o" / "flexibility.json").read_text())
    single = {r["patch_freq"]: r for r in content["results"]}
    for row in content["cascades"]:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["score"] - row["single_score"])
        beside = single[int(row["single"])]
        assert row["single_score"] == beside["accuracy"]
        reach = [float(share) for share in row["reach"].split()]
        cost = [single[int(s)]["gflops"] for s in row["cascade"].removesuffix(" averaged").split(" > ")]
        assert row["gflops"] == pytest.approx(np.dot(reach, cost), rel=1e-2)
        if row["by"] == "gflops":
            assert beside["gflops"] <= row["gflops"] * 1.001
    assert (tmp_path / "o" / "flexibility.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert "cascades of m, against the best single size" in said
    assert sum(" against " in line for line in said.splitlines()) >= 1 + len(curve.cascades)
    few = ["--workers", "0", "--patch-sizes", "48"]
    assert (
        main(["measure", str(tmp_path / "m"), "--data", str(sounds / "val"), "--out", str(tmp_path / "p"), *few]) == 0
    )
    assert "was not measured" in capsys.readouterr().err
