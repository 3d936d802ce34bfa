"""The networks that are compared, all with the weights of one FlexiAST."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from transformers import ASTForAudioClassification
from transformers.utils import logging

from flexiast import FlexiAST, FlexiASTConfig
from flexiast.export.huggingface import huggingface_ast
from flexiast.models.config import SIZES
from flexiast.models.geometry import PatchSize
from flexiast.models.resize import resize_kernel

logging.disable_progress_bar()
Model = TypeVar("Model", bound=nn.Module)


def flexible(size: str, frames: int, prefix_tokens: int = 1, **more: Any) -> FlexiAST:
    """A FlexiAST of 527 classes with random weights."""
    torch.manual_seed(0)
    config = FlexiASTConfig(classes=527, frames=frames, prefix_tokens=prefix_tokens, **SIZES[size], **more)
    return shake(FlexiAST(config))


def shake(model: Model) -> Model:
    """Noise on all parameters, in place: in a new network every block is the identity, and would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


class ExplicitAttention(Attention):
    """Attention as two matrix products with a softmax between them, always of all tokens."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, first: int | None = None
    ) -> Tensor:
        return super().forward(x, attn_mask, is_causal)[:, :first]


def with_explicit_attention(model: FlexiAST) -> FlexiAST:
    """A copy that computes attention as two matrix products with a softmax between them."""
    model = copy.deepcopy(model)
    blocks: list[Any] = list(model.blocks)
    for block in blocks:
        explicit = ExplicitAttention(model.config.width, model.config.heads, qkv_bias=True)
        explicit.load_state_dict(block.attn.state_dict())
        explicit.fused_attn = False  # type: ignore[misc]
        block.attn = explicit
    return model


class StaticViT(nn.Module):
    """timm's VisionTransformer of one patch size with the classifier of AST; log-mel (B, T, F) to logits (B, C)."""

    def __init__(self, model: FlexiAST, patch: PatchSize) -> None:
        super().__init__()
        config, grid = model.config, model.config.grid(patch, model.config.frames)
        self.vit = VisionTransformer(
            img_size=(config.bins, config.frames),
            patch_size=tuple(patch),
            in_chans=1,
            num_classes=config.classes,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
        )
        self.vit.fc_norm = nn.LayerNorm(config.width, eps=config.head_norm_eps)
        positions = model.positions(config.layout(patch, config.frames), config.frames).reshape(
            1, grid.tokens, config.width
        )
        same = ("blocks.", "norm.", "head.")
        state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(same)} | {
            "patch_embed.proj.weight": resize_kernel(model.kernel, patch)[:, None],
            "patch_embed.proj.bias": model.kernel_bias,
            "cls_token": model.prefix[None],
            "pos_embed": torch.cat([model.prefix_pos_embed[None], positions], dim=1),
            "fc_norm.weight": model.head_norm.weight,
            "fc_norm.bias": model.head_norm.bias,
        }
        self.vit.load_state_dict(state)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.vit(log_mel.mT[:, None])


class HuggingFace(nn.Module):
    """transformers' ASTForAudioClassification of one patch size; log-mel (B, T, F) to logits (B, C)."""

    def __init__(self, model: FlexiAST, patch: PatchSize, attention: str) -> None:
        """model: with two prefix tokens. attention: `eager` or `sdpa`."""
        super().__init__()
        settings, state = huggingface_ast(model, patch)
        classes = model.config.classes
        settings["id2label"] = {str(i): str(i) for i in range(classes)}
        settings["label2id"] = {str(i): i for i in range(classes)}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(settings))
            tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
            save_file(tensors, Path(folder) / "model.safetensors", {"format": "pt"})
            self.ast = ASTForAudioClassification.from_pretrained(folder, attn_implementation=attention)
        self.ast.eval()

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.ast(log_mel).logits
