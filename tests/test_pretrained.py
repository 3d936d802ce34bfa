"""The shipped checkpoints work at once: they name words said by voices that no training has heard."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import flexiast
from flexiast.data.manifest import read_manifest
from flexiast.traintest.evaluate import sweep

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


def test_flexible_checkpoint_reads_words_at_every_size(words) -> None:
    model = flexiast.load(SHIPPED / "demo_flexible")
    sizes = [flexiast.PatchSize.parse(s) for s in model.metadata["trained_patch_sizes"]]
    assert [str(s) for s in sizes] == ["8", "10", "12", "16", "20", "24", "32", "40", "48"]
    for result in sweep({"flexible": model}, words, sizes, workers=0, progress=False):
        assert result.metrics.accuracy >= 0.6, str(result.patch_size)  # 105 clips; 60 % is the demo's least


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
