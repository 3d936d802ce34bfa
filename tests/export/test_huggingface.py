"""transformers' AST from a FlexiAST: read back by our own reader, equal logits; what it cannot be."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flexiast
from flexiast.errors import ConfigError
from flexiast.export.huggingface import huggingface_ast
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST

FRAMES = 96


def network(**settings) -> FlexiAST:
    torch.manual_seed(0)
    given = {"classes": 5, "frames": FRAMES, "width": 32, "depth": 2, "heads": 2, "coverage": "drop"}
    model = FlexiAST(FlexiASTConfig(**given | settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.no_grad()
@pytest.mark.parametrize("patch", [8, 16, 24, 32])
@pytest.mark.parametrize(
    "settings",
    [
        {"prefix_tokens": 2},
        {"prefix_tokens": 2, "stride": 10, "head_norm_eps": 1e-2},
        {},
        {"stride": (10, 12)},
        {"coverage": "pad", "frames": 192, "bins": 96},  # 96 and 192 are multiples of every patch size here
    ],
    ids=lambda s: "-".join(map(str, s.values())) or "one prefix",
)
def test_read_back_it_gives_the_models_logits(settings: dict, patch: int, tmp_path: Path) -> None:
    model = network(**settings)
    config, state = huggingface_ast(model, patch)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    back = flexiast.load(tmp_path)
    assert back.config.patch_size == (patch, patch)
    x = torch.randn(2, model.config.frames, model.config.bins)
    torch.testing.assert_close(back(x), model(x, patch), atol=5e-5, rtol=0)


@torch.no_grad()
def test_other_number_of_frames(tmp_path: Path) -> None:
    model = network(prefix_tokens=2)
    config, state = huggingface_ast(model, 16, 48)
    assert config["max_length"] == 48
    assert state["audio_spectrogram_transformer.embeddings.position_embeddings"].shape == (1, 2 + 8 * 3, 32)


@pytest.mark.parametrize(
    ("settings", "patch", "message"),
    [
        ({}, "16x32", "found 16x32, transformers' AST has square patches only"),
        (
            {"pool": "mean"},
            16,
            "model.pool: found 'mean', .*: train the model with --model.pool cls for it; onnx and torch exports",
        ),
        ({"coverage": "pad"}, 24, r"pads 128 bins to 144 \(coverage pad\)"),
        ({"coverage": "pad", "frames": 90}, 16, "pads 90 frames to 96"),
        ({"coverage": "pad", "stride": 10}, 16, "pads 128 bins to 136"),
        ({}, 97, "larger than the input"),
    ],
)
def test_what_it_cannot_be_is_said(settings: dict, patch, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        huggingface_ast(network(**settings), patch)
