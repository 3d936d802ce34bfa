"""Models push themselves to the Hub in our own format, and come back from it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import flexiast
from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig
from flexiast.data.manifest import Labels
from flexiast.errors import CheckpointError


@pytest.fixture
def model() -> AudioClassifier:
    torch.manual_seed(0)
    config = FlexiASTConfig(2, frames=64, bins=32, patch_size=8, width=16, depth=1, heads=2)
    labels = Labels(("a", "b"), ("cat", "dög"))
    return AudioClassifier(config, FeatureConfig(bins=32, frames=64, mean=-3.0), labels, "bce", {"trained_steps": 7})


@pytest.fixture
def pushed(monkeypatch):
    """What was pushed: repository -> name -> content."""
    repositories: dict[str, dict[str, bytes]] = {}

    def create_repo(_api, repo_id: str, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(_api, repo_id: str, folder_path: Path, **_options: object) -> str:
        repositories[repo_id] = {file.name: file.read_bytes() for file in Path(folder_path).iterdir()}
        return f"commit of {repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload_folder)
    return repositories


def test_from_pretrained_reads_a_directory(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = AudioClassifier.from_pretrained(tmp_path / "model")
    assert isinstance(again, AudioClassifier)
    assert not again.training
    assert (again.config, again.labels, again.loss, again.metadata) == (
        *(model.config, model.labels, model.loss, model.metadata),
    )
    assert again.feature_config == model.feature_config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_saving_writes_our_two_files_and_no_others(model, tmp_path):
    assert model.save_pretrained(tmp_path) is None
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_what_is_pushed_is_our_format_and_a_card(model, pushed, tmp_path):
    assert model.push_to_hub("me/model", private=True) == "commit of me/model"
    files = pushed["me/model"]
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    model.save_pretrained(tmp_path)
    assert all(files[file.name] == file.read_bytes() for file in tmp_path.iterdir())
    assert json.loads(files["config.json"])["labels"]["names"] == ["cat", "dög"]
    assert "library_name: flexiast" in files["README.md"].decode()


def test_saving_can_push_too(model, pushed, tmp_path):
    assert model.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="me/other") == "commit of me/other"
    assert model.save_pretrained(tmp_path / "model", push_to_hub=True) == "commit of model"
    assert pushed.keys() == {"me/other", "model"}
    for name, content in pushed["me/other"].items():
        (tmp_path / "back").mkdir(exist_ok=True)
        (tmp_path / "back" / name).write_bytes(content)
    assert torch.equal(flexiast.load(tmp_path / "back").kernel, model.kernel)


def test_a_repository_that_is_not_there_is_one_line(monkeypatch):
    def missing(*_args, **_options):
        raise FileNotFoundError("no connection\nsecond line")

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", missing)
    with pytest.raises(CheckpointError, match=r"me/nothing: not on the Hub \(FileNotFoundError: no connection\)$"):
        AudioClassifier.from_pretrained("me/nothing")


def test_options_reach_the_hub(model, monkeypatch, tmp_path):
    model.save_pretrained(tmp_path)
    asked = {}

    def snapshot_download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr("flexiast.checkpoints.hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **_options: str(tmp_path / "config.json"))
    again = AudioClassifier.from_pretrained("me/model", revision="v2", token="secret", cache_dir="there", device="cpu")
    assert torch.equal(again.kernel, model.kernel)
    assert (asked["repository"], asked["revision"], asked["token"]) == ("me/model", "v2", "secret")
    assert asked["cache_dir"] == "there"
