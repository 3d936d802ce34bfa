"""The directory that transformers loads with `trust_remote_code`: our logits at any patch size, without our package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from flexiast.export.export import export
from flexiast.export.remote_code import modeling_file
from tests.classifier.test_audio_classifier import classifier, noise, write
from tests.classifier.test_budget import made_curve

PATCHES = (8, "16x4", 12)


@pytest.fixture(scope="module", params=["curve", pytest.param("plain", marks=pytest.mark.slow)])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a model with or without a curve; all tests compare with the one without."""
    model = classifier("bce")
    if request.param == "curve":
        model.metadata["curve"] = made_curve(model).to_json()
    out = tmp_path_factory.mktemp("remote") / "model"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(out.parent / "modules"))
        done = export(model, out, "transformers", 8)
    assert done.difference < 1e-4
    return out


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_the_patch_size_is_an_argument_of_forward(directory: Path) -> None:
    model = classifier("bce").requires_grad_(False)
    loaded = transformers.AutoModelForAudioClassification.from_pretrained(directory, trust_remote_code=True)
    log_mel = model.front_end(noise(0.5)[None])
    for patch in PATCHES:
        torch.testing.assert_close(loaded(log_mel, patch_size=patch).logits, model(log_mel, patch), atol=1e-4, rtol=0)
    targets = torch.tensor([[1.0, 0, 1, 0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(model(log_mel, 8), targets)
    torch.testing.assert_close(loaded(log_mel, labels=targets).loss, expected)


def pipeline(directory: Path, **settings):
    return transformers.pipeline("audio-classification", str(directory), trust_remote_code=True, **settings)


def require_our_scores(got: list[dict], path: Path, patch: int | str) -> None:
    by_label = {one["label"]: one["score"] for one in got}
    expected = classifier("bce").predict(path, patch, top_k=4)
    assert [by_label[label] for label, _ in expected] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_a_pipeline_takes_the_patch_size_of_each_call(directory: Path, tmp_path: Path) -> None:
    sound = {"raw": noise(0.5).numpy(), "sampling_rate": 16_000}
    path, pipe = write(tmp_path / "a.wav", noise(0.5)), pipeline(directory)
    for patch in (32, "16x4", 12):
        require_our_scores(pipe(dict(sound), patch_size=patch, top_k=4), path, patch)
    require_our_scores(pipe(dict(sound), top_k=4), path, 8)  # nothing of the calls before is left
    for got in pipe([dict(sound), dict(sound)], patch_size=32, batch_size=2, top_k=4):
        require_our_scores(got, path, 32)


@pytest.mark.parametrize("settings", [{"patch_size": 12}, {"model_kwargs": {"patch_size": "12"}}])
def test_a_pipeline_keeps_the_patch_size_it_is_made_with(settings: dict, directory: Path, tmp_path: Path) -> None:
    pipe = pipeline(directory, top_k=4, **settings)
    sound = {"raw": noise(0.5).numpy(), "sampling_rate": 16_000}
    require_our_scores(pipe(sound), write(tmp_path / "a.wav", noise(0.5)), 12)


@pytest.mark.slow
def test_the_code_runs_without_this_package(directory: Path, tmp_path: Path) -> None:
    assert "import_module" not in modeling_file()
    assert "from ." not in modeling_file()
    code = f"""
import sys
sys.modules["flexiast"] = None
sys.path.insert(0, {str(directory)!r})
from modeling_flexiast import FlexiASTForAudioClassification
import torch
loaded = FlexiASTForAudioClassification.from_pretrained({str(directory)!r})
print(tuple(loaded(torch.zeros(2, 48, 32), 16).logits.shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == "(2, 4)", done.stderr
