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


def test_a_pipeline_gives_our_scores_at_the_patch_size_it_is_made_with(directory: Path, tmp_path: Path) -> None:
    model, path = classifier("bce"), write(tmp_path / "a.wav", noise(0.5))
    for patch in ("8", "12"):
        pipe = transformers.pipeline(
            "audio-classification", str(directory), trust_remote_code=True, model_kwargs={"patch_size": patch}
        )
        got = {one["label"]: one["score"] for one in pipe({"raw": noise(0.5).numpy(), "sampling_rate": 16_000})}
        expected = model.predict(path, patch, top_k=4)
        assert [got[label] for label, _ in expected] == pytest.approx([score for _, score in expected], abs=1e-4)


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
