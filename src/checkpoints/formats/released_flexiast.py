"""Released FlexiAST state dicts (github.com/JiuFengSC/FlexiAST_INTERSPEECH23).

In use are v.{cls_token, dist_token, blocks, norm}, patch_embed.proj, pos_embed.pos_embed and mlp_head. The timm
model's own embeddings and heads are still in the file, unused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ConfigError
from ...models.config import FlexiASTConfig
from ...models.geometry import PatchSize
from . import vit_names as vit
from .base import Description, Format, Rule, Source, revert
from .published import settings

if TYPE_CHECKING:
    from ..tensors import State
    from .base import Checkpoint

LEFT_OVER = "left over from the timm model, never used"
LAYER_NORMS = "layer norm epsilons 1e-6 (encoder) and 1e-5 (classifier): those of timm and AST"


def rules(config: FlexiASTConfig) -> list[Rule]:
    """Rules for every tensor of the format that is in use."""
    return [
        vit.prefix_tokens(config),
        vit.positions("pos_embed.pos_embed", config),
        *vit.kernel("patch_embed.proj"),
        *vit.encoder(config),
        *vit.ast_head(),
    ]


def describe(source: Source) -> Description | None:
    """Describe a released FlexiAST, or return None. Base patches do not overlap, so the positions give the frames."""
    if not source.has("patch_embed.proj.weight", "pos_embed.pos_embed", "v.cls_token"):
        return None
    prefix = 2 if source.has("v.dist_token") else 1
    patch = PatchSize(*source.state["patch_embed.proj.weight"].shape[-2:])
    classes, width = source.need("mlp_head.1.weight").shape
    columns = (source.state["pos_embed.pos_embed"].shape[1] - prefix) // (source.bins // patch.freq)
    frames = columns * patch.time
    if source.frames and source.frames // patch.time == columns:
        frames = source.frames
    config = FlexiASTConfig(
        classes=classes,
        frames=frames,
        bins=source.bins,
        patch_size=patch,
        width=width,
        depth=source.depth(r"v\.blocks\.(\d+)\."),
        heads=source.heads_for(width),
        mlp_ratio=source.need("v.blocks.0.mlp.fc1.bias").shape[0] / width,
        prefix_tokens=prefix,
        coverage="drop",
    )
    metadata, note = settings(classes, frames, source.bins)
    ignored = dict.fromkeys(("v.pos_embed", "v.patch_embed.", "v.head.", "v.head_dist."), LEFT_OVER)
    return Description(config, rules(config), metadata, ignored, notes=[note, LAYER_NORMS])


FORMAT = Format(
    "released FlexiAST state dict",
    describe,
    r"v\.(cls_token|dist_token|norm\..*|blocks\.\d+\..*|pos_embed|patch_embed\..*|head\..*|head_dist\..*)"
    r"|patch_embed\.proj\.(weight|bias)|pos_embed\.pos_embed|mlp_head\.[01]\.(weight|bias)",
)


def to_released_flexiast(checkpoint: Checkpoint) -> State:
    """The tensors of a released FlexiAST that are in use. It does not hold layer norm epsilons or labels.

    Raises ConfigError for a network that the format cannot hold: overlapping patches, pooled patch tokens, or
    padded coverage, which the original code does not have.
    """
    config = checkpoint.config
    for field, expected in (("stride", None), ("pool", "cls"), ("coverage", "drop")):
        if (value := getattr(config, field)) != expected:
            raise ConfigError(f"model.{field}: found {value!r}, a released FlexiAST can only hold {expected!r}")
    return revert(checkpoint, rules(config))
