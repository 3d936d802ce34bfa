"""`flexiast embed`: what is in the files, past bad files, and without pyarrow."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import flexiast
from flexiast.cli import main
from tests.classifier.test_audio_classifier import classifier, noise, write


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embed")
    classifier().save_pretrained(root / "model")
    (root / "calls").mkdir()
    for number in range(3):
        write(root / "calls" / f"{number}.wav", noise(0.3 + 0.3 * number))
    return root


def command(places: Path, out: Path, *options: str) -> list[str]:
    return ["embed", str(places / "model"), str(places / "calls"), "--out", str(out), "--workers", "0", *options]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("time", [False, True])
def test_the_file_holds_what_python_gives(suffix: str, time: bool, places: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / f"e{suffix}"
    options = ["--layer", "mean", "--patch-size", "16", "--precision", "fp32", *(["--time"] if time else [])]
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    assert main(command(places, out, *options)) == 0
    assert f"written  {out}\nfiles    3\n" in capsys.readouterr().out
    if suffix == ".npz":
        with np.load(out) as file:
            rows = {name: file[name] for name in file.files}
    else:
        rows = {name: np.array(values) for name, values in parquet.read_table(out).to_pydict().items()}
    assert list(rows) == ["path", "start", "end", "embedding"]
    model, files = flexiast.load(places / "model"), sorted((places / "calls").iterdir())
    expected = [np.atleast_2d(model.embed(f, 16, "mean").numpy()) for f in files]
    if time:
        expected = [model.embed(f, 16, "mean", time=True).vectors.numpy() for f in files]
    np.testing.assert_allclose(rows["embedding"], np.concatenate(expected), atol=1e-5)
    assert rows["path"].tolist() == [str(f) for f, own in zip(files, expected, strict=True) for _ in own]
    assert (rows["end"] > rows["start"]).all()


def test_a_bad_file_loses_nothing_else(places: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    out = tmp_path / "e.npz"
    arguments = command(places, out)
    arguments.insert(3, str(tmp_path / "bad.wav"))
    assert main(arguments) == 2
    assert "1 of 4 files could not be used; the first: " in capsys.readouterr().err
    with np.load(out) as file:
        assert len(file["embedding"]) == 3


@pytest.mark.parametrize("command_line", ["embed {} {}/calls {}/none-*.wav", "score {} {}/list.csv"])
def test_a_name_that_stands_for_nothing_is_reported_at_the_end(command_line: str, places, tmp_path, capsys) -> None:
    (places / "list.csv").write_text("sound;other\ncalls/0;a\ncalls/1;b\ncalls/9;c\n")
    options = ["--path-column", "sound", "--path-suffix", ".wav"] if "list" in command_line else []
    out = tmp_path / "all.npz"
    names = command_line.replace("{}", str(places / "model"), 1).replace("{}", str(places)).split()
    assert main([*names, *options, "--out", str(out), "--workers", "0"]) == 2
    captured = capsys.readouterr()
    good, every = (2, 3) if options else (3, 4)
    assert f"written   {out}\nfiles     {good}\nleft out  1\n" in captured.out
    assert f"1 of {every} files could not be used; the first: " in captured.err
    with np.load(out) as file:
        assert len(file["clip" if options else "path"]) == good


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("e.csv", [], "expected a file name that ends in .parquet or .npz"),
        ("e.npz", ["--layer", "9"], "layer: found 9, expected mean, or -2 to 1"),
        ("e.npz", ["--layer", "top"], "layer"),
    ],
)
def test_a_mistake_is_one_line(out: str, options, message: str, places: Path, tmp_path: Path, capsys) -> None:
    assert main(command(places, tmp_path / out, *options)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_the_extra_is_named_before_the_work(places: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    original = importlib.import_module

    def without(name: str, *rest: object):
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return original(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert main(command(places, tmp_path / "e.parquet")) == 2
    assert "pyarrow: not installed" in (text := capsys.readouterr().err)
    assert "the extra `data` (pip install '.[data]')" in text
