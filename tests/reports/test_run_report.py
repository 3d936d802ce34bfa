"""The page of `flexiast report`: nothing from elsewhere runs in it, it needs no network, its numbers are measure's."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

import flexiast
from flexiast.cli import main
from flexiast.commands import report as commands_report
from flexiast.data.manifest import read_manifest
from flexiast.reports import bench, flexibility, run_clips, run_pictures, run_report
from flexiast.reports.pictures import Picture
from tests.sounds import CLASSES, SAMPLE_RATE, write_folder, write_tones

IMAGE = Picture(b"", b"")
HOSTILE = "<img src=x onerror=alert(1)>\x1b&$\"'"


class Page(HTMLParser):
    """Tags, their addresses and their tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.inside:
            self.cells[-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on sounds whose first class has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    data = write_folder(root / "sounds", 10, seed=0)
    (data / sorted(CLASSES)[0]).rename(data / HOSTILE)
    options = "--model.size micro --features.frames 96 --epochs 2 --patches.sizes 16 32 --data.workers 0 --data.val 0.3"
    command = ["train", "--out", root / "run", "--data.train", data, "--log", "none", *options.split()]
    assert main([str(part) for part in command]) == 0
    return root / "run"


def report(run: Path, *options: object) -> str:
    usual = ["--workers", "0", "--seconds", "0", "--patch-sizes", "16", "24x32", "--precision", "fp32", "--quiet"]
    assert main(["report", str(run), *usual, *map(str, options)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_nothing_from_elsewhere_runs_and_no_network_is_needed(run: Path, capsys: pytest.CaptureFixture) -> None:
    text = report(run, "--clips", 2)
    assert capsys.readouterr().out == ""
    page = Page(text)
    assert not {"script", "iframe", "link", "object", "embed", "form"} & set(page.tags)
    assert page.links
    assert all(
        link.startswith(("data:image/png;base64,", "data:audio/flac;base64,", "data:text/csv;base64,", "#"))
        for link in page.links
    )
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert HOSTILE.replace("\x1b", r"\x1b") in page.text  # shown as it is
    assert "<img src=x" not in text
    assert "\x1b" not in text
    anchors = {link[1:] for link in page.links if link[0] == "#"}
    assert anchors == set(re.findall(r'<h2 id="(\w+)"', text))


def test_its_numbers_are_those_of_measure(run: Path, tmp_path: Path) -> None:
    data = run.parent / "sounds"
    page = Page(report(run, "--clips", 2, "--data", data))
    options = ["--patch-sizes", "16", "24x32", "--workers", "0", "--precision", "fp32"]
    assert main(["measure", str(run), "--data", str(data), "--out", str(tmp_path), *options]) == 0
    with open(tmp_path / "flexibility.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    shown = {row[0]: [cell.strip() for cell in row] for row in page.cells if len(row) == 11}
    for patch, row in zip(("16", "24x32"), rows, strict=True):
        assert shown[patch][1] == row["tokens"]
        wanted = [f"{100 * float(row[name]):.1f}" for name in ("accuracy", "mAP", "mAUC")]
        assert shown[patch][3:8:2] == wanted
        assert shown[patch][4] == " to ".join(f"{100 * float(row[f'accuracy_{end}']):.1f}" for end in ("low", "high"))
        assert float(shown[patch][9]) == pytest.approx(float(row["loss"]), rel=1e-3)
    classes = [row for row in page.cells if len(row) == 6 and row[0] not in ("class", "patch", "16", "24x32")]
    assert len(classes) == len(CLASSES)
    assert sum(int(row[1]) for row in classes) == 60
    right = sum(int(row[1]) * float(row[2]) / 100 for row in classes)
    assert right / 60 == pytest.approx(float(rows[0]["accuracy"]), abs=2e-3)


def tables(page: Page) -> dict[str, list[dict[str, str]]]:
    """The CSV files that the page holds, by their columns' names."""
    links = [link.partition(",")[2] for link in page.links if link.startswith("data:text/csv")]
    files = [list(csv.DictReader(io.StringIO(base64.b64decode(link).decode()))) for link in links]
    return {" ".join(rows[0]): rows for rows in files}


@pytest.mark.slow
def test_every_picture_has_its_numbers_as_csv(run: Path) -> None:
    page = Page(report(run, "--clips", 2))
    found = tables(page)
    assert page.tags.count("picture") == 5
    assert len(found) == 7  # and the tables of classes and confusions at all sizes
    confusion = found["class taken_for clips"]
    by_size = next(rows for columns, rows in found.items() if columns.startswith("model resize"))
    bins = next(rows for columns, rows in found.items() if columns.startswith("low high clips"))
    clips = int(by_size[0]["n_clips"])
    assert sum(int(row["clips"]) for row in confusion) == sum(int(row["clips"]) for row in bins) == clips > 10
    right = sum(int(row["clips"]) for row in confusion if row["class"] == row["taken_for"])
    assert right / clips == pytest.approx(float(by_size[0]["accuracy"]), abs=1e-5)
    training = found["epoch train_loss patch_size loss accuracy"]
    assert [(float(row["epoch"]), row["patch_size"]) for row in training] == [
        (epoch, size) for epoch in (1, 2) for size in ("16", "32")
    ]


@pytest.mark.slow
def test_the_front_of_cascades_of_a_curve_is_drawn_and_listed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    known = {"tokens": 1, "temperature": 1.0, "ece_before": 0.1, "ece_after": 0.1}
    points = [{"patch_size": size, "gflops": 0.1, "score": 0.5, **known} for size in ("32", "16")]
    rule = {"sizes": ["32", "16"], "thresholds": [0.8], "temperatures": [1.0, 1.0], "average": False}
    cascades = [
        {"rule": rule, "reach": [1.0, share], "gflops": 0.01 * (1 + number), "score": 0.6 + 0.01 * number}
        for number, share in enumerate(np.linspace(0.05, 0.95, 20))
    ]
    described = json.loads((copy / "config.json").read_text())
    described["curve"] = {
        "score_name": "accuracy", "clips": 77, "points": points, "cascades": cascades, "seconds": {},
    }  # fmt: skip
    (copy / "config.json").write_text(json.dumps(described))
    drawn = []
    monkeypatch.setattr(run_report, "plot_flexibility", lambda rows, clips, front: (drawn.append(front), IMAGE)[1])
    page = Page(report(copy, "--clips", 0))
    assert [len(front) for front in drawn] == [20]
    listed = [row for row in page.cells if len(row) == 3 and "%)" in row[0]]
    assert "12 of 20 on the front that flexiast curve found, measured on its\n77 validation clips" in page.text
    assert [listed[0], listed[-1]] == [
        ["32 (100 %), 16 (5 %)", "0.01", "60.0"],
        ["32 (100 %), 16 (95 %)", "0.2", "79.0"],
    ]
    assert len(tables(page)["sizes thresholds gflops accuracy n_clips"]) == 20
    assert "Cascades" not in Page((run / "report.html").read_text(encoding="utf-8")).text  # the run has no curve


@pytest.mark.slow
def test_clips_can_be_heard_and_their_total_is_limited(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    sounds = [link for link in page.links if link.startswith("data:audio")]
    assert 2 <= len(sounds) <= 4
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0].partition(",")[2])))
    assert (len(samples), rate) == (SAMPLE_RATE, SAMPLE_RATE)
    monkeypatch.setattr(run_clips, "MOST_SOUND", 2 * len(sounds[0]))
    fewer = Page(report(run, "--clips", 2))
    assert len([link for link in fewer.links if link.startswith("data:audio")]) < len(sounds)
    assert "no room left" in fewer.text


@pytest.mark.slow
def test_it_says_how_to_reproduce_and_works_without_a_log(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a run; of $mine"
    shutil.copytree(run, copy)
    (copy / "train.jsonl").unlink()
    page = Page(report(copy, "--clips", 0))
    assert not [link for link in page.links if link.startswith("data:audio")]
    assert f"flexiast train --config '{copy}'/train_config.json --out NEW" in page.text
    assert f"flexiast report '{copy}'\n" in page.text
    assert "The run has no log of validations." in page.text
    assert json.dumps(json.loads((run / "train_config.json").read_text())["seed"]) in page.text


@pytest.fixture(scope="module")
def measured(run: Path) -> Path:
    """A measurement of the run's model and of another one, with the scores of its clips."""
    other, out = run.parent / "other", run.parent / "measured"
    model = flexiast.load(run)
    model.head.bias.data[0] += 1e4  # names the first class always
    model.save_pretrained(other)
    options = ["--patch-sizes", "16", "24x32", "--workers", "0", "--precision", "fp32", "--scores"]
    assert (
        main(["measure", str(run), str(other), "--data", str(run.parent / "sounds"), "--out", str(out), *options]) == 0
    )
    return out


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty: only their numbers are wanted, and drawing takes the longest."""
    for module in (bench, flexibility, run_pictures):
        monkeypatch.setattr(module, "picture", lambda draw, width, height: IMAGE)


def without_costs(page: Page) -> list[list[str]]:
    """The rows of its tables before those of the costs, which are timed anew."""
    at = next(place for place, row in enumerate(page.cells) if "clips/s" in row)
    return [row for row in page.cells[:at] if row[0] != "setting"]


@pytest.mark.usefixtures("undrawn")
def test_a_measured_folder_gives_the_page_without_hearing_a_clip(
    run: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = report(run, "--clips", 2, "--data", run.parent / "sounds")
    monkeypatch.setattr(commands_report, "sweep", pytest.fail)
    options = ["report", str(run), "--seconds", "0", "--quiet", "--clips", "2", "--measured", str(measured)]
    assert main(options) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    page, before = Page(text), Page(heard)
    rows = without_costs(page)
    compared = [row for row in rows if len(row) == 8]
    assert [row for row in rows if row not in compared] == without_costs(before)
    assert [row[:4] for row in compared[1:]] == [
        [patch, "run (pi)", "other (pi)", "accuracy"] for patch in ("16", "24x32")
    ]
    with open(measured / "comparisons.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert compared[1][6] == f"{100 * float(first['difference']):.1f}"
    kinds = {link.partition(",")[0] for link in page.links if link.startswith("data:")}
    assert kinds == {"data:image/png;base64", "data:audio/flac;base64", "data:text/csv;base64"}
    assert page.tags.count("picture") == before.tags.count("picture") == 5
    assert [link for link in page.links if "audio" in link] == [link for link in before.links if "audio" in link]
    assert f"flexiast report {run} --measured {measured}\n" in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_measured_folder_without_scores_says_what_is_missing(run: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "m", ignore=shutil.ignore_patterns("scores"))
    assert main(["report", str(run), "--seconds", "0", "--patch-size", "24x32", "--measured", str(tmp_path / "m")]) == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "The measurement kept no scores of its clips; flexiast measure --scores does." in page.text
    assert "Classes at patch 24x32" in page.text
    assert "audio" not in page.tags
    assert len([row for row in without_costs(page) if len(row) == 6]) == 1 + len(CLASSES)


def test_a_measured_folder_that_does_not_fit_is_one_line(
    run: Path, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def refused(change: Callable[[Path], object], *options: str) -> str:
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(measured, copy)
        change(copy)
        assert main(["report", str(run), "--seconds", "0", "--measured", str(copy), *options]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    def rewrite(name: str, old: str, new: str) -> Callable[[Path], object]:
        return lambda copy: (copy / name).write_text((copy / name).read_text().replace(old, new))

    digest = json.loads((measured / "flexibility.json").read_text())["provenance"]["models"]["run"]["sha256"]
    assert "found measurements of run, other, of which none has the weights of" in refused(
        rewrite("flexibility.json", digest, "0" * 64)
    )
    assert "found no column AUC, expected a table of this version" in refused(rewrite("classes.csv", "AUC", "ROC"))
    assert "line 2: found 'x' in patch_freq, expected a number" in refused(
        rewrite("flexibility.csv", "run,pi,16,", "run,pi,x,")
    )
    assert "line 2: found another number of cells" in refused(rewrite("confusions.csv", "run,pi,16,", "run,pi,"))
    assert "flexibility.json: not readable as the description" in refused(rewrite("flexibility.json", "}", ""))
    assert "flexibility.json: no such file" in refused(lambda copy: (copy / "flexibility.json").unlink())
    assert "classes.csv: not readable as a table" in refused(lambda copy: (copy / "classes.csv").unlink())
    assert "not readable as scores" in refused(lambda copy: (copy / "scores" / "run_pi_16.npz").write_bytes(b"PK\3\4x"))
    assert "patch_size: found 40, which" in refused(lambda copy: None, "--patch-size", "40")
    assert "data: found x beside --measured, expected one of them" in refused(lambda copy: None, "--data", "x")


@pytest.mark.usefixtures("undrawn")
def test_numbers_to_predict_have_their_own_page(tmp_path: Path) -> None:
    write_tones(tmp_path, 40, seed=0, name="tones.csv")
    options = "--model.size micro --features.frames 48 --epochs 2 --data.workers 0 --loss mse --log none"
    command = ["train", "--out", tmp_path / "run", "--data.train", tmp_path / "tones.csv", *options.split()]
    assert main([str(part) for part in command]) == 0
    heard = Page(report(tmp_path / "run", "--clips", 2, "--data", tmp_path / "tones.csv"))
    model, data = flexiast.load(tmp_path / "run"), read_manifest(tmp_path / "tones.csv", numbers=True)
    measure = ["measure", tmp_path / "run", "--data", tmp_path / "tones.csv", "--out", tmp_path / "m", "--scores"]
    usual = ["--patch-sizes", "16", "24x32", "--workers", "0", "--precision", "fp32"]
    assert main([str(part) for part in [*measure, *usual]]) == 0
    assert (
        main(["report", str(tmp_path / "run"), "--seconds", "0", "--clips", "2", "--measured", str(tmp_path / "m")])
        == 0
    )
    read = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert without_costs(read) == without_costs(heard)
    (row,) = [row for row in read.cells if row[0] == "16" and len(row) == 8]
    with open(tmp_path / "m" / "flexibility.csv", newline="") as file:
        of_16 = next(csv.DictReader(file))
    assert [float(row[place]) for place in (3, 5, 6)] == pytest.approx(
        [float(of_16[name]) for name in ("R2", "RMSE", "pearson")], rel=1e-3
    )
    targets = {row[0]: row for row in read.cells if row[0] in model.labels.names}
    assert targets.keys() == {"loudness", "pitch"}
    assert float(targets["pitch"][1]) == pytest.approx(float(of_16["R2 pitch"]), rel=1e-3)
    predicted = tables(read)["clip target true predicted"]
    assert len(predicted) == 2 * len(data)
    last = {one["target"]: one for one in predicted[-2:]}
    values = {one.label: one.score for one in model.predict(last["pitch"]["clip"], 16)}
    for name, one in last.items():
        assert float(one["predicted"]) == pytest.approx(values[name], rel=1e-3, abs=1e-3)
    assert "Furthest off" in read.text
    assert "Classes" not in read.text
    assert "Calibration" not in read.text


def test_wrong_input_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "found no train_config.json, expected the folder of a run" in capsys.readouterr().err
    copy = tmp_path / "moved"
    shutil.copytree(run, copy)
    settings = json.loads((copy / "train_config.json").read_text())
    settings["data"]["train"] = "gone"
    (copy / "train_config.json").write_text(json.dumps(settings))
    assert main(["report", str(copy)]) == 2
    assert "its data are not where they were: gone" in capsys.readouterr().err
    settings["data"]["val"] = 0
    (copy / "train_config.json").write_text(json.dumps(settings))
    assert main(["report", str(copy)]) == 2
    assert "was trained without validation data; give some with --data" in capsys.readouterr().err
