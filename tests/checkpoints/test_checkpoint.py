"""Checkpoints: what is written is read back, released files are understood, and damaged or hostile ones refused."""

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import flexiast
from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig
from flexiast.checkpoints.checkpoint import SIDECAR, WEIGHTS, read_checkpoint, write_atomically
from flexiast.data.manifest import Labels
from flexiast.errors import CheckpointError, FileError

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED = GOLDEN / "flexiast_vit_tiny.pth"
RANDOM = np.random.default_rng(0).bytes(1000)


def refused(path: Path, found: str):
    """Expect a CheckpointError that names the file and what was found."""
    return pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*{re.escape(found)}")


@pytest.fixture
def classifier() -> AudioClassifier:
    torch.manual_seed(0)
    config = FlexiASTConfig(
        classes=2, frames=64, bins=32, patch_size="8x16", width=16, depth=1, heads=2, coverage="pad", pad_value=0.25
    )
    features = FeatureConfig(sample_rate=8000, bins=32, frames=64, mean=-3.0, std=4.0, downmix="first")
    model = AudioClassifier(config, features, Labels(("/m/1", "/m/2"), ("cat", "dög")), "bce", {"trained_steps": 7})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def released() -> dict[str, torch.Tensor]:
    return torch.load(RELEASED, weights_only=True)


# Our own format ------------------------------------------------------------------------------------------------


