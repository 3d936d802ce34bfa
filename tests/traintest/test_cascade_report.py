"""Cascades reported by `flexiast measure`: with the curve's thresholds, on other data, paired by clip."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import flexiast
from flexiast.classifier.cascade import temper
from flexiast.classifier.curve import Curve
from flexiast.cli import main
from flexiast.models.config import Loss
from flexiast.reports.cascades import format_at_sizes
from flexiast.traintest.cascade_report import CascadeReport, compare_cascades
from flexiast.traintest.cascade_search import worth
from flexiast.traintest.curve import curve_from
from tests.traintest.test_cascade_search import made_up, results


def reported(loss: Loss, seed: int = 0) -> tuple[CascadeReport, Curve, np.ndarray, np.ndarray]:
    """Cascades found on one half of made-up clips and reported on the other: with curve, scores and targets of that."""
    scores, targets, costs = made_up(4, 400, 5, loss, seed)
    curve = curve_from(results(scores[:, :200], targets[:200], costs), targets[:200], loss)
    model = SimpleNamespace(curve=curve, loss=loss)
    measured = results(scores[:, 200:], targets[200:], costs)
    return compare_cascades({"m": model}, measured, targets[200:]), curve, scores[:, 200:], targets[200:]


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_at_every_size_stands_the_cascade_that_validation_prefers_at_its_cost(loss: Loss) -> None:
    report, curve, scores, targets = reported(loss)
    assert len(report.at_sizes) == 2 * len(curve.points)
    costs = {row.cascade + row.thresholds: row.gflops for row in report.cascades}
    front = [cascade for cascade in curve.cascades for _ in "ab"]  # a row for each cost
    by_size = {str(point.patch_size): number for number, point in enumerate(curve.points)}
    for row in (row for row in report.at_sizes if row.by == "gflops"):
        within = [c for c, r in zip(front, report.cascades, strict=True) if r.gflops <= row.cost + 1e-9]
        best = max(within, key=lambda cascade: cascade.score)
        assert row.cascade == str(best.rule)
        assert row.cascade_cost <= row.cost + 1e-9
        assert row.cascade_cost in costs.values()
        sizes = [by_size[str(size)] for size in best.rule.sizes]
        looks = [temper(scores[n], t, loss) for n, t in zip(sizes, best.rule.temperatures, strict=True)]
        plain = worth(np.mean(looks, axis=0), targets, loss).mean()
        single = worth(scores[by_size[row.patch_size]], targets, loss).mean()
        assert row.plain_cost == pytest.approx(sum(curve.points[n].gflops for n in sizes))
        assert row.difference - row.plain_difference == pytest.approx(plain - single)
        assert row.low <= row.difference <= row.high
        assert row.plain_low <= row.plain_difference <= row.plain_high
    cheapest = report.at_sizes[0]
    assert (cheapest.cascade, cheapest.difference, cheapest.low, cheapest.high) == (cheapest.patch_size, 0, 0, 0)
    table = format_at_sizes(report.at_sizes).splitlines()
    assert [line.split(":")[0].strip() for line in table[1:]] == [str(p.patch_size) for p in curve.points]


@pytest.mark.slow
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
    with open(tmp_path / "o" / "cascades_by_size.csv", newline="") as file:
        at_sizes = list(csv.DictReader(file))
    assert [(row["patch_size"], row["by"]) for row in at_sizes[:3]] == [(s, "gflops") for s in ("48", "32", "16")]
    assert all(float(row["cascade_cost"]) <= float(row["cost"]) * (1 + 1e-5) for row in at_sizes)
    assert len(content["cascades_by_size"]) == len(at_sizes)
    assert (tmp_path / "o" / "flexibility.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert "cascades of m, against the best single size" in said
    assert "at the cost of each size of m" in said
    assert sum(" against " in line for line in said.splitlines()) >= 1 + len(curve.cascades)
    few = ["--workers", "0", "--patch-sizes", "48"]
    assert (
        main(["measure", str(tmp_path / "m"), "--data", str(sounds / "val"), "--out", str(tmp_path / "p"), *few]) == 0
    )
    assert "was not measured" in capsys.readouterr().err
