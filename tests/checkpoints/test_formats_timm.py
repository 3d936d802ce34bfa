"""timm's image models: the same embeddings at their own size, and a sound start on spectrograms."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import flexiast
from flexiast.checkpoints.checkpoint import read_checkpoint
from flexiast.checkpoints.formats.base import Source, convert
from flexiast.checkpoints.formats.timm import FORMAT, describe
from flexiast.errors import CheckpointError
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import Grid
from flexiast.models.resize import fit_positions

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 5}
MODELS = {
    "ViT": ("vit_tiny_patch16_224", {"img_size": 64}),
    "ViT, patch 32": ("vit_small_patch32_224", {"img_size": 128}),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64}),
    "FlexiViT": ("flexivit_small", {"img_size": 96}),
    "no attention biases": ("vit_tiny_patch16_224", {"img_size": 64, "qkv_bias": False}),
    "one channel": ("vit_tiny_patch16_224", {"img_size": 64, "in_chans": 1}),
}


def image_model(name: str, **changes: object) -> torch.nn.Module:
    """A small timm model of this kind, every parameter random."""
    torch.manual_seed(0)
    model = timm.create_model(name, **(SMALL | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


@pytest.mark.parametrize("kind", MODELS)
def test_embeddings_are_timms_at_the_models_own_size(kind):
    name, changes = MODELS[kind]
    model = image_model(name, **changes)
    side = model.patch_embed.img_size[0]
    source = Source(Path("model"), model.state_dict(), heads=2, frames=side, bins=side)
    checkpoint = convert(source, FORMAT, describe(source), "model")
    network = FlexiAST(checkpoint.config).eval()
    network.load_state_dict(checkpoint.state)
    image = torch.randn(2, 1, side, side)  # grey: the same in all colours
    channels = model.patch_embed.proj.in_channels
    expected = model.forward_head(model.forward_features(image.expand(-1, channels, -1, -1)), pre_logits=True)
    torch.testing.assert_close(network.features(image[:, 0].mT), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ViT", "DeiT, distilled", "FlexiViT"])
@pytest.mark.parametrize("frames", [32, 1024])
def test_a_state_dict_file_becomes_an_untrained_classifier(kind, frames, tmp_path):
    name, changes = MODELS[kind]
    model = image_model(name, **(changes | {"img_size": 224 if frames == 32 else 64}))
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "image.pth")  # as DeiT's own files are
    loaded = flexiast.load(tmp_path / "image.pth", heads=2, frames=None if frames == 1024 else frames)
    config, report = loaded.config, loaded.load_report
    prefix = 2 if kind.startswith("DeiT") else 1
    assert (config.frames, config.bins, config.prefix_tokens, config.coverage) == (frames, 128, prefix, "drop")
    assert loaded.labels.names == ("untrained",)
    assert loaded.features(torch.randn(1, frames, 128)).shape == (1, 64)
    start = 0 if kind == "FlexiViT" else prefix
    old = model.patch_embed.grid_size
    grid = model.pos_embed[0, start:].unflatten(0, old)
    assert torch.equal(loaded.pos_embed, fit_positions(grid, Grid(8, frames // 16)))
    assert torch.equal(loaded.prefix_pos_embed, model.pos_embed[0, :start] if start else torch.zeros(prefix, 64))
    assert all("classifier of images" in report.ignored[n] for n in model.state_dict() if n.startswith("head"))
    assert {"head.weight", "head.bias", "head_norm.weight", "head_norm.bias"} <= report.of("new").keys()
    assert any("beside the state dict, not read: epoch" in note for note in report.notes)
    again = flexiast.load(tmp_path / "image.pth", heads=2, frames=frames)
    assert torch.equal(again.head.weight, loaded.head.weight)  # the new head is the same at every loading


def test_positions_are_cut_to_their_centre_or_interpolated():
    """As AST does: 14 rows to the middle 8, 14 columns to 64 (Gong et al., 2021, section 2.2)."""
    grid = torch.randn(14, 14, 3)
    expected = F.interpolate(grid[3:11].permute(2, 0, 1)[None], (8, 64), mode="bilinear")[0].permute(1, 2, 0)
    torch.testing.assert_close(fit_positions(grid, Grid(8, 64)), expected)
    assert torch.equal(fit_positions(grid, Grid(8, 6)), grid[3:11, 4:10])


def write_directory(directory: Path, architecture: str, model: torch.nn.Module, **model_args: object) -> Path:
    """A directory as timm pushes it to the Hub."""
    directory.mkdir()
    save_file(model.state_dict(), directory / "model.safetensors")
    description = {"architecture": architecture, "num_classes": 5, "model_args": model_args}
    (directory / "config.json").write_text(json.dumps(description))
    return directory


def test_a_hub_directory_tells_heads_and_a_grid_that_is_not_square(tmp_path):
    changes = SMALL | {"num_heads": 4, "img_size": (128, 64)}
    model = image_model("vit_tiny_patch16_224", **changes)
    loaded = flexiast.load(write_directory(tmp_path / "hub", "vit_tiny_patch16_224", model, **changes), frames=64)
    assert loaded.config.heads == 4
    assert torch.equal(loaded.pos_embed, model.pos_embed[0, 1:].unflatten(0, (8, 4)))


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, r"register tokens \(reg_token\)"),
        ("vit_tiny_patch16_224", {"init_values": 1e-5}, r"LayerScale \(blocks.0.ls1.gamma\)"),
        ("vit_tiny_patch16_224", {"qk_norm": True}, "normalised queries"),
        ("vit_tiny_patch16_224", {"pre_norm": True}, "a norm before its blocks"),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, "a norm after pooling"),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "map"}, "attention pooling"),
        (
            "vit_tiny_patch16_224",
            {"class_token": False, "global_pool": "avg", "fc_norm": False},
            r"missing \(cls_token\)",
        ),
        ("vit_tiny_patch16_224", {"img_size": (32, 96)}, "no square grid"),
    ],
)
def test_image_models_of_another_make_are_refused(name, changes, found, tmp_path):
    torch.save(image_model(name, **({"img_size": 64} | changes)).state_dict(), tmp_path / "image.pth")
    with pytest.raises(CheckpointError, match=f"image.pth.*{found}"):
        read_checkpoint(tmp_path / "image.pth")


@pytest.mark.parametrize(
    ("architecture", "model_args", "found"),
    [
        ("no_such_model", {}, "timm cannot build 'no_such_model'"),
        ("resnet18", {}, "found 'resnet18', expected a ViT"),
        ("vit_tiny_patch16_224", {"act_layer": "quick_gelu"}, "a FlexiAST has GELU"),
        ("vit_tiny_patch16_224", {"nonsense": 1}, "timm cannot build"),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg", "fc_norm": False}, "pools by 'avg'"),
    ],
)
def test_architectures_of_another_make_are_refused(architecture, model_args, found, tmp_path):
    model = image_model("vit_tiny_patch16_224", img_size=64)
    with pytest.raises(CheckpointError, match=f"config.json, architecture: .*{found}"):
        flexiast.load(write_directory(tmp_path / "hub", architecture, model, **model_args))
