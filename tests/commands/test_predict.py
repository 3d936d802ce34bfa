"""`flexiast predict` on many files: what it prints and writes, past bad files, Ctrl-C and names that nobody expects."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

import flexiast
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.cli import main
from flexiast.commands import predict
from flexiast.commands.over_files import OverFiles
from flexiast.data.manifest import Labels
from flexiast.reports.predictions import Report, results_file
from tests.classifier.test_audio_classifier import classifier, noise, write

NAMES = ("dog", "tab\there", "line\nbreak", "\x1b[2Jكلب")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose classes have hostile names."""
    plain, folder = classifier(), tmp_path_factory.mktemp("predict") / "model"
    model = AudioClassifier(plain.config, plain.feature_config, Labels(NAMES, NAMES))
    model.load_state_dict(plain.state_dict())
    model.save_pretrained(folder)
    return folder


def name_of(number: int) -> str:
    return f"more/{number}.wav" if number > 6 else f"{number}.wav"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine files of different lengths, `4.wav` no audio, in two folders."""
    root = tmp_path_factory.mktemp("calls")
    (root / "more").mkdir()
    for number in range(9):
        write(root / name_of(number), noise(0.3 + 0.2 * number))
    (root / "4.wav").write_bytes(b"no audio")
    return root


@pytest.fixture
def expected(model_dir: Path, folder: Path):
    """Best class and score of each file."""
    model = flexiast.load(model_dir)
    paths = [folder / name_of(number) for number in range(9) if number != 4]
    return {str(path): model.predict(path, top_k=4) for path in paths}


def command(model_dir: Path, *options: object) -> list[str]:
    return ["predict", str(model_dir), *map(str, options), "--precision", "fp32", "--top-k", "4"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_is_named_past_its_bad_file(model_dir, folder, expected, workers: int, capsys) -> None:
    assert main(command(model_dir, folder, "--workers", workers, "--batch-size", 3)) == 2
    shown = capsys.readouterr()
    lines = [line.split("\t") for line in shown.out.splitlines()]
    assert [line[0] for line in lines] == [path for path in sorted(expected) for _ in range(4)]
    scores = [p.score for path in sorted(expected) for p in expected[path]]
    assert [float(line[2]) for line in lines] == pytest.approx(scores, abs=1e-4)
    assert shown.err.splitlines() == [
        f"flexiast: {folder}/4.wav: not readable as audio (Format not recognised)",
        "files     8",
        "left out  1",
        shown.err.splitlines()[3],  # time
        "flexiast: error: 1 of 9 files could not be used",
    ]


def test_hostile_class_names_do_not_break_the_table(model_dir, folder, capsys) -> None:
    assert main(command(model_dir, folder / "0.wav")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split("\t")[1] for line in lines} == {"dog", r"tab\there", r"line\nbreak", r"\x1b[2Jكلب"}
    assert all(line.count("\t") == 2 for line in lines)


def test_a_csv_keeps_the_truth(model_dir, folder, expected, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "results.csv"
    assert main(command(model_dir, folder, "--out", out)) == 2
    assert capsys.readouterr().out.splitlines()[:3] == [f"written   {out}", "files     8", "left out  1"]
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    good = [(row["path"], row["label"]) for row in rows if not row["error"]]
    assert good == [(path, p.label) for path in sorted(expected) for p in expected[path]]
    (bad,) = [row for row in rows if row["error"]]
    assert bad["path"] == f"{folder}/4.wav"
    assert bad["label"] == ""
    assert bad["error"] == "not readable as audio (Format not recognised)"
    assert list(out.parent.iterdir()) == [out]


def test_json_in_a_file_and_on_the_terminal(model_dir, folder, expected, tmp_path: Path, capsys) -> None:
    out = tmp_path / "results.json"
    assert main(command(model_dir, folder, "--out", out)) == 2
    content = json.loads(out.read_text())
    capsys.readouterr()
    assert main(command(model_dir, folder, "--json", "--quiet")) == 2
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines()] == content
    assert len(content) == 9
    assert r"\u001b[2Jكلب" in out.read_text(encoding="utf-8")  # letters as they are, what steers a terminal escaped
    assert r"\u001b[2Jكلب" in printed
    for entry in content:
        if "error" in entry:
            assert entry == {
                "path": f"{folder}/4.wav",
                "error": "not readable as audio (Format not recognised)",
            }
        else:
            assert [p["label"] for p in entry["predictions"]] == [p.label for p in expected[entry["path"]]]


def test_windows_in_every_form(model_dir, folder, tmp_path: Path, capsys) -> None:
    windows = flexiast.load(model_dir).predict_windows(folder / "6.wav")
    assert len(windows) == 3
    assert main(command(model_dir, folder / "6.wav", "--windows", "--json")) == 0
    entry = json.loads(capsys.readouterr().out)
    assert [w["start"] for w in entry["windows"]] == [0.0, 0.5, 1.0]
    assert [w["predictions"][0]["label"] for w in entry["windows"]] == [w.label for w in windows]
    assert main(command(model_dir, folder / "6.wav", "--windows", "--out", tmp_path / "w.csv")) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "w.csv").read_text())))
    assert [float(row["end"]) for row in rows[::4]] == pytest.approx([0.5, 1.0, 1.5])


def test_nothing_is_overwritten_unless_asked(model_dir, folder, tmp_path: Path, capsys) -> None:
    out = tmp_path / "results.csv"
    out.write_text("mine")
    assert main(command(model_dir, folder / "0.wav", "--out", out)) == 2
    assert out.read_text() == "mine"
    assert "exists already, expected a new name, or --overwrite" in capsys.readouterr().err
    assert main(command(model_dir, folder / "0.wav", "--out", out, "--overwrite")) == 0
    assert out.read_text().startswith("path,start,end,label,score,error\n")


@pytest.mark.parametrize("name", ["results.csv", "results.json"])
def test_what_was_computed_before_ctrl_c_is_kept(name, model_dir, folder, tmp_path, monkeypatch, capsys) -> None:
    original = predict.answers

    def interrupted(*arguments):
        for number, answer in enumerate(original(*arguments)):
            if number == 3:
                (part,) = (path.read_text() for path in tmp_path.glob(f"{name}.*.part"))
                assert all(f"{n}.wav" in part for n in range(3))  # on the disk as it comes
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(predict, "answers", interrupted)
    assert main(command(model_dir, folder, "--out", tmp_path / name)) == 130
    assert f"stopped after 3 of 9 files; their results are in {tmp_path / name}" in capsys.readouterr().err
    text = (tmp_path / name).read_text()
    found = json.loads(text) if name.endswith("json") else list(csv.DictReader(io.StringIO(text)))
    assert sorted({entry["path"] for entry in found}) == [f"{folder}/{n}.wav" for n in range(3)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_writers_of_the_same_results_do_not_meet(tmp_path: Path) -> None:
    out, reports = tmp_path / "r.csv", [Report(name, [], "no sound") for name in ("a.wav", "b.wav")]
    with results_file(out) as first:
        first(reports[:1])
        with results_file(out) as second:
            second(reports[1:])
        assert "b.wav" in out.read_text()
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["path", "a.wav"]
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_a_mistake_leaves_no_file(model_dir, folder, tmp_path: Path, capsys) -> None:
    assert main(command(model_dir, folder / "0.wav", "--out", tmp_path / "r.csv", "--hop", "9")) == 2
    assert "hop: found 9.0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_size_outside_the_training_is_told(folder, tmp_path: Path, capsys) -> None:
    model = classifier()
    model.metadata["trained_patch_sizes"] = ["8", "12"]
    model.save_pretrained(tmp_path / "model")
    assert main(command(tmp_path / "model", folder / "0.wav", "--patch-size", "16")) == 0
    assert "patch size 16: the model was trained at 8, 12" in capsys.readouterr().err


@pytest.mark.slow
def test_a_terminal_that_lacks_the_characters_ends_in_no_traceback(model_dir, folder, tmp_path: Path) -> None:
    files = [tmp_path / "狗\n.wav", Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")), tmp_path / "é\x1b.wav"]
    for path in files[:2]:
        shutil.copy(folder / "0.wav", path)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    arguments = [sys.executable, "-m", "flexiast.cli", *command(model_dir, *files, "--workers", 0)]
    done = subprocess.run(arguments, capture_output=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 8
    assert b"caf\xe9.wav" in done.stdout
    assert b"\\u72d7\\n.wav" in done.stdout


def test_a_gigantic_folder_is_read_by_workers_a_small_one_is_not() -> None:
    def workers(requested: int | None, files: int) -> int:
        return OverFiles(workers=requested).hearing(files).workers

    assert workers(None, 3) == 0
    assert 1 <= workers(None, 10_000) <= 4
    assert workers(0, 10_000) == 0
    assert workers(7, 3) == 7


def test_sounds_of_shards_and_manifests(model_dir, folder, tmp_path: Path, capsys) -> None:
    soundfile.write(tmp_path / "a.wav", torch.zeros(8000).numpy(), 16_000)
    (tmp_path / "list.csv").write_text("path,label\na.wav,x\n")
    assert main(command(model_dir, tmp_path / "list.csv")) == 0
    assert {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()} == {str(tmp_path / "a.wav")}


def test_what_is_no_audio_is_reported_and_the_rest_goes_on(model_dir, folder, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("Recorded in May.\n")
    out = tmp_path / "results.csv"
    assert main(command(model_dir, tmp_path / "notes.txt", folder / "0.wav", "--out", out)) == 2
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [Path(row["path"]).name for row in rows] == ["notes.txt"] + ["0.wav"] * 4
    assert rows[0]["error"].startswith("found columns ['Recorded in May.'], expected one of files")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"flexiast: {tmp_path}/notes.txt: {rows[0]['error']}"
    assert lines[1:] == ["flexiast: error: 1 of 2 files could not be used"]
    assert main(command(model_dir, tmp_path / "notes.txt")) == 2
    assert capsys.readouterr().err.splitlines() == [lines[0].replace("flexiast: ", "flexiast: error: ")]


def test_table_options_beside_audio_files_are_refused(model_dir, folder, capsys) -> None:
    assert main(command(model_dir, folder / "0.wav", "--path-column", "x", "--encoding", "cp1252")) == 2
    said = capsys.readouterr().err
    assert (
        f"--path-column, --encoding: found beside {folder}/0.wav, expected a table of clips (CSV, TSV, JSONL)" in said
    )
