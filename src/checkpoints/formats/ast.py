"""Original AST state dicts (github.com/YuanGongND/ast), including those with overlapping patches.

The file states neither stride nor length; both are inferred from the number of positions, see `geometry.infer_layout`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CheckpointError, ConfigError
from ...models.config import FlexiASTConfig
from ...models.geometry import USUAL_FRAMES, PatchSize, infer_layout
from . import vit_names as vit
from .base import Description, Format, Rule, Source, revert
from .published import settings
from .released_flexiast import LAYER_NORMS

if TYPE_CHECKING:
    from ..tensors import State
    from .base import Checkpoint


def rules(config: FlexiASTConfig) -> list[Rule]:
    """Rules for every tensor of the format that is in use."""
    return [
        vit.prefix_tokens(config),
        vit.positions("v.pos_embed", config),
        *vit.kernel("v.patch_embed.proj"),
        *vit.encoder(config),
        *vit.ast_head(),
    ]


def describe(source: Source) -> Description | None:
    """Describe an original AST; None for anything else."""
    if not source.has("v.patch_embed.proj.weight", "v.pos_embed", "v.cls_token"):
        return None
    if source.has("patch_embed.proj.weight") or source.has("pos_embed.pos_embed"):
        return None  # a FlexiAST whose leftovers look like an AST
    prefix = 2 if source.has("v.dist_token") else 1
    patch = PatchSize(*source.state["v.patch_embed.proj.weight"].shape[-2:])
    classes, width = source.need("mlp_head.1.weight").shape
    tokens = source.state["v.pos_embed"].shape[1] - prefix
    layout = infer_layout(tokens, patch, source.bins, source.frames)
    if layout is None:
        raise CheckpointError(
            f"{source.path}: v.pos_embed has {tokens} patch positions, which fit no stride of patch {patch} on"
            f" {source.bins} bins and {', '.join(map(str, USUAL_FRAMES))} frames"
            + (f", nor {source.frames}" if source.frames else "; give the model's own `frames`")
        )
    stride, frames = layout
    config = FlexiASTConfig(
        classes=classes,
        frames=frames,
        bins=source.bins,
        patch_size=patch,
        stride=None if stride == patch else stride,
        width=width,
        depth=source.depth(r"v\.blocks\.(\d+)\."),
        heads=source.heads_for(width),
        mlp_ratio=source.need("v.blocks.0.mlp.fc1.bias").shape[0] / width,
        prefix_tokens=prefix,
        coverage="drop",
    )
    metadata, note = settings(classes, frames, source.bins)
    ignored = dict.fromkeys(("v.head.", "v.head_dist."), "ImageNet classifier of the timm model, never used")
    notes = [f"stride {stride}, {frames} frames: inferred from {tokens} patch positions", note, LAYER_NORMS]
    return Description(config, rules(config), metadata, ignored, notes=notes)


FORMAT = Format(
    "original AST state dict",
    describe,
    r"v\.(cls_token|dist_token|norm\..*|blocks\.\d+\..*|pos_embed|patch_embed\.proj\..*|head\..*|head_dist\..*)"
    r"|mlp_head\.[01]\.(weight|bias)",
)


def to_original_ast(checkpoint: Checkpoint) -> State:
    """The tensors of an original AST that are in use. It does not hold layer norm epsilons, labels or features.

    Raises ConfigError for a network that the format cannot hold (pooled patch tokens).
    """
    if checkpoint.config.pool != "cls":
        raise ConfigError(f"model.pool: found {checkpoint.config.pool!r}, an AST can only hold 'cls'")
    return revert(checkpoint, rules(checkpoint.config))