def test_save_and_load_give_the_same_model(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "model")
    loaded = flexiast.load(tmp_path / "model")
    x = torch.randn(2, 64, 32)
    assert torch.equal(loaded(x, "16x8"), classifier(x, "16x8"))
    assert not loaded.training
    for what in ("config", "feature_config", "labels", "loss", "metadata"):
        assert getattr(loaded, what) == getattr(classifier, what)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda state: state.pop("norm.bias"), "missing (norm.bias)"),
        (lambda state: state.update(foreign=torch.zeros(1)), "unexplained (foreign)"),
        (lambda state: state.update({"head.bias": torch.zeros(3)}), "head.bias has shape (3,), expected (2,)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_weights_that_do_not_fit_their_description_are_refused(damage, found, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    damage(state)
    save_file(state, tmp_path / WEIGHTS)
    with refused(tmp_path / WEIGHTS, found):
        flexiast.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda sidecar: sidecar.update(format="flexiast-9"), "'flexiast-9', expected 'flexiast-1'"),
        (lambda sidecar: sidecar.pop("model"), "model"),
        (lambda sidecar: sidecar["model"].update(heads=3), "heads"),
        (lambda sidecar: sidecar["model"].update(depth=900_000), "900000 blocks"),
        (lambda sidecar: sidecar["model"].update(colour="red"), "colour"),
    ],
    ids=["format", "no model", "heads", "depth", "unknown field"],
)
def test_wrong_description_is_refused(edit, found, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    sidecar = json.loads((tmp_path / SIDECAR).read_text())
    edit(sidecar)
    (tmp_path / SIDECAR).write_text(json.dumps(sidecar))
    with refused(tmp_path / SIDECAR, found):
        flexiast.load(tmp_path)


@pytest.mark.parametrize("field", ["features", "labels"])
def test_wrong_features_and_labels_are_refused(field, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    sidecar = json.loads((tmp_path / SIDECAR).read_text())
    sidecar[field] = {"mids": ["a", "b"], "frames": -1}
    (tmp_path / SIDECAR).write_text(json.dumps(sidecar))
    with refused(tmp_path, "description is not valid"):
        flexiast.load(tmp_path)


@pytest.mark.parametrize("name", [SIDECAR, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", RANDOM], ids=["none", "empty", "list", "cut", "random"])
def test_damaged_or_missing_parts_are_refused(name, content, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with refused(tmp_path / name, ""):
        flexiast.load(tmp_path)


@pytest.mark.parametrize("start", [b"PK", b"\x80\x02"], ids=["zip", "pickle"])
def test_safetensors_whose_length_looks_like_another_format_is_read(start, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")  # the file starts with the length of its header, 8 bytes
    length = start + b"\1" + bytes(5)
    header = content[8:end].ljust(int.from_bytes(length, "little"))
    (tmp_path / WEIGHTS).write_bytes(length + header + content[end:])
    assert torch.equal(flexiast.load(tmp_path).kernel, classifier.kernel)


# Released state dicts ------------------------------------------------------------------------------------------


def test_released_state_dict_is_read_and_its_leftovers_are_named():
    checkpoint = read_checkpoint(RELEASED, heads=2)
    config = checkpoint.config
    assert (config.classes, config.frames, config.width, config.depth, config.heads) == (10, 256, 64, 2, 2)
    assert (config.patch_size, config.prefix_tokens, config.base.grid) == ((16, 16), 1, (8, 16))
    assert config.coverage == "drop"  # as released models were trained, whatever the default
    names = json.loads((GOLDEN / "flexiast_vit_keys.json").read_text())
    dead = {n.removeprefix("module.") for n in names if re.match(r"module\.v\.(pos_embed|patch_embed|head)", n)}
    assert dead == checkpoint.report.ignored.keys()
    assert all("never used" in reason for reason in checkpoint.report.ignored.values())


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_variant_with_two_prefix_tokens_is_read(prefix, tmp_path):
    torch.manual_seed(0)
    names = json.loads((GOLDEN / "flexiast_deit_keys.json").read_text())
    state = {prefix + name.removeprefix("module."): torch.randn(shape) for name, (shape, _) in names.items()}
    torch.save(state, tmp_path / "deit.pth")
    model = flexiast.load(tmp_path / "deit.pth", heads=2)
    for row, token in enumerate(("cls_token", "dist_token")):
        assert torch.equal(model.prefix[row], state[f"{prefix}v.{token}"][0, 0])
    positions = state[f"{prefix}pos_embed.pos_embed"][0]  # (2 + 8 * 16, D)
    assert torch.equal(model.prefix_pos_embed, positions[:2])
    assert torch.equal(model.pos_embed.flatten(0, 1), positions[2:])
    assert model(torch.randn(1, 256, 128), 32).shape == (1, 10)


def test_released_state_dict_is_read_from_safetensors_too(released, tmp_path):
    save_file(released, tmp_path / "released.safetensors")
    x = torch.randn(1, 256, 128)
    assert torch.equal(
        flexiast.load(tmp_path / "released.safetensors", heads=2)(x), flexiast.load(RELEASED, heads=2)(x)
    )


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda s: s.pop("module.v.norm.bias"), "missing (v.norm.bias)"),
        (lambda s: s.pop("module.mlp_head.1.weight"), "mlp_head.1.weight"),
        (lambda s: s.pop("module.pos_embed.pos_embed"), "nearest is released FlexiAST state dict"),
        (lambda s: s.update({"module.v.extra": torch.zeros(1)}), "unexplained (v.extra)"),
        (lambda s: s.update({"module.v.blocks.0.norm1.bias": torch.zeros(3)}), "expected (64,)"),
        (lambda s: s.update({"module.pos_embed.pos_embed": torch.zeros(1, 128, 64)}), "expected (1, 121, 64)"),
        (lambda s: s.update({"module.patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}), "(64, 3, 16, 16)"),
        (lambda s: s.update({"module.patch_embed.proj.weight": torch.zeros(64)}), ""),
        (lambda s: s.update({"module.patch_embed.proj.weight": torch.zeros(64, 1, 200, 16)}), ""),
        (lambda s: s.update({"module.v.blocks.x.norm1.bias": torch.zeros(64)}), ""),
        (lambda s: s.update({"module.v.blocks.0.mlp.fc1.bias": torch.tensor(0.0)}), ""),
    ],
    ids=[
        *("missing", "no head", "no positions", "extra", "shape", "positions", "channels"),
        *("flat kernel", "patch above 128 bins", "block without a number", "scalar bias"),
    ],
)
def test_released_state_dict_that_does_not_fit_is_refused(damage, found, released, tmp_path):
    damage(released)
    torch.save(released, tmp_path / "bad.pth")
    with refused(tmp_path / "bad.pth", found):
        flexiast.load(tmp_path / "bad.pth", heads=2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02.",
        b"\x80\x02" + bytes(100),
        RELEASED.read_bytes()[:100_000],
        RANDOM,
    ],
    ids=["empty", "one byte", "zip", "short pickle", "pickle", "truncated", "random"],
)
def test_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "bad.pth").write_bytes(content)
    with refused(tmp_path / "bad.pth", "not readable"):
        flexiast.load(tmp_path / "bad.pth")


def test_missing_file_is_refused(tmp_path):
    with refused(tmp_path / "none.pth", "no such file or directory"):
        flexiast.load(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [torch.zeros(2), {"weights": [1, 2]}, {"epoch": 3}, {}, {0: torch.zeros(2)}])
def test_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with refused(tmp_path / "other.pth", "expected a state dict"):
        flexiast.load(tmp_path / "other.pth")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_in_a_checkpoint_is_never_run(writer, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "hostile.pth"
    writer({"payload": Payload(marker)}, path)
    with refused(path, "not readable"):
        flexiast.load(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload does work


# Writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(failing, tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError("disk full")

    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(FileError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
