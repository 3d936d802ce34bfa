"""Results that are there already are replaced only when asked, and nothing is computed before that is known."""

from pathlib import Path

import pytest

from flexiast.cli import main
from flexiast.commands import bench, measure, pack, stats
from tests.sounds import CLASSES, tiny_model, write_folder


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a folder of clips of its classes."""
    root = tmp_path_factory.mktemp("given")
    data = write_folder(root / "data", 1, seed=0)
    tiny_model(sorted(CLASSES)).save_pretrained(root / "model")
    return root / "model", data


COMMANDS = {
    "measure": ("measure {model} --data {data} --out {out} --patch-sizes 16 --workers 0", "flexibility.csv"),
    "bench": ("bench {model} --out {out} --patch-sizes 16 --seconds 0.01 --batch-size 1", "bench.csv"),
    "stats": ("stats {data} --workers 0 --out {out}/s.json", "s.json"),
    "pack": ("pack {data} {out}", "index.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_earlier_results_are_refused_before_any_work(name: str, given, tmp_path: Path, monkeypatch, capsys) -> None:
    text, written = COMMANDS[name]
    command = text.format(model=given[0], data=given[1], out=tmp_path / "out").split()
    assert main(command) == 0
    first = {path: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())}
    assert tmp_path / "out" / written in first
    capsys.readouterr()
    with monkeypatch.context() as patch:
        for module, work in ((measure, "load"), (bench, "load"), (stats, "read_manifest"), (pack, "read_manifest")):
            patch.setattr(module, work, lambda *_: pytest.fail("worked"))
        assert main(command) == 2
    assert f"out/{written}: exists already, expected " in (said := capsys.readouterr().err)
    assert ", or --overwrite to replace it\n" in said
    assert {path: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())} == first
    (tmp_path / "out" / written).write_bytes(first[tmp_path / "out" / written] + b"\n")
    assert main([*command, "--overwrite"]) == 0
    again = {path: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())}
    assert again.keys() == first.keys()
    assert not again[tmp_path / "out" / written].endswith(b"\n\n")


def test_shards_that_are_no_longer_needed_go(given, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    assert main(["pack", str(given[1]), str(out), "--shard-size", "0.04"]) == 0
    assert len(list(out.glob("*.tar"))) == 6
    assert main(["pack", str(given[1]), str(out), "--overwrite"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["000000.tar", "index.json"]


def test_shards_are_not_packed_into_themselves(given, tmp_path: Path, capsys) -> None:
    assert main(["pack", str(given[1]), str(tmp_path / "shards")]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    assert main(["pack", str(tmp_path / "shards"), str(tmp_path / "shards"), "--overwrite"]) == 2
    assert "holds the shards to be packed, expected another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
