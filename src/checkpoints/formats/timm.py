"""timm's image models ViT, DeiT (also distilled) and FlexiViT, as initial weights for training on sound.

As in AST (Gong et al., INTERSPEECH 2021, section 2.2), the kernels of the three colours are summed, the position grid
is cut to its centre or interpolated to fit the spectrogram, and the classifier is new.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...errors import CheckpointError
from ...models.config import FlexiASTConfig
from ...models.geometry import Grid, PatchSize
from ...models.resize import fit_positions
from ..tensors import some
from . import vit_names as vit
from .base import Description, Format, Rule, Source
from .published import AUDIOSET

UNSUPPORTED = {
    "reg_token": "register tokens",
    "norm_pre.": "a norm before its blocks",
    "fc_norm.": "a norm after pooling",
    "attn_pool.": "attention pooling",
    "rope": "rotary positions",
    "blocks.0.attn.q_norm.": "normalised queries",
    "blocks.0.attn.norm.": "a norm inside its attention",
    "blocks.0.mlp.norm.": "a norm inside its MLP",
    "blocks.0.mlp.fc1_g.": "a gated MLP",
    "blocks.0.ls1.gamma": "LayerScale",
}
"""Name prefixes of parts that a FlexiAST does not have."""
ARGUMENTS = frozenset(
    {"img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim", "depth", "num_heads", "mlp_ratio"}
    | {"qkv_bias", "qk_norm", "init_values", "class_token", "pos_embed", "no_embed_class", "reg_tokens", "pre_norm"}
    | {"final_norm", "fc_norm", "dynamic_img_size", "dynamic_img_pad", "drop_path_rate", "act_layer", "mlp_layer"}
)
"""`model_args` accepted from a file. Other timm arguments could download or load weights, or allocate memory."""


NO_CLASSES = "an image model has no classes of sound"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What cannot be inferred from the tensors alone."""

    heads: int
    norm_eps: float = 1e-6
    grid: Grid | None = None
    """Position grid; None to assume a square."""
    pool: str = "token"


def describe(source: Source) -> Description | None:
    """Describe a timm vision transformer; None for anything else."""
    if not source.has("patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight"):
        return None
    for start, part in UNSUPPORTED.items():
        if tensor := next((name for name in source.state if name.startswith(start)), None):
            raise CheckpointError(f"{source.path}: this image model has {part} ({tensor}), which a FlexiAST lacks")
    source.need("cls_token")
    weight, positions = source.state["patch_embed.proj.weight"], source.state["pos_embed"]
    width, patch = weight.shape[0], PatchSize(*weight.shape[-2:])
    known = _architecture(source, width)
    config = FlexiASTConfig(
        classes=1,
        frames=source.frames or AUDIOSET.frames,
        bins=source.bins,
        patch_size=patch,
        width=width,
        depth=source.depth(r"blocks\.(\d+)\."),
        heads=known.heads,
        mlp_ratio=source.need("blocks.0.mlp.fc1.bias").shape[0] / width,
        prefix_tokens=2 if source.has("dist_token") else 1,
        coverage="drop",
        norm_eps=known.norm_eps,
    )
    rule, new = _positions(source, config, positions.shape[1], known.grid)
    rules = [vit.prefix_tokens(config, ""), rule, *_kernel(weight.shape[1]), *vit.encoder(config, "")]
    if not source.has("blocks.0.attn.qkv.bias"):
        rules, zeros = _without_qkv_bias(rules, width)
        new |= zeros
    ignored = dict.fromkeys(("head.", "head_dist."), "classifier of images")
    features = {"bins": source.bins, "frames": config.frames, "mean": AUDIOSET.mean, "std": AUDIOSET.std}
    notes = [
        f"{known.heads} heads, layer norm epsilon {known.norm_eps}: "
        + ("from the architecture" if source.sidecar else "not in a state dict, those of every ViT of this width"),
        "AudioSet's mean and std assumed: an image model has none for sound",
        f"{config.frames} frames on {config.bins} mel bins" + ("" if source.frames else ", none given"),
    ]
    metadata = {"features": features, "labels": vit.UNTRAINED}
    return Description(config, rules, metadata, ignored, new | vit.new_head(width, NO_CLASSES), notes)


