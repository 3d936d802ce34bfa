"""The shipped checkpoints work at once: they name words said by voices that no training has heard."""

import dataclasses
import functools
import hashlib
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flexiast
from flexiast.checkpoints import released
from flexiast.data.manifest import read_manifest
from flexiast.errors import CheckpointError
from flexiast.traintest.evaluate import sweep
from tests.scripts import script as load_script

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "pretrained_models"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    """Three speakers drawn with another seed than the demo's, 35 words each."""
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("needs the demo extra (eSpeak NG)")
    out = tmp_path_factory.mktemp("words") / "data"
    speak = [sys.executable, str(ROOT / "egs" / "demo" / "speak.py"), str(out)]
    speakers = "--train-speakers 3 --val-speakers 0 --test-speakers 0 --seed 7"
    subprocess.run([*speak, *speakers.split()], check=True, capture_output=True)
    return read_manifest(out)


@pytest.mark.slow
def test_flexible_checkpoint_reads_words_at_every_size(words) -> None:
    model = flexiast.load(SHIPPED / "demo_flexible")
    sizes = [flexiast.PatchSize.parse(s) for s in model.metadata["trained_patch_sizes"]]
    assert [str(s) for s in sizes] == [str(side) for side in range(8, 49)]
    for result in sweep({"flexible": model}, words, sizes, workers=0, progress=False):
        assert result.metrics.accuracy >= 0.7, str(result.patch_size)  # 105 clips


def test_fixed_checkpoint_reads_words_at_its_own_size_only(words) -> None:
    model = flexiast.load(SHIPPED / "demo_fixed")
    own, other = sweep({"fixed": model}, words, [flexiast.PatchSize(16, 16), flexiast.PatchSize(48, 48)], workers=0)
    assert own.metrics.accuracy >= 0.7
    assert other.metrics.accuracy <= 0.2


@pytest.mark.parametrize("name", ["demo_fixed", "demo_flexible"])
def test_checkpoint_says_where_it_comes_from(name: str) -> None:
    metadata = flexiast.load(SHIPPED / name).metadata
    assert len(metadata["commit"]) == 40
    assert metadata["training"]["seed"] == 0
    assert not any(str(value).startswith("/") for value in metadata["training"]["data"].values())


def test_predict_names_words(words) -> None:
    model = flexiast.load(SHIPPED / "demo_flexible")
    predictions = model.predict(words.clips[0].path, patch_size=32, top_k=5)
    assert len(predictions) == 5
    assert {p.label for p in predictions} <= set(words.labels.names)
    assert 0.99 < sum(s for _, s in model.predict(words.clips[0].path, top_k=35)) < 1.01


# Fetching released checkpoints -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    return load_script(SHIPPED / "fetch.py")


@pytest.fixture
def server(tmp_path: Path):
    """A web server on this machine: its address, and the folder whose files it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()


def offered(script, monkeypatch, server, content: bytes, **changes: object) -> None:
    """Serve `content` as the only release, `model`, of ten classes."""
    address, folder = server
    (folder / "model.pth").write_bytes(content)
    release = released.Release(f"{address}/model.pth", "https://example.org/page", "released FlexiAST state dict", 10)
    only = {"model": dataclasses.replace(release, **changes)}
    monkeypatch.setattr(script, "RELEASES", only)
    monkeypatch.setattr(released, "RELEASES", only)


def test_a_release_is_fetched_checked_and_read(script, monkeypatch, server, tmp_path, capsys) -> None:
    content = (Path(__file__).parent / "golden" / "flexiast_vit_tiny.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    offered(script, monkeypatch, server, content, size=len(content), sha256=digest)
    for _ in range(2):  # the second time it is there already
        assert script.main(["model", "--out", str(tmp_path / "out")]) == 0
        printed = capsys.readouterr().out
        assert "released FlexiAST state dict" in printed
        assert printed.endswith(f"{tmp_path / 'out' / 'model.pth'}: SHA-256 {digest}\n")
        (server[1] / "model.pth").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("content", "changes", "found", "kept"),
    [
        (b"\n<!DOCTYPE html><title>Google Drive - Virus scan warning</title>", {}, "found a web page", False),
        (b"abc", {"sha256": "0" * 64}, "found SHA-256 ba7816bf", False),  # of "abc": FIPS 180-2, appendix B
        (b"abc", {"size": 4}, "found 3 bytes, expected 4", False),
        (b"PK damaged", {}, "model.pth: not readable", True),
        (None, {"classes": 527}, "expected ('released FlexiAST state dict', 527)", True),
        (None, {"format": "original AST state dict"}, "expected ('original AST state dict', 10)", True),
    ],
    ids=["web page", "checksum", "size", "damaged", "classes", "format"],
)
def test_what_is_not_the_release_is_one_line(
    content, changes, found, kept, script, monkeypatch, server, tmp_path, capsys
) -> None:
    content = content or (Path(__file__).parent / "golden" / "flexiast_vit_tiny.pth").read_bytes()
    offered(script, monkeypatch, server, content, **changes)
    assert script.main(["model", "--out", str(tmp_path / "out")]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert found in error
    assert (tmp_path / "out" / "model.pth").exists() == kept


def test_releases_are_those_of_the_readme_and_names_are_checked(script, capsys) -> None:
    rows = re.findall(r"^\| `((?:flexi)?ast_\w+)` \|", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    assert rows == list(released.RELEASES)
    known = {"released FlexiAST state dict", "original AST state dict"}
    assert {release.format for release in released.RELEASES.values()} == known
    for names in (["nobody"], []):
        assert script.main(names) == 2
        assert "expected some of flexiast_audioset" in capsys.readouterr().err


def test_load_takes_a_release_by_name_once_it_is_fetched(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(released, "FOLDER", tmp_path / "here")
    monkeypatch.setenv("FLEXIAST_DATA", str(tmp_path / "data"))
    with pytest.raises(CheckpointError, match=r"fetch it with `python pretrained_models/fetch\.py flexiast_vggsound`"):
        flexiast.load("flexiast_vggsound")
    content = (Path(__file__).parent / "golden" / "flexiast_vit_tiny.pth").read_bytes()
    for folder in ("data", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "flexiast_vggsound.pth").write_bytes(content)
        model = flexiast.load("flexiast_vggsound")
        assert model.load_report.format == "released FlexiAST state dict"
        assert model.load_report.source == "flexiast_vggsound"
