"""Patch dropout: in training, a random part of each clip's patches stays out of the encoder.

Source: patchout in PaSST (Koutini et al., INTERSPEECH 2022, arXiv 2110.05069).

Dimensions: B clips, P prefix tokens, H * W patches, N = P + H * W tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .geometry import kept_patches


class PatchDropout(nn.Module):
    """Leaves out a share of the patches of each clip, where there are many (`kept_patches`); none in evaluation.

    timm's PatchDropout takes the same share of few patches as of many, and coarse sizes have none to spare.
    """

    def __init__(self, rate: float, prefix: int) -> None:
        """rate: share of the patches, 0 to below 1. prefix: P."""
        super().__init__()
        self.rate, self.prefix = rate, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """The prefix and the patches that stay, in any order, of tokens (B, N, D) that have their positions."""
        patches = tokens.shape[1] - self.prefix
        kept = kept_patches(patches, self.rate)
        if not self.training or kept == patches:
            return tokens
        chosen = torch.rand(len(tokens), patches, device=tokens.device).argsort(dim=1)[:, :kept]
        chosen = (self.prefix + chosen)[:, :, None].expand(-1, -1, tokens.shape[2])
        return torch.cat([tokens[:, : self.prefix], tokens.gather(1, chosen)], dim=1)