def _architecture(source: Source, width: int) -> Architecture:
    """From the architecture named in config.json, built without weights; without config.json, the usual values."""
    if source.sidecar is None:
        return Architecture(source.heads_for(width))
    name, arguments = source.sidecar.get("architecture"), _arguments(source)
    try:
        if not timm.is_model(str(name)):  # rejects hf-hub:... and local-dir:... too
            raise RuntimeError("Unknown model")
        with torch.device("meta"):
            model: Any = timm.create_model(str(name), **arguments)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"{source.sidecar_path}, architecture: timm cannot build {name!r} ({error})") from None
    blocks: list[Any] = list(model.blocks) if isinstance(model, VisionTransformer) else []
    if not blocks:
        raise CheckpointError(f"{source.sidecar_path}, architecture: found {name!r}, expected a ViT, DeiT or FlexiViT")
    activation = blocks[0].mlp.act
    if not isinstance(activation, nn.GELU) or activation.approximate != "none" or model.global_pool != "token":
        raise CheckpointError(
            f"{source.sidecar_path}, architecture: {name} has {activation} and pools by {model.global_pool!r},"
            " a FlexiAST has GELU and its prefix tokens"
        )
    return Architecture(blocks[0].attn.num_heads, blocks[0].norm1.eps, Grid(*model.patch_embed.grid_size))


def _arguments(source: Source) -> dict[str, Any]:
    """`model_args` of config.json. Raises CheckpointError for one that is not in ARGUMENTS."""
    sidecar = source.sidecar or {}
    arguments = sidecar.get("model_args") or {}
    if not isinstance(arguments, dict) or arguments.keys() - ARGUMENTS:
        unknown = some(arguments.keys() - ARGUMENTS) if isinstance(arguments, dict) else repr(arguments)
        raise CheckpointError(
            f"{source.sidecar_path}, architecture: timm cannot build {sidecar.get('architecture')!r} with model_args"
            f" {unknown}, expected some of {some(ARGUMENTS, len(ARGUMENTS))}"
        )
    if isinstance(depth := arguments.get("depth"), int):
        source.check_depth(depth)
    return arguments


def _kernel(channels: int) -> list[Rule]:
    """Sum the colours (D, 3, h, w) into one channel: the same response as to a grey image with three equal colours."""
    if channels == 1:
        return vit.kernel("patch_embed.proj")
    how = f"{channels} colours summed"
    weight = Rule(("patch_embed.proj.weight",), ("kernel",), lambda w: (w.float().sum(dim=1),), how=how)
    return [weight, vit.kernel("patch_embed.proj")[1]]


def _positions(
    source: Source, config: FlexiASTConfig, rows: int, known: Grid | None
) -> tuple[Rule, dict[str, tuple[Tensor, str]]]:
    """Positions (1, P + N, D), or (1, N, D) for models whose prefix tokens have none (FlexiViT)."""
    count, grid = config.prefix_tokens, config.base.grid
    old = next((g for n in (rows - count, rows) for g in (known, _square(n)) if g and g.tokens == n), None)
    if old is None:
        raise CheckpointError(f"{source.path}: pos_embed has {rows} rows, which are no square grid of image patches")
    start = rows - old.tokens  # 0 if the prefix tokens have no positions
    how = f"grid {old.freq}x{old.time}" + (f" fitted to {grid.freq}x{grid.time}" if old != grid else "")

    def read(tensor: Tensor) -> list[Tensor]:
        patches = fit_positions(tensor[0, start:].float().unflatten(0, old), grid)
        return [tensor[0, :start], patches] if start else [patches]

    ours = ("prefix_pos_embed", "pos_embed") if start else ("pos_embed",)
    zeros = (torch.zeros(count, config.width), "zeros: this model gives its prefix tokens no positions")
    return Rule(("pos_embed",), ours, read, how=how), {} if start else {"prefix_pos_embed": zeros}


def _square(tokens: int) -> Grid | None:
    side = math.isqrt(max(0, tokens))
    return Grid(side, side) if side and side * side == tokens else None


def _without_qkv_bias(rules: list[Rule], width: int) -> tuple[list[Rule], dict[str, tuple[Tensor, str]]]:
    """Rules without qkv biases, and zeros to stand in for them: the result is the same."""
    absent = [rule.ours[0] for rule in rules if rule.ours[0].endswith("attn.qkv.bias")]
    zeros = {name: (torch.zeros(3 * width), "zeros: attention without biases") for name in absent}
    return [rule for rule in rules if rule.ours[0] not in zeros], zeros


FORMAT = Format(
    "timm ViT",
    describe,
    r"cls_token|dist_token|pos_embed|patch_embed\.proj\.(weight|bias)|blocks\.\d+\..*|norm\.(weight|bias)"
    r"|head\.(weight|bias)|head_dist\.(weight|bias)",
)
