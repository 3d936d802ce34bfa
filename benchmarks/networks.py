"""The networks that are compared, all with the weights of one FlexiAST."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg, batch_patchify
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from transformers import ASTForAudioClassification
from transformers.utils import logging

from flexiast import AudioClassifier, FeatureConfig, FlexiAST, FlexiASTConfig
from flexiast.data.manifest import Labels
from flexiast.export.export import export
from flexiast.export.huggingface import huggingface_ast
from flexiast.models.config import SIZES
from flexiast.models.geometry import PatchSize
from flexiast.models.resize import resize_kernel
from flexiast.traintest.bench_onnx import sessions

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
            patch_size=(patch.freq, patch.time),
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


class NaFlex(nn.Module):
    """timm's NaFlexVit of one patch size, given the patches and where they lie; log-mel (B, T, F) to logits (B, C).

    Its own resizing antialiases, so that kernel and positions are put in at their size; the tokens are the same.
    """

    def __init__(self, model: FlexiAST, patch: PatchSize) -> None:
        super().__init__()
        config, grid = model.config, model.config.grid(patch, model.config.frames)
        self.patch = patch
        self.vit = NaFlexVit(
            NaFlexVitCfg(
                patch_size=(patch.freq, patch.time),
                embed_dim=config.width,
                depth=config.depth,
                num_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                class_token=True,
                pos_embed_grid_size=(grid.freq, grid.time),
                global_pool="token",
                fc_norm=True,
            ),
            in_chans=1,
            num_classes=config.classes,
        )
        self.vit.norm = nn.LayerNorm(config.width, eps=config.norm_eps)  # left out there beside fc_norm
        self.vit.fc_norm.eps = config.head_norm_eps
        same = ("blocks.", "norm.", "head.")
        layout = config.layout(patch, config.frames)
        state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(same)} | {
            "embeds.proj.weight": resize_kernel(model.kernel, patch).flatten(1),
            "embeds.proj.bias": model.kernel_bias,
            "embeds.cls_token": (model.prefix + model.prefix_pos_embed)[None],
            "embeds.pos_embed": model.positions(layout, config.frames)[None],
            "fc_norm.weight": model.head_norm.weight,
            "fc_norm.bias": model.head_norm.bias,
        }
        self.vit.load_state_dict(state)
        self.place: Tensor
        place = torch.meshgrid(torch.arange(grid.freq), torch.arange(grid.time), indexing="ij")
        self.register_buffer("place", torch.stack(place, dim=-1).flatten(0, 1), persistent=False)  # (H * W, 2)

    def forward(self, log_mel: Tensor) -> Tensor:
        patches, _ = batch_patchify(log_mel.mT[:, None].contiguous(), self.patch)
        place = self.place.expand(len(patches), -1, -1)
        return self.vit(patches, patch_coord=place, patch_valid=place.new_ones(place.shape[:2], dtype=torch.bool))


def onnx_networks(model: FlexiAST, patch: PatchSize, folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    """Our exports in ONNX Runtime, float32 and int8, with torch's number of threads; log-mel (B, T, F) to logits."""
    frames = model.config.frames
    classifier = AudioClassifier(model.config, FeatureConfig(frames=frames), Labels.numbers(model.config.classes))
    classifier.load_state_dict(model.state_dict())
    export(classifier.eval(), folder / "model.onnx", "onnx", patch, "spectrogram")

    def logits(session: Any) -> Callable[[Tensor], Tensor]:
        return lambda log_mel: torch.from_numpy(session.run(["logits"], {"log_mel": log_mel.cpu().numpy()})[0])

    return {name: logits(session) for name, session in sessions(folder / "model.onnx").items()}


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
